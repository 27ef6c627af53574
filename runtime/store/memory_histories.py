"""A store in memory as the audit reads it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..audit import ClaimRecord
from ..core.shares import PartitionRecord
from ..ports import DefinitionRecord, LoadedExecution
from .memory import MemoryStore


class MemoryHistories:
    """Reads what a store holds."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to release."""

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        return await self._store.read_partitions()

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        return await self._store.read_definition(definition_id)

    async def list_execution_ids(self, after: str, limit: int) -> Sequence[str]:
        return sorted(each for each in self._store.executions if each > after)[:limit]

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return await self._store.load(execution_ids)

    async def load_outlines(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return [
            each._replace(
                record=each.record._replace(input_text=_outline(each.record.input_text)),
                attempts=[row._replace(output=_outline(row.output)) for row in each.attempts],
            )
            for each in await self._store.load(execution_ids)
        ]

    async def find_retry(self, execution_id: str) -> str | None:
        return await self._store.find_retry(execution_id)

    async def list_claims(self, after: str, limit: int) -> Sequence[ClaimRecord]:
        behind = sorted(key for key in self._store.claims if key > after)[:limit]
        claims = [self._store.claims[key] for key in behind]
        return [
            ClaimRecord(claim.key, execution_id, definition_id, claim.created_at)
            for claim, execution_id, definition_id in claims
        ]


def _outline(text: bytes | None) -> bytes | None:
    return None if text is None else b""
