"""Everything of a SQLite database, table by table, in batches that fit into memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ...sql import load_queries

MAX_BATCH_ROWS = 1_000
MAX_BATCH_BYTES = 8 * 1024 * 1024


class Table(NamedTuple):
    """A table's name and its columns."""

    name: str
    columns: Sequence[str]


class Batch(NamedTuple):
    """Some rows of a table, in the order of its columns."""

    table: Table
    rows: Sequence[tuple[Any, ...]]


def export_tables(path: Path) -> Iterator[Batch]:
    """Every row of every table that holds data. The database must have this version's schema and no writer."""
    queries = load_queries("sqlite")
    texts = {
        "definitions": queries["export_definitions"],
        "executions": queries["export_executions"],
        "attempts": queries["export_attempts"],
        "commands": queries["export_commands"],
        "suspicions": queries["export_suspicions"],
        "idempotency_claims": queries["export_claims"],
        "api_keys": queries["export_keys"],
    }
    with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)) as connection:
        for name, text in texts.items():
            cursor = connection.execute(text)
            table = Table(name, [column[0] for column in cursor.description])
            for rows in _batches(cursor):
                yield Batch(table, rows)


def _batches(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    batch: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(value) for value in row if isinstance(value, bytes | str))
        if len(batch) >= MAX_BATCH_ROWS or size >= MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
