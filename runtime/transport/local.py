"""The Transport within one process: lists that the owner swaps out, and one future that it waits on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from ..core.machine import Outcome
from ..ports import Inbox


class LocalTransport:
    """In-process queues. Bounded by what is loaded and by how many attempts run at once."""

    def __init__(self) -> None:
        self._wake_ups: dict[str, None] = {}
        self._outcomes: list[Outcome] = []
        self._nudged = False
        self._waiter: asyncio.Future[None] | None = None
        self._followers: dict[str, dict[_LocalFollower, None]] = {}

    def wake(self, execution_id: str) -> None:
        self._wake_ups[execution_id] = None
        self._arrived()

    def hand_in(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._arrived()

    def nudge(self) -> None:
        self._nudged = True
        self._arrived()

    async def wait(self, timeout_seconds: float) -> None:
        if self._outcomes or self._wake_ups or self._nudged or timeout_seconds <= 0:
            return
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_seconds, _resolve, self._waiter)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def take(self) -> Inbox:
        wake_ups, self._wake_ups = self._wake_ups, {}
        outcomes, self._outcomes = self._outcomes, []
        self._nudged = False
        return Inbox(wake_ups.keys(), outcomes)

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        pass

    def pass_on(self, outcomes: Sequence[Outcome]) -> None:
        pass

    def serve(self, partitions: Collection[int]) -> None:
        pass

    @property
    def reaches_others(self) -> bool:
        return False

    @property
    def is_cut_off(self) -> bool:
        return False

    def publish(self, changed: Collection[str], ended: Collection[str] = ()) -> None:
        if not self._followers:
            return
        for execution_id in changed:
            for follower in self._followers.get(execution_id, ()):
                follower.on_change.set()
        for execution_id in ended:
            for follower in self._followers.get(execution_id, ()):
                follower.on_change.set()
                follower.on_end.set()

    @contextmanager
    def follow(self, execution_id: str) -> Iterator[_LocalFollower]:
        follower = _LocalFollower()
        followers = self._followers.setdefault(execution_id, {})
        followers[follower] = None
        try:
            yield follower
        finally:
            del followers[follower]
            if not followers:
                self._followers.pop(execution_id, None)

    def _arrived(self) -> None:
        if self._waiter is not None:
            _resolve(self._waiter)


class _LocalFollower:
    def __init__(self) -> None:
        self.on_change = asyncio.Event()
        self.on_end = asyncio.Event()

    async def changed(self, timeout_seconds: float) -> bool:
        happened = await _happens(self.on_change, timeout_seconds)
        self.on_change.clear()
        return happened

    async def ended(self, timeout_seconds: float) -> bool:
        return await _happens(self.on_end, timeout_seconds)


async def _happens(event: asyncio.Event, timeout_seconds: float) -> bool:
    try:
        async with asyncio.timeout(timeout_seconds):
            await event.wait()
    except TimeoutError:
        # It may have come in the very turn in which the time passed.
        return event.is_set()
    return True


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
