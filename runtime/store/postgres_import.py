"""Takes over everything of a SQLite database into an empty PostgreSQL database, in one transaction."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import asyncpg

from ...sql import load_queries
from ..clock import Clock
from ..core.shares import partition_of
from ..core.state import TERMINAL_WORKFLOW_STATES
from ..errors import StoreUnusable
from .postgres import PostgresStore
from .postgres_connections import PostgresAddress
from .sqlite_export import Batch

IN_FLIGHT = "in flight"


async def import_tables(
    batches: Iterable[Batch], address: PostgresAddress, clock: Clock, *, partitions: int
) -> Mapping[str, int]:
    """Copy `batches` into the database, which is migrated first and must hold nothing.

    Returns how many rows of each table were copied, and under `IN_FLIGHT` how many executions had not ended. All
    or nothing: raises `StoreUnusable` when the database cannot be used or holds something.
    """
    store = PostgresStore(
        address, clock, pool_size=4, timeout_seconds=60.0, owner_timeout_seconds=60.0, partitions=partitions
    )
    await store.open()
    await store.close()
    connection: Any = await asyncpg.connect(**address.options())
    try:
        async with connection.transaction():
            return await _import(connection, batches, partitions)
    finally:
        await connection.close()


async def _import(connection: Any, batches: Iterable[Batch], partitions: int) -> Mapping[str, int]:
    queries = load_queries("postgres")
    if await connection.fetchval(queries["has_data"]):
        raise StoreUnusable("the database to copy to holds something already; give it an empty one")
    copied: Counter[str] = Counter()
    for batch in batches:
        table = batch.table
        columns = list(table.columns)
        if table.name == "executions":
            columns.append("partition")
        records = [_record(table.columns, row, partitions) for row in batch.rows]
        try:
            await connection.copy_records_to_table(table.name, records=records, columns=columns)
        except asyncpg.DataError as error:
            raise StoreUnusable(f"{table.name} cannot be copied: {error}") from error
        copied[table.name] += len(records)
        if table.name == "executions":
            state = table.columns.index("state")
            copied[IN_FLIGHT] += sum(row[state] not in TERMINAL_WORKFLOW_STATES for row in batch.rows)
    await connection.fetchval(queries["continue_commands"])
    return copied


def _record(columns: Sequence[str], row: Sequence[Any], partitions: int) -> tuple[Any, ...]:
    """A row of SQLite as PostgreSQL takes it; an execution with its partition behind it."""
    values = [
        _CONVERSIONS[column](value) if column in _CONVERSIONS and value is not None else value
        for column, value in zip(columns, row, strict=True)
    ]
    if "input_text" in columns:
        values.append(partition_of(row[0], partitions))
    return tuple(values)


_CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "error": str.encode,
    "consumed": bool,
    "scopes": json.loads,
}
