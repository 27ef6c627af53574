"""The store as one process sees it: slow, sometimes away, sometimes silent about what it did.

The tables (`MemoryStore`) are the disk, and outlive every process. A write is carried out by the
disk, not by the process: so it may land although its process has died, even after the next one has
started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, KeysView, Sequence
from functools import partial
from typing import Any, TypeVar

from simulator.loop import HOST
from simulator.world import Link, World
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES
from workflow_engine.runtime.errors import IdempotencyConflict, PartitionLost, StoreOutcomeUnknown, StoreUnavailable
from workflow_engine.runtime.ports import CommitBatch
from workflow_engine.runtime.store.memory import MemoryStore

Result = TypeVar("Result")

DISK = ("disk", 0)
TIMEOUT_SECONDS = 2.0
"""How long who is cut off waits for an answer, at most: a third of the lease."""
READS = frozenset(
    {
        "read_partitions",
        "list_checkpoints",
        "find_work",
        "oldest_ready",
        "load",
        "load_nodes",
        "read_cancels",
        "read_execution_state",
        "read_execution",
        "read_outputs",
        "read_definition",
        "find_definition",
        "list_definitions",
        "list_versions",
        "list_executions",
        "list_dead_letters",
        "read_dead_letter",
        "list_attempts",
        "find_retry",
        "list_keys",
        "find_key",
        "list_handlers",
    }
)


class Disk(MemoryStore):
    """The tables, with the invariants of every write checked as it lands."""

    def __init__(self, world: World, partitions: int) -> None:
        super().__init__(partitions, world.loop.time, shared=world.topology != "embedded")
        self._world = world
        self.stopped = False
        self.crawls = False
        self.committed_at: dict[tuple[str, str, int], float] = {}
        self.ended_at: dict[str, float] = {}
        self.requeued: dict[str, list[str]] = {}
        """By dead letter, what it was requeued as."""

    async def misbehave(self) -> None:
        """Be away and be slow as drawn, until the quiet end."""
        world = self._world
        while not world.quiet:
            await asyncio.sleep(world.faults.random() * 30)
            if world.draws("store_stopped"):
                self.stopped = True
                await asyncio.sleep(world.faults.random() * 20)
                self.stopped = False
            if world.draws("store_crawls"):
                self.crawls = True
                await asyncio.sleep(world.faults.random() * 15)
                self.crawls = False

    async def commit(self, batches: Sequence[CommitBatch], lease_seconds: float) -> Sequence[int | None]:
        world = self._world
        states = {
            update.execution_id: self.executions[update.execution_id].state
            for batch in batches
            for update in batch.executions
        }
        versions = await super().commit(batches, lease_seconds)
        for batch, version in zip(batches, versions, strict=True):
            if version is None:
                world.happened["commit_fenced"] += 1
                continue
            world.happened["command_too_late"] += sum(command.sequence is None for command in batch.commands)
            world.happened["suspected"] += len(batch.suspicions)
            for row in batch.attempts:
                self.committed_at[row.execution_id, row.node_id, row.attempt] = world.loop.time()
            updated = {update.execution_id: None for update in batch.executions}
            touched = {row.execution_id: None for row in batch.attempts} | updated
            for row in batch.attempts:
                if row.execution_id in self.ended_at:
                    world.violated(f"I14 an outcome of {row.node_id} was recorded after {row.execution_id} ended")
            for execution_id in updated:
                if states[execution_id] in TERMINAL_WORKFLOW_STATES:
                    world.violated(f"I14 {execution_id} was {states[execution_id]} and is written again")
            for execution_id in touched:
                if self.executions[execution_id].state in TERMINAL_WORKFLOW_STATES:
                    self.ended_at[execution_id] = world.loop.time()
                self._check_sequence(execution_id)
        return versions

    async def requeue(self, execution_id: str, *arguments: Any) -> str | None:
        started = await super().requeue(execution_id, *arguments)
        if started is not None:
            self.requeued.setdefault(execution_id, []).append(started)
        return started

    async def release_partition(self, partition: int, version: int) -> bool:
        released = await super().release_partition(partition, version)
        self._world.happened["handed_over" if released else "release_fenced"] += 1
        return released

    def _check_sequence(self, execution_id: str) -> None:
        """I13, as far as it costs little: numbers are given out once and none is left out."""
        given = [row.sequence for row in self.attempts.get(execution_id, {}).values()]
        given += [
            command.sequence
            for command in self.commands.values()
            if command.execution_id == execution_id and command.sequence is not None
        ]
        if len(set(given)) != len(given) or max(given, default=0) != len(given):
            self._world.violated(f"I13 the sequence of {execution_id} is not dense: {sorted(given)}")


class SimulatedStore:
    """The Store of one incarnation."""

    def __init__(self, world: World, disk: Disk, link: Link) -> None:
        self._world = world
        self._disk = disk
        self._link = link

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Every verb of the port that is not below: the disk does it, and the answer comes, or does not."""
        return partial(self._read if verb in READS else self._write, verb)

    @property
    def partitions(self) -> int:
        return self._disk.partitions

    async def open(self) -> None:
        await self._pause()

    async def close(self) -> None:
        await self._pause()

    async def health(self) -> Any:
        return await self._disk.health()

    async def _read(self, verb: str, *arguments: Any) -> Any:
        world = self._world
        kept = _kept(arguments)
        await self._reach(verb)
        result = await getattr(self._disk, verb)(*kept)
        if self._link.is_unheard:
            world.suffered("unheard_by_store")
            await asyncio.sleep(world.faults.random() * TIMEOUT_SECONDS)
            raise StoreUnavailable(f"simulated: no answer to {verb} comes through")
        await self._pause()
        return result

    async def _write(self, verb: str, *arguments: Any) -> Any:
        """Have the disk do it, and hear what came of it, or not."""
        world = self._world
        host = HOST.get()
        kept = _kept(arguments)
        await self._reach(verb)
        late = 0.0
        if world.strikes("store_lands_late"):
            late = world.faults.random() * 20
        answer: asyncio.Future[Any] = world.loop.create_future()
        world.loop.create_task_of(DISK, self._land(partial(getattr(self._disk, verb), *kept), verb, host, late, answer))
        if self._link.is_unheard:
            world.suffered("unheard_by_store")
            await asyncio.sleep(world.faults.random() * TIMEOUT_SECONDS)
            raise StoreOutcomeUnknown(f"simulated: no answer to {verb} comes through")
        if world.strikes("store_outcome_unknown"):
            if world.faults.random() < 0.5:
                await self._pause()
            raise StoreOutcomeUnknown(f"simulated: no answer to {verb}")
        result = await answer
        await self._pause()
        return result

    async def _reach(self, verb: str) -> None:
        """The way to the disk."""
        world = self._world
        await self._pause()
        if self._link.is_cut:
            world.suffered("cut_from_store")
            await asyncio.sleep(world.faults.random() * TIMEOUT_SECONDS)
            raise StoreUnavailable(f"simulated: cannot be reached to {verb}")
        if self._disk.stopped:
            world.suffered("store_stopped")
            raise StoreUnavailable("simulated: is away")
        if world.strikes("store_unavailable"):
            raise StoreUnavailable(f"simulated: cannot {verb}")

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
            if self._disk.stopped:
                raise StoreOutcomeUnknown(f"simulated: went away during {verb}")
            result = await effect()
        except (PartitionLost, IdempotencyConflict, StoreOutcomeUnknown) as refused:
            kinds = {PartitionLost: "taking_missed", IdempotencyConflict: "claim_conflict"}
            self._world.happened[kinds.get(type(refused), "write_lost_with_the_store")] += 1
            self._world.note(f"{verb} of {host} refused: {type(refused).__name__}")
            if not answer.done():
                answer.set_exception(refused)
                answer.exception()
            return
        except Exception as fault:
            self._world.violated(f"I5 {verb} of {host} cannot be stored: {fault!r}")
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
        if self._disk.crawls:
            self._world.happened["store_crawls"] += 1
            delay = 0.3 + self._world.faults.random() * 1.5
        elif self._world.strikes("store_slow"):
            delay = self._world.faults.random() * 3
        await asyncio.sleep(delay)


def _kept(arguments: Sequence[Any]) -> list[Any]:
    """What was asked for, whatever becomes of the caller's collections meanwhile."""
    return [list(each) if isinstance(each, (list, set, KeysView)) else each for each in arguments]
