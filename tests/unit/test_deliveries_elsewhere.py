"""An owner and what other replicas have of its executions: what is presumed, and what counts as lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

import pytest

from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.deliveries import DeliveryKey, PartitionSight, Replicas, Task
from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.machine import Execution, fold
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.errors import BrokerUnavailable
from workflow_engine.runtime.orchestrator.deliveries import Deliveries
from workflow_engine.runtime.transport.memory import MemoryBroker

HEARTBEAT_TIMEOUT_SECONDS = 0.05
STALE_SECONDS = 3600.0
LONG_SECONDS = 60.0
GRAPH = compile_graph(
    {"name": "x", "dag": {"nodes": [{"id": "a", "handler": "work"}]}}, NodeDefaults(RetryPolicy(), lambda _: 60.0)
)
KEY = DeliveryKey("e1", 0, 1)
HOUR = 3_600_000


class Broker(MemoryBroker):
    """In memory; away while a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000
        super().__init__(lambda: self.now)
        self.away = False

    async def read_replicas(self) -> Replicas:
        if self.away:
            raise BrokerUnavailable("away")
        return await super().read_replicas()

    async def look(self, partition: int) -> PartitionSight:
        if self.away:
            raise BrokerUnavailable("away")
        return await super().look(partition)


class NoPool:
    """Workers that have nothing to do."""

    queued_count = 0
    started_count = 0

    def dispatch(self, ready: Iterable[tuple[Execution, int]]) -> Sequence[tuple[Execution, int]]:
        return list(ready)

    def withdraw(self, wanted: Callable[[Delivery], bool], limit: int) -> list[Delivery]:
        return []

    def dispatch_held(self) -> None:
        pass

    def running(self, execution_id: str) -> list[tuple[int, int]]:
        return []

    def running_partitions(self) -> Collection[int]:
        return ()

    def cancel(self, execution_ids: Iterable[str]) -> None:
        pass


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def lost() -> asyncio.Event:
    """Set when something was found to be lost."""
    return asyncio.Event()


@pytest.fixture
def deliveries(broker: Broker, lost: asyncio.Event) -> Deliveries:
    return Deliveries(
        pool=NoPool(),
        broker=broker,
        clock=SystemClock(),
        replica="r1",
        partition_of=lambda _: 0,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS,
        look_interval_seconds=STALE_SECONDS,
        stale_timeout_seconds=lambda _: STALE_SECONDS,
        unknown_handler_seconds=STALE_SECONDS,
        hand_in=lambda _: None,
        nudge=lost.set,
    )


def presumed(deliveries: Deliveries) -> list[tuple[int, int]]:
    """What of an execution that began long ago is not to be dispatched."""
    return deliveries.in_flight(fold("e1", GRAPH, b"{}", []), True)


async def test_what_is_presumed_while_the_broker_is_away_is_known_when_it_is_back(
    broker: Broker, deliveries: Deliveries, lost: asyncio.Event
) -> None:
    broker.now += HOUR
    broker.away = True
    await deliveries.took([0])
    assert presumed(deliveries) == [(0, 1)]
    broker.away = False
    running = asyncio.create_task(deliveries.run())
    await asyncio.wait_for(lost.wait(), LONG_SECONDS)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert deliveries.take_lost({"e1"}) == [KEY]


@pytest.mark.parametrize("was_away", [False, True])
async def test_who_could_not_speak_while_the_broker_was_away_gets_the_time_to_do_so(
    broker: Broker, deliveries: Deliveries, was_away: bool
) -> None:
    await broker.spill(0, [Task(KEY, "work", "d")])
    await broker.take(0, ["work"], 1, "r2")
    broker.now += HOUR
    if was_away:
        broker.away = True
        await deliveries.took([0])
        broker.away = False
    await deliveries.took([0])
    assert list(deliveries.take_lost({"e1"})) == ([] if was_away else [KEY])


async def test_what_a_dead_owner_has_named_is_not_lost_while_it_runs_here(
    broker: Broker, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NoPool, "running", lambda _pool, _execution_id: [(KEY.node, KEY.attempt)])
    await broker.spill(0, [Task(KEY, "work", "d")])
    await broker.take(0, ["work"], 1, "r2")
    broker.now += HOUR
    await deliveries.took([0])
    assert list(deliveries.take_lost({"e1"})) == []
