"""The store as one process sees it: slow, sometimes away, sometimes silent about what it did.

The tables (`MemoryStore`) are the disk, and outlive every process. A write is carried out by the
disk, not by the process: so it may land although its process has died, even after the next one has
started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from audit import broken_invariants

from simulator.loop import HOST
from simulator.world import World
from workflow_engine.runtime.core.graph import Graph
from workflow_engine.runtime.core.shares import Look, PartitionRecord
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES
from workflow_engine.runtime.errors import IdempotencyConflict, PartitionLost, StoreOutcomeUnknown, StoreUnavailable
from workflow_engine.runtime.ports import (
    CommandRecord,
    CommitBatch,
    DefinitionRecord,
    DefinitionVersion,
    ExecutionFilter,
    ExecutionRecord,
    ExecutionSummary,
    HandlerRecord,
    IdempotencyClaim,
    KeyRecord,
    LoadedExecution,
    NewDefinition,
    NewExecution,
    StoreHealth,
    Work,
)
from workflow_engine.runtime.store.memory import MemoryStore

Result = TypeVar("Result")

DISK = ("disk", 0)


class Disk(MemoryStore):
    """The tables, with the invariants of every write checked as it lands."""

    def __init__(self, world: World, partitions: int) -> None:
        super().__init__(partitions, world.loop.time, shared=world.topology != "embedded")
        self._world = world
        self.committed_at: dict[tuple[str, str, int], float] = {}

    async def commit(self, batches: Sequence[CommitBatch], lease_seconds: float) -> Sequence[int | None]:
        states = {
            update.execution_id: self.executions[update.execution_id].state
            for batch in batches
            for update in batch.executions
        }
        versions = await super().commit(batches, lease_seconds)
        for batch, version in zip(batches, versions, strict=True):
            if version is None:
                self._world.happened["commit_fenced"] += 1
                continue
            for row in batch.attempts:
                self.committed_at[row.execution_id, row.node_id, row.attempt] = self._world.loop.time()
            updated = {update.execution_id for update in batch.executions}
            for row in batch.attempts:
                ended = self.executions[row.execution_id].state in TERMINAL_WORKFLOW_STATES
                if ended and row.execution_id not in updated:
                    self._world.violated(f"I14 an outcome of {row.node_id} was recorded after {row.execution_id} ended")
            for execution_id in updated:
                if states[execution_id] in TERMINAL_WORKFLOW_STATES:
                    self._world.violated(f"I14 {execution_id} was {states[execution_id]} and is written again")
        return versions


class SimulatedStore:
    """The Store of one incarnation."""

    def __init__(self, world: World, disk: Disk) -> None:
        self._world = world
        self._disk = disk

    async def open(self) -> None:
        await self._pause()

    async def close(self) -> None:
        await self._pause()

    async def define(self, definition: NewDefinition, created_at: int) -> DefinitionVersion:
        return await self._write(lambda: self._disk.define(definition, created_at), "define")

    async def create_execution(
        self, definition: NewDefinition | str, execution: NewExecution, claim: IdempotencyClaim | None = None
    ) -> tuple[str, str]:
        return await self._write(lambda: self._disk.create_execution(definition, execution, claim), "create")

    async def trigger(
        self, execution_id: str, input_text: bytes, started_at: int, claim: IdempotencyClaim | None = None
    ) -> str | None:
        return await self._write(lambda: self._disk.trigger(execution_id, input_text, started_at, claim), "trigger")

    async def cancel_pending(self, execution_id: str, completed_at: int) -> bool:
        return await self._write(lambda: self._disk.cancel_pending(execution_id, completed_at), "cancel_pending")

    async def add_cancel(self, execution_id: str, created_at: int) -> None:
        await self._write(lambda: self._disk.add_cancel(execution_id, created_at), "add_cancel")

    @property
    def partitions(self) -> int:
        return self._disk.partitions

    async def look(self, replica: str, lease_seconds: float) -> Look:
        return await self._write(lambda: self._disk.look(replica, lease_seconds), "look")

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        return await self._read(self._disk.read_partitions)

    async def leave(self, replica: str) -> None:
        await self._write(lambda: self._disk.leave(replica), "leave")

    async def checkpoint(self, replica: str, text: str) -> None:
        await self._write(lambda: self._disk.checkpoint(replica, text), "checkpoint")

    async def list_checkpoints(self) -> Sequence[tuple[str, float]]:
        return await self._read(self._disk.list_checkpoints)

    async def take_partition(self, partition: int, owner: str, version: int, lease_seconds: float) -> int:
        return await self._write(
            lambda: self._disk.take_partition(partition, owner, version, lease_seconds), "take_partition"
        )

    async def release_partition(self, partition: int, version: int) -> bool:
        return await self._write(lambda: self._disk.release_partition(partition, version), "release_partition")

    async def commit(self, batches: Sequence[CommitBatch], lease_seconds: float) -> Sequence[int | None]:
        return await self._write(lambda: self._disk.commit(batches, lease_seconds), "commit")

    async def find_work(self, partitions: Collection[int], now: int, limit: int) -> Work:
        owned = list(partitions)
        return await self._read(lambda: self._disk.find_work(owned, now, limit))

    async def oldest_ready(self, partitions: Collection[int], now: int) -> Mapping[int, int]:
        return await self._read(lambda: self._disk.oldest_ready(list(partitions), now))

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return await self._read(lambda: self._disk.load(list(execution_ids)))

    async def load_nodes(self, wanted: Mapping[str, Collection[str]]) -> Sequence[LoadedExecution]:
        return await self._read(lambda: self._disk.load_nodes({each: set(names) for each, names in wanted.items()}))

    async def read_cancels(self, execution_ids: Collection[str]) -> Sequence[CommandRecord]:
        return await self._read(lambda: self._disk.read_cancels(execution_ids))

    async def read_execution_state(self, execution_id: str) -> LoadedExecution | None:
        return await self._read(lambda: self._disk.read_execution_state(execution_id))

    async def read_execution(self, execution_id: str) -> ExecutionRecord | None:
        return await self._read(lambda: self._disk.read_execution(execution_id))

    async def read_outputs(self, execution_id: str, node_ids: Sequence[str]) -> Sequence[tuple[str, bytes]]:
        return await self._read(lambda: self._disk.read_outputs(execution_id, node_ids))

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        return await self._read(lambda: self._disk.read_definition(definition_id))

    async def find_definition(self, name: str, version: int | None = None) -> DefinitionVersion | None:
        return await self._read(lambda: self._disk.find_definition(name, version))

    async def list_definitions(self, after: str | None, limit: int) -> Sequence[DefinitionVersion]:
        return await self._read(lambda: self._disk.list_definitions(after, limit))

    async def list_versions(self, name: str, below: int | None, limit: int) -> Sequence[DefinitionVersion]:
        return await self._read(lambda: self._disk.list_versions(name, below, limit))

    async def list_executions(
        self, wanted: ExecutionFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        return await self._read(lambda: self._disk.list_executions(wanted, before, limit))

    async def add_key(self, record: KeyRecord) -> None:
        await self._write(lambda: self._disk.add_key(record), "add_key")

    async def list_keys(self) -> Sequence[KeyRecord]:
        return await self._read(self._disk.list_keys)

    async def find_key(self, digest: str) -> KeyRecord | None:
        return await self._read(lambda: self._disk.find_key(digest))

    async def revoke_key(self, key_id: str, revoked_at: int) -> bool:
        return await self._write(lambda: self._disk.revoke_key(key_id, revoked_at), "revoke_key")

    async def save_handlers(self, records: Sequence[HandlerRecord], seen_at: int) -> None:
        await self._write(lambda: self._disk.save_handlers(records, seen_at), "save_handlers")

    async def list_handlers(self, seen_from: int) -> Sequence[HandlerRecord]:
        return await self._read(lambda: self._disk.list_handlers(seen_from))

    async def delete_ended_executions(self, ended_before: int, limit: int) -> int:
        return await self._write(lambda: self._disk.delete_ended_executions(ended_before, limit), "delete_executions")

    async def delete_claims(self, created_before: int, limit: int) -> int:
        return await self._write(lambda: self._disk.delete_claims(created_before, limit), "delete_claims")

    async def health(self) -> StoreHealth:
        return await self._disk.health()

    async def _read(self, effect: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        await self._pause()
        if self._world.strikes("store_unavailable"):
            raise StoreUnavailable("simulated: cannot be read")
        result = await effect()
        await self._pause()
        return result

    async def _write(self, effect: Callable[[], Coroutine[Any, Any, Result]], verb: str) -> Result:
        """Have the disk do it, and hear what came of it, or not."""
        world = self._world
        host = HOST.get()
        await self._pause()
        if world.strikes("store_unavailable"):
            raise StoreUnavailable(f"simulated: cannot {verb}")
        late = 0.0
        if world.strikes("store_lands_late"):
            late = world.faults.random() * 20
        answer: asyncio.Future[Result] = world.loop.create_future()
        world.loop.create_task_of(DISK, self._land(effect, verb, host, late, answer))
        if world.strikes("store_outcome_unknown"):
            if world.faults.random() < 0.5:
                await self._pause()
            raise StoreOutcomeUnknown(f"simulated: no answer to {verb}")
        result = await answer
        await self._pause()
        return result

    async def _land(
        self,
        effect: Callable[[], Coroutine[Any, Any, Result]],
        verb: str,
        host: tuple[str, int],
        late: float,
        answer: asyncio.Future[Result],
    ) -> None:
        await asyncio.sleep(self._world.faults.random() * 0.01 + late)
        dead = self._world.loop.is_dead(host)
        if dead and not late:
            self._world.happened["write_lost_with_its_process"] += 1
            return
        try:
            result = await effect()
        except (PartitionLost, IdempotencyConflict) as refused:
            self._world.happened["taking_fenced" if isinstance(refused, PartitionLost) else "claim_conflict"] += 1
            self._world.note(f"{verb} of {host} refused: {type(refused).__name__}")
            if not answer.done():
                answer.set_exception(refused)
                answer.exception()
            return
        except Exception as fault:
            self._world.violated(f"{verb} of {host} cannot be stored: {fault!r}")
            if not answer.done():
                answer.set_exception(fault)
                answer.exception()
            return
        if dead:
            self._world.happened["write_landed_after_its_process_died"] += 1
        self._world.note(f"{verb} of {host} landed")
        if not answer.done():
            answer.set_result(result)

    async def _pause(self) -> None:
        delay = self._world.faults.random() * 0.005
        if self._world.strikes("store_slow"):
            delay = self._world.faults.random() * 3
        await asyncio.sleep(delay)


def audit(world: World, disk: Disk, graphs: Mapping[str, Graph]) -> None:
    """Recompute every stored execution from its rows and report each broken invariant."""
    for record in disk.executions.values():
        loaded = disk.loaded(record.execution_id)
        for broken in broken_invariants(loaded, graphs[record.definition_id]):
            world.violated(broken)
