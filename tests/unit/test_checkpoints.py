"""What replicas write to the store of themselves, and what is read of it; and of themselves in their heartbeats."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import pytest

from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.deliveries import DeliveryKey, Heartbeat
from workflow_engine.runtime.errors import StoreUnavailable
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.transport.checkpoints import Checkpoints
from workflow_engine.runtime.transport.heartbeats import Heartbeats
from workflow_engine.runtime.transport.memory import MemoryBroker

NOW = 1_790_000_000_000


class OwnedClock(SystemClock):
    """Stands still."""

    def now(self) -> int:
        return NOW


class Store(MemoryStore):
    """In memory, on a clock of the test's; `away` as many writes as a test says."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.away = 0
        self.written = asyncio.Event()
        super().__init__(4, lambda: self.seconds, shared=True)

    async def checkpoint(self, replica: str, text: str) -> None:
        if self.away:
            self.away -= 1
            raise StoreUnavailable("the database is away")
        await super().checkpoint(replica, text)
        self.written.set()


def heartbeat(replica: str, **values: Any) -> Heartbeat:
    said = Heartbeat(replica, ("worker",), ("work",), 10, 9, 0, "host", "1", NOW, [DeliveryKey("e1", 0, 1)])
    return said._replace(**values)


def checkpoints(store: Store, replica: str, interval_seconds: float = 10.0, **values: Any) -> Checkpoints:
    said = heartbeat(replica, **values)
    return Checkpoints(store=store, clock=OwnedClock(), describe=lambda: said, interval_seconds=interval_seconds)


async def write(store: Store, replica: str, **values: Any) -> None:
    """One checkpoint of a replica."""
    running = asyncio.create_task(checkpoints(store, replica, **values).run())
    await store.written.wait()
    store.written.clear()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.fixture
def store() -> Store:
    return Store()


async def test_the_others_as_they_were_and_this_one_as_it_is(store: Store) -> None:
    await write(store, "b", free_slots=3)
    await write(store, "a", free_slots=3)
    store.seconds = 7.5
    found = await checkpoints(store, "a", free_slots=8).replicas()
    assert found.now == NOW
    assert {each.heartbeat.replica: (each.at, each.heartbeat.free_slots) for each in found.seen} == {
        "a": (NOW, 8),
        "b": (NOW - 7_500, 3),
    }
    [other] = [each.heartbeat for each in found.seen if each.heartbeat.replica == "b"]
    assert other == heartbeat("b", free_slots=3, attempts=(DeliveryKey("e1", 0, 1),))


@pytest.mark.parametrize(
    ("interval_seconds", "age_seconds", "is_known"),
    [(10.0, 599.0, True), (10.0, 600.0, False), (1000.0, 2_999.0, True), (1000.0, 3_000.0, False)],
)
async def test_what_is_long_gone_is_not_told(
    store: Store, interval_seconds: float, age_seconds: float, is_known: bool
) -> None:
    await write(store, "b")
    store.seconds = age_seconds
    found = await checkpoints(store, "a", interval_seconds).replicas()
    assert ("b" in [each.heartbeat.replica for each in found.seen]) == is_known


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"v": 2}', json.dumps({"v": 1, **heartbeat("b", slots=-1)._asdict()})]
)
async def test_what_cannot_be_read_counts_for_nothing(store: Store, text: str) -> None:
    await store.checkpoint("b", text)
    found = await checkpoints(store, "a").replicas()
    assert [each.heartbeat.replica for each in found.seen] == ["a"]


async def test_a_store_that_is_away_is_said_once_and_written_to_when_it_is_back(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.away = 3
    with caplog.at_level(logging.WARNING):
        await write(store, "a", interval_seconds=0.0)
    assert [record.message for record in caplog.records] == [
        "what this process does is not written down for now: the database is away"
    ]
    assert len(await store.list_checkpoints()) == 1


async def test_nothing_is_said_of_who_has_left(store: Store) -> None:
    await write(store, "a")
    await checkpoints(store, "a").leave()
    assert await store.list_checkpoints() == []


async def test_heartbeats_of_the_others_and_this_one_as_it_is() -> None:
    broker = MemoryBroker(lambda: NOW)
    said = [heartbeat("a", free_slots=3)]
    heartbeats = Heartbeats(broker=broker, clock=OwnedClock(), describe=lambda: said[-1], interval_seconds=10.0)
    await broker.beat(heartbeat("b", free_slots=3))
    await heartbeats.beat()
    said.append(heartbeat("a", free_slots=8))
    found = await heartbeats.replicas(10.0)
    assert {each.heartbeat.replica: each.heartbeat.free_slots for each in found.seen} == {"a": 8, "b": 3}
