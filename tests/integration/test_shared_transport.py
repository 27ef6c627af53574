"""Two replicas' transports over one broker: what is for others reaches them, whatever the broker does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from workflow_engine.runtime.broker import HandIn
from workflow_engine.runtime.core.deliveries import DeliveryKey, Task
from workflow_engine.runtime.core.machine import Outcome
from workflow_engine.runtime.errors import BrokerUnavailable
from workflow_engine.runtime.transport.memory import MemoryBroker
from workflow_engine.runtime.transport.shared import SharedTransport

LONG = 60.0


class Broker(MemoryBroker):
    """In memory; `away` while a test says so."""

    def __init__(self) -> None:
        super().__init__(lambda: 1_700_000_000_000)
        self.away = False
        self.refused = asyncio.Event()
        self.fault: Exception | None = None
        """What the next post fails with."""

    async def post(self, partition: int, wake_ups: Collection[str], outcomes: Sequence[HandIn]) -> None:
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        if self.away:
            self.refused.set()
            raise BrokerUnavailable("away")
        await super().post(partition, wake_ups, outcomes)

    async def publish(self, changed: Collection[str], ended: Collection[str], owners: Collection[str] = ()) -> None:
        if self.away:
            raise BrokerUnavailable("away")
        await super().publish(changed, ended, owners)


def partition_of(execution_id: str) -> int:
    return int(execution_id[1:]) % 2


def outcome(execution_id: str, node: int = 0) -> Outcome:
    return Outcome(execution_id, node, 1, b'{"n":1}', None, 1_000, 1_001)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@asynccontextmanager
async def running(broker: MemoryBroker) -> AsyncIterator[SharedTransport]:
    transport = SharedTransport(broker, partition_of)
    task = asyncio.create_task(transport.run())
    try:
        yield transport
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def two(broker: Broker) -> AsyncIterator[tuple[SharedTransport, SharedTransport]]:
    """The first owns the executions with even numbers, the second those with odd ones."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(running(broker)) for _ in range(2)]
        first.serve({0})
        second.serve({1})
        yield first, second


async def next_outcomes(transport: SharedTransport, count: int = 1) -> list[Outcome]:
    found: list[Outcome] = []
    while len(found) < count:
        await asyncio.wait_for(transport.wait(LONG), LONG)
        found += transport.take().outcomes
    return found


async def test_a_wake_up_reaches_the_owner(two: tuple[SharedTransport, SharedTransport]) -> None:
    first, second = two
    first.wake("e3")
    await asyncio.wait_for(second.wait(LONG), LONG)
    assert list(second.take().wake_ups) == ["e3"]
    assert list(first.take().wake_ups) == []


async def test_what_is_its_own_needs_no_broker(broker: Broker, two: tuple[SharedTransport, SharedTransport]) -> None:
    broker.away = True
    first, _ = two
    first.wake("e2")
    first.hand_in(outcome("e2"))
    inbox = first.take()
    assert (list(inbox.wake_ups), list(inbox.outcomes)) == (["e2"], [outcome("e2")])
    assert await first.flush(LONG), "nothing was to be sent"


async def test_an_outcome_reaches_the_owner_and_is_kept_until_its_commit(
    broker: Broker, two: tuple[SharedTransport, SharedTransport]
) -> None:
    first, second = two
    first.hand_in(outcome("e3"))
    [received] = await next_outcomes(second)
    assert received._replace(entry_id=None) == outcome("e3")
    assert (await broker.look(1)).handed_in == {DeliveryKey("e3", 0, 1)}
    second.settle([received])
    assert await second.flush(LONG)
    assert (await broker.look(1)).handed_in == set()


async def test_the_next_owner_gets_what_the_last_one_has_not_committed(
    two: tuple[SharedTransport, SharedTransport],
) -> None:
    first, second = two
    first.hand_in(outcome("e3"))
    [received] = await next_outcomes(second)
    second.serve(())
    second.pass_on([received])
    first.serve({0, 1})
    [again] = await next_outcomes(first)
    assert again == received


async def test_what_ended_here_of_a_partition_that_is_anothers_now_is_passed_on(
    two: tuple[SharedTransport, SharedTransport],
) -> None:
    first, second = two
    first.pass_on([outcome("e3")])
    [received] = await next_outcomes(second)
    assert received._replace(entry_id=None) == outcome("e3")


async def test_outcomes_wait_for_a_broker_that_is_away(
    broker: Broker, two: tuple[SharedTransport, SharedTransport]
) -> None:
    first, second = two
    broker.away = True
    first.hand_in(outcome("e3"))
    first.hand_in(outcome("e5"))
    await asyncio.wait_for(broker.refused.wait(), LONG)
    assert first.in_hand == [DeliveryKey("e3", 0, 1), DeliveryKey("e5", 0, 1)], "what is in hand is named in heartbeats"
    broker.away = False
    received = await next_outcomes(second, 2)
    assert [each.execution_id for each in received] == ["e3", "e5"]
    assert await first.flush(LONG)
    assert first.in_hand == []


async def test_a_fault_that_nobody_expects_loses_no_outcome(broker: Broker) -> None:
    broker.fault = AttributeError("a fault of a client library")
    async with running(broker) as owner:
        owner.serve({1})
        worker = SharedTransport(broker, partition_of)
        worker.expect(DeliveryKey("e3", 0, 1), "")
        worker.hand_in(outcome("e3"))
        with pytest.RaisesGroup(AttributeError):
            await worker.run()
        assert worker.in_hand == [DeliveryKey("e3", 0, 1)]
        again = asyncio.create_task(worker.run())
        [received] = await next_outcomes(owner)
        assert received._replace(entry_id=None) == outcome("e3")
        assert await worker.flush(LONG)
        assert worker.in_hand == []
        again.cancel()
        with suppress(asyncio.CancelledError):
            await again


async def test_a_taken_delivery_is_handed_in_under_its_entry(
    broker: Broker, two: tuple[SharedTransport, SharedTransport]
) -> None:
    first, second = two
    task = Task(DeliveryKey("e3", 0, 1), "work", "d1")
    await broker.spill(1, [task])
    [taken] = await broker.take(1, ["work"], 1, "first")
    first.expect(task.key, taken.entry_id)
    assert first.in_hand == [task.key]
    first.hand_in(outcome("e3"))
    await next_outcomes(second)
    assert (await broker.look(1)).deliveries == {}
    assert first.in_hand == []


async def test_an_abandoned_delivery_is_in_nobodys_hand(broker: Broker) -> None:
    transport = SharedTransport(broker, partition_of)
    key = DeliveryKey("e3", 0, 1)
    transport.expect(key, "7")
    assert transport.is_expected(key)
    assert transport.abandon(key) == "7"
    assert transport.abandon(key) is None
    assert transport.in_hand == []


async def test_followers_hear_what_others_commit(two: tuple[SharedTransport, SharedTransport]) -> None:
    first, second = two
    with first.follow("e3") as follower:
        second.publish(["e3"], ["e3"])
        assert await follower.ended(LONG)


async def test_who_comes_to_own_something_is_told_of_even_by_one_that_was_alone(
    two: tuple[SharedTransport, SharedTransport],
) -> None:
    first, second = two
    heard: asyncio.Queue[Collection[str]] = asyncio.Queue()
    first.on_owners = heard.put_nowait
    second.alone = True
    second.tell_of_owner("r2")
    assert list(await heard.get()) == ["r2"]


async def test_news_that_cannot_be_told_hold_up_nobody(broker: Broker) -> None:
    async with running(broker) as transport:
        broker.away = True
        transport.tell_of_owner("a")
        transport.publish(["e1"], ())
        assert await transport.flush(LONG)


async def test_a_replica_that_is_alone_tells_nobody(broker: Broker) -> None:
    told = []
    broker = Broker()
    async with running(broker) as transport:
        transport.alone = True
        transport.publish(["e1"], ["e1"])
        assert await transport.flush(LONG)
        async for news in broker.listen():
            told.append(news)
            break
    assert [len(news.changed) for news in told] == [0]


async def test_what_its_owner_has_not_taken_yet_is_in_hand(two: tuple[SharedTransport, SharedTransport]) -> None:
    """Whoever owns it next must hear that it has ended, and that nobody needs to run it again."""
    first, _ = two
    first.hand_in(outcome("e2"))
    assert first.in_hand == [DeliveryKey("e2", 0, 1)]
    assert first.take().outcomes == [outcome("e2")]
    assert first.in_hand == []
