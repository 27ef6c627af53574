"""A database file as the audit reads it: without its lock, so that an engine may have it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite

from ...sql import load_queries
from ..audit import ClaimRecord
from ..core.shares import PartitionRecord
from ..errors import StoreUnavailable, StoreUnusable
from ..ports import DefinitionRecord, LoadedExecution
from .rows import assemble_loaded, json_array
from .sqlite import partition_records
from .sqlite_file import read_schema


class SqliteHistories:
    """Reads one file, of this version's schema."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queries = load_queries("sqlite")
        self._reader: aiosqlite.Connection | None = None

    async def open(self) -> None:
        if not self._path.exists():
            raise StoreUnusable(f"there is no database {self._path.absolute()}; set SQLITE_PATH to the engine's")
        read_schema(self._path).check_complete()
        address = f"file:{quote(os.fsencode(self._path.resolve()))}?mode=ro"
        self._reader = await aiosqlite.connect(address, uri=True, isolation_level=None)

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        return partition_records(await self._read("read_partitions", ()))

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        found = await self._read("read_definition", (definition_id,))
        return DefinitionRecord(*found[0]) if found else None

    async def list_execution_ids(self, after: str, limit: int) -> Sequence[str]:
        return [row[0] for row in await self._read("list_execution_ids", {"after": after, "limit": limit})]

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        values = {"execution_ids": json_array(execution_ids), "with_outputs": True}
        return assemble_loaded(await self._read("load_executions", values))

    async def load_outlines(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return assemble_loaded(await self._read("load_outlines", {"execution_ids": json_array(execution_ids)}))

    async def find_retry(self, execution_id: str) -> str | None:
        found = await self._read("find_retry", (execution_id,))
        return str(found[0][0]) if found else None

    async def list_claims(self, after: str, limit: int) -> Sequence[ClaimRecord]:
        rows = await self._read("list_claims", {"after": after, "limit": limit})
        return [ClaimRecord(*row) for row in rows]

    async def _read(self, query: str, values: Any) -> Sequence[Any]:
        if self._reader is None:
            raise StoreUnavailable("the store is closed")
        try:
            return list(await self._reader.execute_fetchall(self._queries[query], values))
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(f"the database cannot be read ({error})") from error
