"""Brings a PostgreSQL database to the schema of this version: each migration once, whoever starts at the same time."""

from __future__ import annotations

from typing import Any

from ...sql import load_migrations, load_queries
from ..errors import StoreUnusable
from ..failpoints import failpoint
from .migrations import Schema, missing_migrations, refuse_missing, schema_of

OLDEST_SERVER = 15

_DIALECT = "postgres"


async def migrate(connection: Any, now: int) -> list[str]:
    """Apply what is missing, in one transaction, one process at a time; returns the names of what was applied.

    Raises `StoreUnusable` when the server is too old, the database is of a newer version, or an applied migration
    is not the one that this version has.
    """
    async with connection.transaction():
        return await _apply(connection, now)


async def try_migrations(connection: Any, now: int) -> list[str]:
    """What `migrate` does, taken back at its end; returns the names."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        return await _apply(connection, now)
    finally:
        await transaction.rollback()


async def check_migrated(connection: Any) -> None:
    """Raise `StoreUnusable` unless every migration of this version has been applied, and no other. Changes nothing."""
    _refuse_old_server(connection)
    refuse_missing(missing_migrations(load_migrations(_DIALECT), await _applied(connection)))


async def read_schema(connection: Any) -> Schema:
    """The state of the schema. Raises `StoreUnusable` when the database was used by another version."""
    return schema_of(load_migrations(_DIALECT), await _applied(connection))


async def _applied(connection: Any) -> list[tuple[int, str, str]]:
    queries = load_queries(_DIALECT)
    if not await connection.fetchval(queries["has_migrations_table"]):
        return []
    return [tuple(row) for row in await connection.fetch(queries["list_migrations"])]


async def _apply(connection: Any, now: int) -> list[str]:
    _refuse_old_server(connection)
    queries = load_queries(_DIALECT)
    await connection.execute(queries["lock_migrations"])
    await connection.execute(queries["create_migrations_table"])
    missing = missing_migrations(load_migrations(_DIALECT), await _applied(connection))
    for migration in missing:
        failpoint("store.migration.statement")
        await connection.execute(migration.text)
        await connection.execute(queries["insert_migration"], migration.number, migration.name, migration.digest, now)
    return [f"{migration.number:04}_{migration.name}" for migration in missing]


def _refuse_old_server(connection: Any) -> None:
    version = connection.get_server_version()
    if version.major < OLDEST_SERVER:
        raise StoreUnusable(f"PostgreSQL {version.major} is too old; {OLDEST_SERVER} or newer is needed")
