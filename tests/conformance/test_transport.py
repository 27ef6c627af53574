"""What every Transport does: nothing durable, but nothing handed out twice and no change missed.

No test waits for time to pass: a wait that should end ends by a signal, and one that should not is
looked at after the event loop has had some turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from workflow_engine.runtime.core.machine import AttemptError, Outcome
from workflow_engine.runtime.ports import Follower, Transport

LONG = 300.0
"""Longer than any test may take: what waits that long was not woken."""
SHORT = 0.001

ARRIVALS: dict[str, Callable[[Transport], None]] = {
    "wake": lambda transport: transport.wake("e1"),
    "hand_in": lambda transport: transport.hand_in(outcome("e1")),
    "nudge": lambda transport: transport.nudge(),
}


def outcome(execution_id: str, node: int = 0) -> Outcome:
    return Outcome(execution_id, node, 1, b"null", None, 1_000, 1_001)


async def some_turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


@asynccontextmanager
async def begun(waiting: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A wait that has begun and has nothing to wait for yet; cancelled at the end if it still waits."""
    task = asyncio.create_task(waiting)
    await some_turns()
    assert not task.done()
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


# --- the owner's inbox ------------------------------------------------------------------------------


def test_an_execution_woken_often_is_handed_out_once(transport: Transport) -> None:
    for execution_id in ["e2", "e1", "e2", "e2", "e1"]:
        transport.wake(execution_id)
    assert list(transport.take().wake_ups) == ["e2", "e1"]


def test_an_execution_may_be_woken_again(transport: Transport) -> None:
    transport.wake("e1")
    transport.take()
    transport.wake("e1")
    assert list(transport.take().wake_ups) == ["e1"]


def test_outcomes_are_handed_out_in_the_order_they_came_in(transport: Transport) -> None:
    outcomes = [outcome(f"e{number % 7}", number) for number in range(1_000)]
    for each in outcomes:
        transport.hand_in(each)
    assert list(transport.take().outcomes) == outcomes


def test_outcomes_are_not_deduplicated(transport: Transport) -> None:
    """Which of two outcomes counts is for the state machine to say, not for the transport."""
    failed = outcome("e1")._replace(output=None, error=AttemptError("x", "y", retryable=True))
    for each in (outcome("e1"), outcome("e1"), failed):
        transport.hand_in(each)
    assert list(transport.take().outcomes) == [outcome("e1"), outcome("e1"), failed]


def test_everything_is_handed_out_once(transport: Transport) -> None:
    taken_wake_ups: list[str] = []
    taken_outcomes: list[Outcome] = []
    for number in range(100):
        transport.wake(f"e{number}")
        transport.hand_in(outcome(f"e{number}", number))
        if number % 3 == 0:
            inbox = transport.take()
            taken_wake_ups += inbox.wake_ups
            taken_outcomes += inbox.outcomes
    last = transport.take()
    assert [*taken_wake_ups, *last.wake_ups] == [f"e{number}" for number in range(100)]
    assert [*taken_outcomes, *last.outcomes] == [outcome(f"e{number}", number) for number in range(100)]
    empty = transport.take()
    assert (list(empty.wake_ups), list(empty.outcomes)) == ([], [])


def test_what_was_taken_does_not_grow(transport: Transport) -> None:
    transport.wake("e1")
    transport.hand_in(outcome("e1"))
    inbox = transport.take()
    transport.wake("e2")
    transport.hand_in(outcome("e2"))
    assert (list(inbox.wake_ups), list(inbox.outcomes)) == (["e1"], [outcome("e1")])


@pytest.mark.parametrize("arrival", ARRIVALS.values(), ids=ARRIVALS)
async def test_wait_returns_at_once_when_something_is_there(
    transport: Transport, arrival: Callable[[Transport], None]
) -> None:
    arrival(transport)
    await asyncio.wait_for(transport.wait(LONG), LONG / 10)
    inbox = transport.take()
    assert len(inbox.wake_ups) + len(inbox.outcomes) == (0 if arrival is ARRIVALS["nudge"] else 1)
    async with begun(transport.wait(LONG)) as waiting:
        assert not waiting.done(), "what was taken must not end the next wait"


@pytest.mark.parametrize("arrival", ARRIVALS.values(), ids=ARRIVALS)
async def test_what_comes_in_ends_the_wait(transport: Transport, arrival: Callable[[Transport], None]) -> None:
    for _ in range(3):
        async with begun(transport.wait(LONG)) as waiting:
            arrival(transport)
            await asyncio.wait_for(waiting, LONG / 10)
        inbox = transport.take()
        assert len(inbox.wake_ups) + len(inbox.outcomes) == (0 if arrival is ARRIVALS["nudge"] else 1)


async def test_what_comes_in_together_ends_one_wait_and_is_all_there(transport: Transport) -> None:
    async with begun(transport.wait(LONG)) as waiting:
        for arrival in ARRIVALS.values():
            arrival(transport)
            arrival(transport)
        await asyncio.wait_for(waiting, LONG / 10)
    inbox = transport.take()
    assert (list(inbox.wake_ups), list(inbox.outcomes)) == (["e1"], [outcome("e1")] * 2)


@pytest.mark.parametrize("seconds", [SHORT, 0, -1])
async def test_wait_ends_when_its_time_has_passed(transport: Transport, seconds: float) -> None:
    await asyncio.wait_for(transport.wait(seconds), LONG)
    inbox = transport.take()
    assert (list(inbox.wake_ups), list(inbox.outcomes)) == ([], [])


async def test_a_wait_that_ended_otherwise_loses_nothing(transport: Transport) -> None:
    """Its time passed, or it was cancelled: what comes in afterwards ends the next wait."""
    await transport.wait(SHORT)
    transport.wake("e1")
    await asyncio.wait_for(transport.wait(LONG), LONG / 10)
    transport.take()
    async with begun(transport.wait(LONG)) as waiting:
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    transport.hand_in(outcome("e2"))
    await asyncio.wait_for(transport.wait(LONG), LONG / 10)
    assert list(transport.take().outcomes) == [outcome("e2")]


# --- followers --------------------------------------------------------------------------------------


async def test_a_follower_hears_of_a_change(transport: Transport) -> None:
    with transport.follow("e1") as follower:
        for _ in range(3):
            async with begun(follower.changed(LONG)) as changed:
                transport.publish(["e1"])
                assert await asyncio.wait_for(changed, LONG / 10) is True


async def test_every_follower_hears_of_its_execution_only(transport: Transport) -> None:
    with transport.follow("e1") as one, transport.follow("e1") as two, transport.follow("e2") as other:
        async with begun(one.changed(LONG)) as first, begun(two.changed(LONG)) as second:
            transport.publish(["e3", "e1"])
            assert [await asyncio.wait_for(each, LONG / 10) for each in (first, second)] == [True, True]
        assert await other.changed(0) is False
        transport.publish(["e2", "e1"])
        assert [await each.changed(0) for each in (one, two, other)] == [True, True, True]


async def test_nothing_is_missed_between_two_looks(transport: Transport) -> None:
    """Follow, read, then wait: whatever changed after the read is noticed, however often it changed."""
    with transport.follow("e1") as follower:
        for _ in range(5):
            transport.publish(["e1"])
        assert await follower.changed(LONG) is True
        assert await follower.changed(0) is False, "one look covers everything that changed before it"
        transport.publish(["e1"])
        assert await follower.changed(LONG) is True


@pytest.mark.parametrize("turns", range(8))
async def test_a_change_that_comes_as_the_time_passes_is_not_missed(transport: Transport, turns: int) -> None:
    """The time is up and the change arrives within the same few turns of the event loop, in each order."""
    with transport.follow("e1") as follower:
        looking = asyncio.create_task(_changed(follower, 0))
        for _ in range(turns):
            await asyncio.sleep(0)
        transport.publish(["e1"])
        assert await looking or await follower.changed(0)


@pytest.mark.parametrize("turns", range(8))
async def test_a_change_that_comes_as_the_look_is_cancelled_is_not_missed(transport: Transport, turns: int) -> None:
    with transport.follow("e1") as follower:
        async with begun(follower.changed(LONG)) as looking:
            looking.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
            transport.publish(["e1"])
        assert (not looking.cancelled() and looking.result()) or await follower.changed(0)


async def _changed(follower: Follower, seconds: float) -> bool:
    return await follower.changed(seconds)


@pytest.mark.parametrize("seconds", [SHORT, 0])
async def test_a_look_ends_when_its_time_has_passed(transport: Transport, seconds: float) -> None:
    with transport.follow("e1") as follower:
        transport.publish(["e2"])
        assert await asyncio.wait_for(follower.changed(seconds), LONG) is False
        assert await asyncio.wait_for(follower.ended(seconds), LONG) is False


async def test_what_changed_before_one_followed_is_not_heard(transport: Transport) -> None:
    transport.publish(["e1"], ended=["e1"])
    with transport.follow("e1") as follower:
        assert await follower.changed(0) is False
        assert await follower.ended(0) is False


async def test_the_end_is_heard_as_a_change_and_stays(transport: Transport) -> None:
    with transport.follow("e1") as one, transport.follow("e1") as two, transport.follow("e2") as other:
        async with begun(one.ended(LONG)) as ended, begun(two.changed(LONG)) as changed:
            transport.publish(["e2"], ended=["e1"])
            assert [await asyncio.wait_for(each, LONG / 10) for each in (ended, changed)] == [True, True]
        assert [await one.ended(0), await one.ended(0), await two.ended(0)] == [True, True, True]
        assert [await other.changed(0), await other.ended(0)] == [True, False]


async def test_a_change_is_not_an_end(transport: Transport) -> None:
    with transport.follow("e1") as follower:
        async with begun(follower.ended(LONG)) as ended:
            for _ in range(3):
                transport.publish(["e1"])
                await some_turns()
            assert not ended.done()
            transport.publish([], ended=["e1"])
            assert await asyncio.wait_for(ended, LONG / 10) is True


@pytest.mark.parametrize("error", [None, ValueError("left"), asyncio.CancelledError()], ids=repr)
async def test_who_has_left_disturbs_nobody(transport: Transport, error: BaseException | None) -> None:
    with transport.follow("e1") as stays:
        with suppress(ValueError, asyncio.CancelledError), transport.follow("e1") as leaves:
            transport.publish(["e1"])
            assert [await leaves.changed(0), await stays.changed(0)] == [True, True]
            if error is not None:
                raise error
        transport.publish(["e1"])
        assert [await stays.changed(0), await leaves.changed(0)] == [True, False]


def test_nothing_is_remembered_of_who_has_left(transport: Transport, transport_kind: Any) -> None:
    """Each request that waits for results follows: what one leaves behind would grow for ever."""
    for number in range(50):
        with transport.follow(f"e{number}"), transport.follow("e0"):
            assert transport_kind.followed(transport) in (1, 2)
    transport.publish([f"e{number}" for number in range(50)])
    assert transport_kind.followed(transport) == 0


def test_a_change_that_nobody_follows_goes_nowhere(transport: Transport) -> None:
    transport.publish(["e1", "e2"], ended=["e3"])
    transport.publish([])
    inbox = transport.take()
    assert (list(inbox.wake_ups), list(inbox.outcomes)) == ([], [])
