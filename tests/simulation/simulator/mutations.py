"""Safeguards of the protocol, each switched off in its own way. What a mutation breaks, some seed must show."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from simulator.disk import Disk, SimulatedStore
from workflow_engine.runtime.core import machine
from workflow_engine.runtime.core.deliveries import DeliveryKey
from workflow_engine.runtime.core.graph import Graph
from workflow_engine.runtime.core.machine import AttemptRow, Effects, Execution
from workflow_engine.runtime.core.shares import NOBODY, Look, PartitionRecord, Plan, plan
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.orchestrator.deliveries import Deliveries
from workflow_engine.runtime.orchestrator.leases import Leases
from workflow_engine.runtime.orchestrator.owner import Owner
from workflow_engine.runtime.ports import (
    CommitBatch,
    IdempotencyClaim,
    LoadedExecution,
    NewDefinition,
    NewExecution,
    Work,
)
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.transport.shared import SharedTransport
from workflow_engine.runtime.worker.pool import WorkerPool
from workflow_engine.runtime.worker.taker import Taker

Mutate = Callable[[pytest.MonkeyPatch], None]


def dispatch_before_commit(patch: pytest.MonkeyPatch) -> None:
    async def settle(owner: Owner, effects: Effects) -> Collection[int]:
        owner._act(effects)
        return await owner._commit(effects)

    patch.setattr(Owner, "_settle", settle)


def loading_beside_commits(patch: pytest.MonkeyPatch) -> None:
    """What is loaded in the next turn is read while the commit of this one is under way."""
    settled, loaded = Owner._settle, SimulatedStore._read
    ahead: dict[SimulatedStore, dict[str, LoadedExecution]] = {}

    async def settle(owner: Owner, effects: Effects) -> Collection[int]:
        store: Any = owner._store
        wanted = list(dict.fromkeys([*owner._executions, *effects.touched]))
        reading = asyncio.gather(loaded(store, "load", wanted), return_exceptions=True)
        lost = await settled(owner, effects)
        (found,) = await reading
        ahead[store] = {} if isinstance(found, BaseException) else {each.record.execution_id: each for each in found}
        return lost

    async def read(store: SimulatedStore, verb: str, *arguments: Any) -> Any:
        if verb != "load":
            return await loaded(store, verb, *arguments)
        known = ahead.get(store, {})
        there = [known.pop(each) for each in arguments[0] if each in known]
        missing = [each for each in arguments[0] if each not in {each.record.execution_id for each in there}]
        return [*there, *(await loaded(store, verb, missing))]

    patch.setattr(Owner, "_settle", settle)
    patch.setattr(SimulatedStore, "_read", read)


def no_attempt_check(patch: pytest.MonkeyPatch) -> None:
    def is_current(execution: Execution, node: int, attempt: int) -> bool:
        in_flight = execution.node_states[node] in (NodeState.QUEUED, NodeState.RUNNING)
        return execution.state is WorkflowState.RUNNING and in_flight

    patch.setattr(machine, "is_current", is_current)


def no_version_fence(patch: pytest.MonkeyPatch) -> None:
    fenced = MemoryStore.commit

    async def commit(store: MemoryStore, batches: Sequence[CommitBatch], lease: float) -> Sequence[int | None]:
        return await fenced(store, [each._replace(version=store.versions[each.partition]) for each in batches], lease)

    patch.setattr(MemoryStore, "commit", commit)


def no_sweep(patch: pytest.MonkeyPatch) -> None:
    async def find_work(disk: Disk, partitions: Collection[int], now: int, limit: int) -> Work:
        return Work((), (), None)

    patch.setattr(Disk, "find_work", find_work)


def no_look_at_what_runs(patch: pytest.MonkeyPatch) -> None:
    def running(pool: WorkerPool, execution_id: str) -> list[tuple[int, int]]:
        return []

    patch.setattr(WorkerPool, "running", running)


def timers_not_restored(patch: pytest.MonkeyPatch) -> None:
    """A retry's time is known to the process that set it, and to nobody after it."""
    resume = machine.resume

    def hasty(execution: Execution, running: Iterable[tuple[int, int]], now: int, effects: Effects) -> None:
        timers = list(effects.timers)
        resume(execution, running, now, effects)
        effects.timers = timers

    patch.setattr("workflow_engine.runtime.orchestrator.owner.resume", hasty)


def commands_never_consumed(patch: pytest.MonkeyPatch) -> None:
    def apply_cancel(execution: Execution, command_id: int, now: int, effects: Effects) -> None:
        return None

    patch.setattr("workflow_engine.runtime.orchestrator.owner.apply_cancel", apply_cancel)


def trigger_whatever_the_state(patch: pytest.MonkeyPatch) -> None:
    conditional = MemoryStore.trigger

    async def trigger(
        store: MemoryStore, execution_id: str, input_text: bytes, started_at: int, claim: IdempotencyClaim | None = None
    ) -> str | None:
        record = store.executions[execution_id]
        store.executions[execution_id] = record._replace(state=WorkflowState.PENDING)
        return await conditional(store, execution_id, input_text, started_at, claim)

    patch.setattr(MemoryStore, "trigger", trigger)


def requeue_whatever_became_of_it(patch: pytest.MonkeyPatch) -> None:
    conditional = MemoryStore.requeue

    async def requeue(
        store: MemoryStore, execution_id: str, new: NewExecution, claim: IdempotencyClaim | None = None
    ) -> str | None:
        store.executions[execution_id] = store.executions[execution_id]._replace(resolution=None)
        return await conditional(store, execution_id, new, claim)

    patch.setattr(MemoryStore, "requeue", requeue)


def answer_before_commit(patch: pytest.MonkeyPatch) -> None:
    written = SimulatedStore._write

    async def write(store: SimulatedStore, verb: str, *arguments: Any) -> Any:
        if verb != "create_execution":
            return await written(store, verb, *arguments)
        asyncio.get_running_loop().create_task(_silently(written(store, verb, *arguments)))
        definition: NewDefinition | str = arguments[0]
        return arguments[1].execution_id, definition if isinstance(definition, str) else definition.definition_id

    patch.setattr(SimulatedStore, "_write", write)


async def _silently(write: Any) -> None:
    await asyncio.gather(write, return_exceptions=True)


def claims_not_kept(patch: pytest.MonkeyPatch) -> None:
    def keep(store: MemoryStore, claim: IdempotencyClaim | None, execution_id: str, definition_id: str) -> None:
        return None

    patch.setattr(MemoryStore, "_keep", keep)


def no_start_deadline(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "may_start", lambda leases, partition: partition in leases.versions)


def take_whoever_owns_it(patch: pytest.MonkeyPatch) -> None:
    conditional = MemoryStore.take_partition

    async def take(store: MemoryStore, partition: int, owner: str, version: int, lease: float) -> int:
        store.leases[partition] = (NOBODY, 0.0)
        return await conditional(store, partition, owner, version, lease)

    def greedy(look: Look, replica: str, owned: Collection[int], interval_seconds: float) -> Plan:
        free = [each._replace(owner=NOBODY) for each in look.partitions if each.owner != replica]
        return plan(look._replace(partitions=free or look.partitions), replica, owned, interval_seconds)

    patch.setattr(MemoryStore, "take_partition", take)
    patch.setattr("workflow_engine.runtime.orchestrator.leases.plan", greedy)


def never_taken_over(patch: pytest.MonkeyPatch) -> None:
    def timid(look: Look, replica: str, owned: Collection[int], interval_seconds: float) -> Plan:
        kept = [each._replace(expires_in_seconds=max(1.0, each.expires_in_seconds)) for each in look.partitions]
        return plan(look._replace(partitions=kept), replica, owned, interval_seconds)

    patch.setattr("workflow_engine.runtime.orchestrator.leases.plan", timid)


def permission_for_everything(patch: pytest.MonkeyPatch) -> None:
    permit = machine.permit

    def generous(
        execution_id: str, graph: Graph, inputs: bytes, rows: Iterable[AttemptRow], wanted: Iterable[tuple[int, int]]
    ) -> tuple[Execution, Sequence[tuple[int, int]]]:
        known = list(rows)
        execution, _ = permit(execution_id, graph, inputs, known, ())
        for node, attempt in wanted:
            execution.node_states[node], execution.attempts[node] = NodeState.QUEUED, attempt
        return execution, list(wanted)

    patch.setattr("workflow_engine.runtime.worker.taker.permit", generous)


def permission_whatever_the_state(patch: pytest.MonkeyPatch) -> None:
    permit = Taker._permit

    def generous(taker: Taker, loaded: LoadedExecution, *arguments: Any) -> Any:
        running = loaded.record._replace(state=WorkflowState.RUNNING)
        return permit(taker, loaded._replace(record=running), *arguments)

    patch.setattr(Taker, "_permit", generous)


def permission_for_ever(patch: pytest.MonkeyPatch) -> None:
    may_start = Runtime._may_start

    def ageless(runtime: Runtime, execution: Execution) -> bool:
        if execution.permitted_until is not None:
            execution.permitted_until = math.inf
        return may_start(runtime, execution)

    patch.setattr(Runtime, "_may_start", ageless)


def nothing_is_ever_lost(patch: pytest.MonkeyPatch) -> None:
    def keep(deliveries: Deliveries, key: DeliveryKey) -> bool:
        deliveries._elsewhere[key].exists_until = float("inf")
        return False

    patch.setattr(Deliveries, "_lose", keep)


def crashes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    def suspect(execution: Execution, node: int, attempt: int, effects: Effects) -> None:
        machine.hand_back(execution, node, attempt)

    patch.setattr("workflow_engine.runtime.orchestrator.owner.suspect", suspect)
    patch.setattr("workflow_engine.runtime.orchestrator.recovery.suspect", suspect)


def inbox_not_read_again(patch: pytest.MonkeyPatch) -> None:
    async def read(transport: SharedTransport) -> None:
        await asyncio.get_running_loop().create_future()

    patch.setattr(SharedTransport, "_read", read)


def no_look_at_a_taking(patch: pytest.MonkeyPatch) -> None:
    async def took(deliveries: Deliveries, partitions: Collection[int]) -> None:
        return None

    patch.setattr(Deliveries, "took", took)


def what_was_trimmed_is_waited_for(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("workflow_engine.runtime.transport.memory._Partition.forget_trimmed", lambda partition: None)


def handed_over_while_it_runs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "drained", lambda leases, busy: list(leases._draining))


def heartbeats_name_nothing(patch: pytest.MonkeyPatch) -> None:
    describe = Runtime.describe
    patch.setattr(Runtime, "describe", lambda runtime: describe(runtime)._replace(attempts=[]))


def a_taking_says_nothing_of_what_was_there(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leases, "note_running", lambda leases, execution_ids, partition_of: None)


def crashes_told_by_clocks(patch: pytest.MonkeyPatch) -> None:
    """Whether an execution was there when its partition was taken is asked of two wall clocks."""
    note, adopt = Leases._note_taking, Owner._adopt
    taken_at: dict[tuple[Leases, int], int] = {}
    started_at: dict[str, int] = {}

    def note_taking(leases: Leases, record: PartitionRecord) -> None:
        note(leases, record)
        if leases._to_list.get(record.partition):
            taken_at[leases, record.partition] = leases._clock.now()

    def adopt_noted(owner: Owner, loaded: LoadedExecution, *arguments: Any) -> None:
        started_at[loaded.record.execution_id] = loaded.record.started_at or 0
        adopt(owner, loaded, *arguments)

    def is_left(leases: Leases, partition: int, execution_id: str) -> bool:
        return started_at[execution_id] < taken_at.get((leases, partition), 0)

    patch.setattr(Leases, "_note_taking", note_taking)
    patch.setattr(Owner, "_adopt", adopt_noted)
    patch.setattr(Leases, "is_left_by_a_crash", is_left)


def a_dead_owner_knows_better_what_runs_here(patch: pytest.MonkeyPatch) -> None:
    find = Deliveries._find

    def believe(deliveries: Deliveries, *arguments: Any) -> None:
        pool = deliveries._pool
        deliveries._pool = SimpleNamespace(running=lambda execution_id: [])  # type: ignore[assignment]
        find(deliveries, *arguments)
        deliveries._pool = pool

    patch.setattr(Deliveries, "_find", believe)


def what_runs_may_be_run_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(WorkerPool, "_runs", lambda pool, delivery: False)


class Case(NamedTuple):
    """A mutation, where it is tried, and the seed from which on: near the first that shows it, where that is late.

    Without faults it is enough that something is run twice.
    """

    mutate: Mutate
    topology: str
    first_seed: int = 0
    with_faults: bool = True


CASES = (
    Case(claims_not_kept, "embedded"),
    Case(answer_before_commit, "embedded"),
    Case(dispatch_before_commit, "embedded"),
    Case(loading_beside_commits, "embedded"),
    Case(no_attempt_check, "embedded"),
    Case(no_version_fence, "embedded"),
    Case(no_sweep, "embedded"),
    Case(no_look_at_what_runs, "embedded"),
    Case(timers_not_restored, "embedded"),
    Case(commands_never_consumed, "embedded"),
    Case(trigger_whatever_the_state, "embedded"),
    Case(requeue_whatever_became_of_it, "embedded"),
    Case(crashes_are_forgotten, "embedded"),
    Case(a_taking_says_nothing_of_what_was_there, "embedded"),
    Case(crashes_told_by_clocks, "embedded"),
    Case(no_start_deadline, "postgres"),
    Case(no_version_fence, "postgres"),
    Case(take_whoever_owns_it, "postgres"),
    Case(never_taken_over, "postgres"),
    Case(handed_over_while_it_runs, "postgres", with_faults=False),
    Case(permission_for_everything, "roles", first_seed=40),
    Case(permission_whatever_the_state, "roles", first_seed=68),
    Case(permission_for_ever, "roles", first_seed=56),
    Case(what_was_trimmed_is_waited_for, "roles", first_seed=18),
    Case(heartbeats_name_nothing, "roles", with_faults=False),
    Case(nothing_is_ever_lost, "replicas"),
    Case(a_dead_owner_knows_better_what_runs_here, "replicas", first_seed=545),
    Case(crashes_are_forgotten, "replicas"),
    Case(inbox_not_read_again, "replicas"),
    Case(what_runs_may_be_run_again, "limits", first_seed=412),
    Case(no_look_at_a_taking, "replicas", with_faults=False),
)
