"""Each safeguard is switched off in turn: the simulation must notice, or the safeguard is not tested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pytest
from simulator.disk import Disk, SimulatedStore
from simulator.scenario import run_seed

from workflow_engine.runtime.core import machine
from workflow_engine.runtime.core.deliveries import DeliveryKey
from workflow_engine.runtime.core.graph import Graph
from workflow_engine.runtime.core.machine import AttemptRow, Effects, Execution
from workflow_engine.runtime.core.shares import NOBODY, Look, Plan, plan
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.orchestrator.deliveries import Deliveries
from workflow_engine.runtime.orchestrator.leases import Leases
from workflow_engine.runtime.orchestrator.owner import Owner
from workflow_engine.runtime.ports import CommitBatch, IdempotencyClaim, NewDefinition, NewExecution, Work
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.transport.shared import SharedTransport
from workflow_engine.runtime.worker.pool import WorkerPool

MOST_SEEDS = 300

Mutate = Callable[[pytest.MonkeyPatch], None]


def dispatch_before_commit(patch: pytest.MonkeyPatch) -> None:
    async def settle(owner: Owner, effects: Effects) -> Collection[int]:
        owner._act(effects)
        return await owner._commit(effects)

    patch.setattr(Owner, "_settle", settle)


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


def retries_without_their_wait(patch: pytest.MonkeyPatch) -> None:
    resume = machine.resume

    def hasty(execution: Execution, running: Iterable[tuple[int, int]], now: int, effects: Effects) -> None:
        resume(execution, running, now, effects)
        effects.timers = []

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


def answer_before_commit(patch: pytest.MonkeyPatch) -> None:
    written = SimulatedStore.create_execution

    async def create(
        store: SimulatedStore,
        definition: NewDefinition | str,
        execution: NewExecution,
        claim: IdempotencyClaim | None = None,
    ) -> tuple[str, str]:
        asyncio.get_running_loop().create_task(written(store, definition, execution, claim))
        return execution.execution_id, definition if isinstance(definition, str) else definition.definition_id

    patch.setattr(SimulatedStore, "create_execution", create)


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


MUTATIONS: list[Mutate] = [
    claims_not_kept,
    answer_before_commit,
    dispatch_before_commit,
    no_attempt_check,
    no_version_fence,
    no_sweep,
    no_look_at_what_runs,
    retries_without_their_wait,
    commands_never_consumed,
    trigger_whatever_the_state,
]


# What only matters where several replicas share the partitions.
MUTATIONS_OF_REPLICAS: list[Mutate] = [
    no_start_deadline,
    no_version_fence,
    take_whoever_owns_it,
    never_taken_over,
]

# What only matters where replicas talk.
MUTATIONS_OF_FLEETS: list[Mutate] = [
    permission_for_everything,
    nothing_is_ever_lost,
    crashes_are_forgotten,
    inbox_not_read_again,
]
# What shows where nothing goes wrong: something is run twice.
MUTATIONS_WITHOUT_FAULTS: list[Mutate] = [
    no_look_at_a_taking,
]

# Where it takes many seeds to show, the search begins near the first that shows it.
FIRST_SEEDS: dict[Mutate, int] = {permission_for_everything: 145}

CASES = [
    *((mutate, "embedded", True) for mutate in [*MUTATIONS, crashes_are_forgotten]),
    *((mutate, "postgres", True) for mutate in MUTATIONS_OF_REPLICAS),
    *((mutate, "distributed", True) for mutate in MUTATIONS_OF_FLEETS),
    *((mutate, "distributed", False) for mutate in MUTATIONS_WITHOUT_FAULTS),
]


@pytest.mark.parametrize(
    ("mutate", "topology", "with_faults"), CASES, ids=lambda part: getattr(part, "__name__", str(part))
)
def test_the_simulation_notices(
    mutate: Mutate, topology: str, with_faults: bool, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    mutate(monkeypatch)

    first = FIRST_SEEDS.get(mutate, 0)
    for seed in range(first, first + MOST_SEEDS):
        world = run_seed(seed, topology=topology, with_faults=with_faults)
        noticed = list(world.violations)
        if not with_faults and max(world.starts.values()) > 1:
            noticed.append("an attempt was started twice although nothing went wrong")
        if noticed:
            record_property("seeds", seed + 1 - first)
            print(f"{mutate.__name__}: seed {seed}: {noticed[0]}")  # noqa: T201
            return
    pytest.fail(f"{MOST_SEEDS} seeds without {mutate.__name__} and no violation")
