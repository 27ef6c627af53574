"""The permits of handlers with limits, in memory: for one process, or for all that share a Broker in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

from ..core.permits import Answer, Ask, Limits, Permits


class MemoryPermits:
    """Keeps permits. What a verb does is said in the port."""

    def __init__(self, now_microseconds: Callable[[], int], tell: Callable[[str], None]) -> None:
        """`tell` is called with a handler of which a slot is free that somebody was refused."""
        self._now_microseconds = now_microseconds
        self._tell_of_slot = tell
        self._permits: defaultdict[str, Permits] = defaultdict(Permits)

    async def take_permits(
        self, handler: str, limits: Limits, asks: Sequence[Ask], lease_milliseconds: int | None
    ) -> Answer:
        return self._permits[handler].take(limits, asks, lease_milliseconds, self._now_microseconds())

    async def renew_permits(self, handler: str, permits: Collection[str], lease_milliseconds: int | None) -> None:
        self._permits[handler].renew(permits, lease_milliseconds, self._now_microseconds())

    async def release_permits(self, handler: str, permits: Collection[str]) -> None:
        if self._permits[handler].release(permits):
            self._tell_of_slot(handler)

    async def close_key(self, handler: str, limits: Limits, rate_key: str, seconds: float) -> None:
        self._permits[handler].close(limits, rate_key, round(seconds * 1_000_000), self._now_microseconds())
