"""The limits of a handler: how many of its attempts run at once, how often they begin, and what waits for which.

A permit is the right to run one attempt. It takes a slot, of which there are `max_running` on all replicas together,
and a token of a bucket. A bucket belongs to a rate key; it is full at first, its tokens come back evenly, and it may be
closed for a while. Whoever keeps the permits (memory, or scripts in Redis) does exactly what `Permits` does here.

Times are whole microseconds on the clock of whoever keeps the permits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

MAX_LEVEL = 2**53
"""Levels are exact as floating-point numbers too: scripts in Redis have no others."""


class Limits(NamedTuple):
    """`max_running` attempts at once, and `tokens` of one rate key in `period` microseconds. 0: without that limit."""

    max_running: int
    tokens: int
    period: int


class Ask(NamedTuple):
    """A permit that is wanted, by a name that no other has; `rate_key` names the bucket, "" that of the handler."""

    permit: str
    rate_key: str


class Refusal(NamedTuple):
    """Why there is no permit, and after how many seconds it may be there without anybody saying so."""

    lacks: Literal["slot", "token"]
    seconds: float


class Answer(NamedTuple):
    """For each that was asked for: None, which is the permit, or why not. `running`: how many slots are taken now."""

    refusals: Sequence[Refusal | None]
    running: int


class Bucket(NamedTuple):
    """How full it was and when, and until when nobody gets a token.

    A token is `period` high, the full bucket `tokens * period`; it rises by `tokens` in a microsecond.
    """

    level: int
    at: int
    closed_until: int


def refill(bucket: Bucket | None, limits: Limits, now: int) -> Bucket:
    """The bucket as it is now; None is one that nobody has used for so long that it is full."""
    full = limits.tokens * limits.period
    if bucket is None:
        return Bucket(full, now, 0)
    elapsed = min(max(now - bucket.at, 0), limits.period)
    closed_until = bucket.closed_until if bucket.closed_until > now else 0
    return Bucket(min(full, bucket.level + elapsed * limits.tokens), now, closed_until)


def microseconds_to_token(bucket: Bucket, limits: Limits) -> int:
    """How long after `bucket.at` the next token is there; 0: it is."""
    lacking = max(0, limits.period - bucket.level)
    return max(-(-lacking // limits.tokens), bucket.closed_until - bucket.at)


class Permits:
    """The permits of one handler. A permit that is not renewed ends by itself: its replica has died."""

    def __init__(self) -> None:
        self._ends_at: dict[str, float] = {}
        self._buckets: dict[str, Bucket] = {}
        self.is_wanted = False
        """Whether somebody has been refused a slot since one was last free."""

    def take(self, limits: Limits, asks: Iterable[Ask], lease_milliseconds: int | None, now: int) -> Answer:
        """Give as many as there are, in the order asked for.

        `lease_milliseconds`: how long a permit holds without being renewed; None: for ever.
        """
        self._end(now)
        refusals: list[Refusal | None] = []
        for ask in asks:
            refusal = self._lacks(limits, ask, now)
            refusals.append(refusal)
            if refusal is None and limits.max_running:
                self._ends_at[ask.permit] = _end_of(lease_milliseconds, now)
            if refusal is None and limits.tokens:
                bucket = refill(self._buckets.get(ask.rate_key), limits, now)
                self._buckets[ask.rate_key] = bucket._replace(level=bucket.level - limits.period)
        self._forget_full(limits, now)
        return Answer(refusals, len(self._ends_at))

    def renew(self, permits: Iterable[str], lease_milliseconds: int | None, now: int) -> None:
        """These are in use. One that had ended, or was lost, holds again."""
        for permit in permits:
            self._ends_at[permit] = _end_of(lease_milliseconds, now)

    def release(self, permits: Iterable[str]) -> bool:
        """These are in use no more. Whether somebody waits for that."""
        released = [self._ends_at.pop(permit, None) is not None for permit in permits]
        told = any(released) and self.is_wanted
        if told:
            self.is_wanted = False
        return told

    def close(self, limits: Limits, rate_key: str, microseconds: int, now: int) -> None:
        """No token of this bucket for that long; one that is closed for longer stays so."""
        bucket = refill(self._buckets.get(rate_key), limits, now)
        self._buckets[rate_key] = bucket._replace(closed_until=max(bucket.closed_until, now + microseconds))

    def _lacks(self, limits: Limits, ask: Ask, now: int) -> Refusal | None:
        if limits.max_running and len(self._ends_at) >= limits.max_running:
            self.is_wanted = True
            return Refusal("slot", (min(self._ends_at.values()) - now) / 1_000_000)
        if limits.tokens:
            known = self._buckets.get(ask.rate_key)
            bucket = refill(known, limits, now)
            if known is not None and known.at > now:
                self._buckets[ask.rate_key] = bucket  # the clock was set back: it fills from here on
            microseconds = microseconds_to_token(bucket, limits)
            if microseconds:
                return Refusal("token", microseconds / 1_000_000)
        return None

    def _end(self, now: int) -> None:
        for permit in [permit for permit, ends_at in self._ends_at.items() if ends_at <= now]:
            del self._ends_at[permit]

    def _forget_full(self, limits: Limits, now: int) -> None:
        """A bucket that is full and open is as good as none."""
        if len(self._buckets) < 1_000:
            return
        full = limits.tokens * limits.period
        for rate_key, bucket in list(self._buckets.items()):
            filled = refill(bucket, limits, now)
            if filled.level >= full and not filled.closed_until:
                del self._buckets[rate_key]


def _end_of(lease_milliseconds: int | None, now: int) -> float:
    return math.inf if lease_milliseconds is None else now + lease_milliseconds * 1000


class WaitsForSlot(NamedTuple):
    """An attempt waits until one of the `max_running` that run ends: `running`, when somebody last looked."""

    handler: str
    running: int
    max_running: int


class WaitsForRate(NamedTuple):
    """An attempt waits for the rate limit of its key, until about `until` (epoch milliseconds). "": of the handler."""

    handler: str
    rate_key: str
    until: int


class WaitsForBroker(NamedTuple):
    """An attempt waits for Redis to answer, without which nobody knows what else runs."""

    handler: str


Wait = WaitsForSlot | WaitsForRate | WaitsForBroker
"""Why an attempt that is ready does not run."""
