"""Brings a SQLite database to the schema of this version: each migration once, all or nothing."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ...sql import Migration, load_migrations, load_queries
from ..errors import StoreUnusable
from ..failpoints import failpoint

_DIALECT = "sqlite"


class Schema(NamedTuple):
    """The migrations of this version, by name: those that a database has, and those that it lacks."""

    applied: Sequence[str]
    missing: Sequence[str]

    def check_complete(self) -> None:
        """Raise `StoreUnusable` when any is missing, for whoever only reads."""
        if self.missing:
            raise StoreUnusable(
                f"the database lacks {', '.join(self.missing)}: start the engine on it, or run "
                "`workflow-engine migrate up`"
            )


def migrate(connection: sqlite3.Connection, now: int, *, dry_run: bool = False) -> list[str]:
    """Apply what is missing, in one transaction; returns the names of what was applied.

    `connection` must be in autocommit mode. With `dry_run` the transaction is rolled back at its end. Raises
    `StoreUnusable` when the database is of a newer version, or an applied migration is not the one that this
    version has.
    """
    queries = load_queries(_DIALECT)
    migrations = load_migrations(_DIALECT)
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(queries["create_migrations_table"])
        applied = connection.execute(queries["list_migrations"]).fetchall()
        missing = missing_migrations(migrations, applied)
        for migration in missing:
            for statement in split_statements(migration.text):
                failpoint("store.migration.statement")
                connection.execute(statement)
            connection.execute(queries["insert_migration"], (migration.number, migration.name, migration.digest, now))
        connection.execute("ROLLBACK" if dry_run else "COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return [f"{migration.number:04}_{migration.name}" for migration in missing]


def check_migrated(connection: sqlite3.Connection) -> None:
    """Raise `StoreUnusable` when a migration is missing; the database stays as it is."""
    queries = load_queries(_DIALECT)
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(queries["create_migrations_table"])
        missing = missing_migrations(
            load_migrations(_DIALECT), connection.execute(queries["list_migrations"]).fetchall()
        )
    finally:
        connection.execute("ROLLBACK")
    refuse_missing(missing)


def refuse_missing(missing: Sequence[Migration]) -> None:
    """Raise `StoreUnusable` when there are any: somebody else is meant to apply them."""
    if missing:
        names = ", ".join(f"{migration.number:04}_{migration.name}" for migration in missing)
        raise StoreUnusable(
            f"the database lacks {names}, and SKIP_MIGRATIONS is set: run `workflow-engine migrate up`, or unset it"
        )


def schema_of(migrations: Sequence[Migration], applied: Sequence[tuple[int, str, str]]) -> Schema:
    """The names, by what was applied. Raises `StoreUnusable` when that does not fit."""
    names = [f"{each.number:04}_{each.name}" for each in migrations]
    count = len(migrations) - len(missing_migrations(migrations, applied))
    return Schema(names[:count], names[count:])


def missing_migrations(migrations: Sequence[Migration], applied: Sequence[tuple[int, str, str]]) -> Sequence[Migration]:
    """What is still to be applied. Raises `StoreUnusable` when what was applied does not fit."""
    if len(applied) > len(migrations):
        number, name, _ = applied[-1]
        raise StoreUnusable(
            f"the database has migration {number:04}_{name}, which this version does not know: it was used by a "
            "newer version; run that version, or restore an older copy of the database"
        )
    for migration, (number, name, digest) in zip(migrations, applied, strict=False):
        if (migration.number, migration.digest) != (number, digest):
            raise StoreUnusable(
                f"migration {number:04}_{name} was applied to the database with another content than this "
                "version's; run the version that made the database, or restore a copy"
            )
    return migrations[len(applied) :]


def split_statements(text: str) -> Iterator[str]:
    """The statements of a script one by one (`executescript` would commit before it starts)."""
    statement = ""
    for part in re.split("(?<=;)", text):
        statement += part
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement
