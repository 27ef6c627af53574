"""Brings a PostgreSQL database to the schema of this version: each migration once, whoever starts at the same time."""

from __future__ import annotations

from typing import Any

from ...sql import load_migrations, load_queries
from ..failpoints import failpoint
from .migrations import missing_migrations, refuse_missing

_DIALECT = "postgres"


async def migrate(connection: Any, now: int) -> list[str]:
    """Apply what is missing, in one transaction, one process at a time; returns the names of what was applied.

    Raises `StoreUnusable` when the database is of a newer version, or an applied migration is not the one that
    this version has.
    """
    queries = load_queries(_DIALECT)
    async with connection.transaction():
        await connection.execute(queries["lock_migrations"])
        await connection.execute(queries["create_migrations_table"])
        missing = missing_migrations(load_migrations(_DIALECT), await _applied(connection))
        for migration in missing:
            failpoint("store.migration.statement")
            await connection.execute(migration.text)
            await connection.execute(
                queries["insert_migration"], migration.number, migration.name, migration.digest, now
            )
    return [f"{migration.number:04}_{migration.name}" for migration in missing]


async def check_migrated(connection: Any) -> None:
    """Raise `StoreUnusable` unless every migration of this version has been applied, and no other."""
    queries = load_queries(_DIALECT)
    async with connection.transaction():
        await connection.execute(queries["create_migrations_table"])
        refuse_missing(missing_migrations(load_migrations(_DIALECT), await _applied(connection)))


async def _applied(connection: Any) -> list[tuple[int, str, str]]:
    queries = load_queries(_DIALECT)
    return [tuple(row) for row in await connection.fetch(queries["list_migrations"])]
