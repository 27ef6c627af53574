"""A database as the audit reads it: over one connection, whoever else uses it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import asyncpg

from ...sql import load_queries
from ..audit import ClaimRecord
from ..core.shares import PartitionRecord
from ..errors import StoreUnavailable
from ..ports import DefinitionRecord, LoadedExecution
from .postgres import assembled
from .postgres_connections import Connections, PostgresAddress
from .postgres_errors import CANNOT_CONNECT, unusable
from .postgres_migrations import read_schema


class PostgresHistories:
    """Reads one database, of this version's schema."""

    def __init__(self, address: PostgresAddress, *, timeout_seconds: float, schema: str = "public") -> None:
        self._address = address
        self._queries = load_queries("postgres")
        settings = {
            "search_path": schema,
            "application_name": "workflow-engine audit",
            "default_transaction_read_only": "on",
        }
        self._connections = Connections(address, size=1, timeout_seconds=timeout_seconds, settings=settings)

    async def open(self) -> None:
        await self._connections.open()
        try:
            connection = await self._connections.acquire()
            try:
                (await read_schema(connection)).check_complete()
            finally:
                await self._connections.release(connection)
        except (StoreUnavailable, *CANNOT_CONNECT) as error:
            await self.close()
            raise unusable(self._address, error) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._connections.close()

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        return [PartitionRecord(*row) for row in await self._read("read_partitions")]

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        found = await self._read("read_definition", definition_id)
        return DefinitionRecord(*found[0]) if found else None

    async def list_execution_ids(self, after: str, limit: int) -> Sequence[str]:
        return [row[0] for row in await self._read("list_execution_ids", after, limit)]

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return assembled(await self._read("load_executions", list(execution_ids), True))

    async def load_outlines(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return assembled(await self._read("load_outlines", list(execution_ids)))

    async def find_retry(self, execution_id: str) -> str | None:
        found = await self._read("find_retry", execution_id)
        return str(found[0][0]) if found else None

    async def list_claims(self, after: str, limit: int) -> Sequence[ClaimRecord]:
        return [ClaimRecord(*row) for row in await self._read("list_claims", after, limit)]

    async def _read(self, query: str, *values: Any) -> Sequence[asyncpg.Record]:
        return await self._connections.read(self._queries[query], *values)
