"""A database file looked at by somebody who is not its owner: `migrate` and `doctor`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from ...sql import load_migrations, load_queries
from ..errors import StoreUnusable
from ..ports import KeyRecord
from .file_lock import FileLock
from .migrations import Schema, migrate, schema_of
from .rows import execution_summary, key_record
from .sqlite import explain

Result = TypeVar("Result")


def read_schema(path: Path) -> Schema:
    """The state of the schema, also while a server uses the file; without a file everything is missing.

    Raises `StoreUnusable` when the file is no sound database, or was used by another version.
    """
    return schema_of(load_migrations("sqlite"), _look(path, _applied) if path.exists() else [])


def newest_execution_at(path: Path) -> int | None:
    """When the newest execution was created (epoch milliseconds). The schema must be complete."""
    values = {"lowest": "", "before": "~", "limit": 1}
    query = load_queries("sqlite")["list_executions"]
    found = _look(path, lambda connection: connection.execute(query, values).fetchall())
    return execution_summary(found[0]).created_at if found else None


def read_keys(path: Path) -> Sequence[KeyRecord]:
    """Every API key. The schema must be complete."""
    query = load_queries("sqlite")["list_keys"]
    return _look(path, lambda connection: [key_record(row) for row in connection.execute(query)])


def try_migrations(path: Path, now: int) -> list[str]:
    """Apply what is missing and take it back; returns the names. No other process may use the file."""
    if not path.exists():
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            return migrate(connection, now, dry_run=True)
    lock = FileLock(path)
    lock.acquire()
    try:
        with closing(sqlite3.connect(path.resolve(), isolation_level=None)) as connection:
            return migrate(connection, now, dry_run=True)
    except sqlite3.DatabaseError as error:
        raise StoreUnusable(f"{path}: {explain(error, path)}") from error
    finally:
        lock.release()


def _look(path: Path, read: Callable[[sqlite3.Connection], Result]) -> Result:
    address = f"file:{quote(os.fsencode(path.resolve()))}?mode=ro"
    try:
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
            return read(connection)
    except sqlite3.DatabaseError as error:
        raise StoreUnusable(f"{path}: {explain(error, path)}") from error


def _applied(connection: sqlite3.Connection) -> list[tuple[int, str, str]]:
    queries = load_queries("sqlite")
    [[tables]] = connection.execute(queries["count_migrations_table"]).fetchall()
    return connection.execute(queries["list_migrations"]).fetchall() if tables else []
