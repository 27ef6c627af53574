"""A handler with limits: its attempts wait here for permits, in a line for each rate key, and use no slot meanwhile.

Whoever keeps the permits is asked for as many as could start now, in one call. When there are none he says after which
time to ask again, or tells when one has come back. A permit is nobody's in particular: whoever is next in its line gets
it. Those that are more than run and are about to are given back, whatever has become of the attempts.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from ...plugins.handler import Handler
from ..broker import PermitKeeper
from ..clock import Clock
from ..core.backoff import Backoff
from ..core.machine import AttemptError, Execution, is_current
from ..core.permits import Ask, Limits, Refusal, Wait, WaitsForBroker, WaitsForRate, WaitsForSlot
from ..core.queue import Delivery, FairQueue
from ..errors import BrokerUnavailable
from .attempt import AttemptInputs, resolve_config
from .failure import KeyInvalid, describe_failure
from .waiting import Tally

log = logging.getLogger(__name__)

SHORTEST_WAIT_SECONDS = 0.01
"""However soon there is a token: until then a few more come."""
MOST_AT_ONCE = 200
SORTED_AT_ONCE = 50
"""Attempts whose rate key is found out before others have their turn on the event loop."""
MOST_WITH_KEYS = 256
"""Of a handler with rate keys, so many of others' deliveries may wait here: those behind them may have other keys."""
MAX_KEY_CHARACTERS = 512
TIDY_SECONDS = 10.0
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 2.0
LAST_WORDS_SECONDS = 1.0


class Slots(Protocol):
    """What is needed of the pool."""

    waiting_of: Callable[[str], int]
    """How many attempts of a handler were let through and have not started."""
    may_start: Callable[[Execution], bool]
    """Whether something of an execution may start now."""

    def room(self) -> int:
        """How many attempts would find a free slot now."""

    def let_through(self, deliveries: Iterable[Delivery]) -> None:
        """These have permits."""

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """These may not start now, as their owner's lease or their permission has run out."""

    def refuse(self, delivery: Delivery, error: AttemptError) -> None:
        """This has failed before it began."""


def limits_of(handler: Handler) -> Limits | None:
    """What a handler declares of all replicas together; None when that is nothing."""
    rate = handler.rate_limit
    if handler.max_running is None and rate is None:
        return None
    tokens, seconds = (0, 0.0) if rate is None else (rate.count, rate.per_seconds)
    return Limits(handler.max_running or 0, tokens, round(seconds * 1_000_000))


class _Line:
    """The attempts of one rate key. `first` go before those of the queue: they were refused. `is_placed`: it is where
    lines wait, for their turn or for a time."""

    __slots__ = ("ask_at", "first", "is_placed", "queue", "rate_key")

    def __init__(self, rate_key: str) -> None:
        self.rate_key = rate_key
        self.first: deque[Delivery] = deque()
        self.queue = FairQueue()
        self.ask_at = 0.0
        self.is_placed = False

    def __len__(self) -> int:
        return len(self.first) + len(self.queue)

    def __lt__(self, other: _Line) -> bool:
        return self.ask_at < other.ask_at

    def take(self) -> Delivery:
        return self.first.popleft() if self.first else self.queue.take()

    def withdraw(self, wanted: Callable[[Delivery], bool], limit: int) -> list[Delivery]:
        withdrawn = self.queue.withdraw(wanted, limit)
        chosen = set([each for each in self.first if wanted(each)][: limit - len(withdrawn)])
        self.first = deque(each for each in self.first if each not in chosen)
        return [*withdrawn, *chosen]


class LimitedHandler:
    """The attempts of one handler that wait for permits, and the permits of those that run."""

    def __init__(
        self,
        handler: Handler,
        limits: Limits,
        *,
        keeper: PermitKeeper,
        clock: Clock,
        lease_seconds: float,
        renew_seconds: float,
    ) -> None:
        """`lease_seconds`: how long a permit outlives its process, infinite where nothing does."""
        self.is_away = False
        """Whether nothing starts because nobody keeps the permits: Redis does not answer."""
        self.tally = Tally(self._call)
        self._handler = handler
        self._limits = limits
        self._keeper = keeper
        self._clock = clock
        self._lease_milliseconds = None if lease_seconds == math.inf else round(lease_seconds * 1000)
        self._renew_seconds = renew_seconds
        self._slots: Slots | None = None
        self._lines: dict[str, _Line] = {}
        self._ready: deque[_Line] = deque()
        self._later: list[_Line] = []
        """A heap: lines without a token."""
        self._unsorted: deque[Delivery] = deque()
        self._asking: Sequence[tuple[str, Delivery]] = ()
        self._permits: deque[str] = deque()
        self._to_close: dict[str, float] = {}
        self._slot_at = 0.0
        """When there may be a slot again, if nobody says so before; on the monotonic clock, like all here."""
        self._running = 0
        self._next_renewal = 0.0
        self._next_tidying = 0.0
        self._called = asyncio.Event()
        self._stopping = False

    def __len__(self) -> int:
        """How many wait for a permit."""
        return len(self._unsorted) + len(self._asking) + sum(map(len, self._lines.values()))

    @property
    def ready_count(self) -> int:
        """How many wait for nothing that is known but a slot of this process."""
        now = self._clock.monotonic()
        if now < self._slot_at or self._room() > 0 or self.is_away:
            return 0
        return sum(len(line) for line in self._ready if line.ask_at <= now)

    @property
    def is_held_up(self) -> bool:
        """Whether more wait here than should be taken of others' deliveries."""
        keyed = self._handler.rate_limit is not None and self._handler.rate_limit.key is not None
        return len(self) >= (MOST_WITH_KEYS if keyed else 1)

    def bind(self, slots: Slots) -> None:
        """The pool that these attempts run in."""
        self._slots = slots

    def add(self, delivery: Delivery) -> None:
        """Let an attempt wait for its permit."""
        if self._handler.rate_limit is None or self._handler.rate_limit.key is None:
            self._join(delivery, "")
        else:
            self._unsorted.append(delivery)
        self._call()

    def hear(self) -> None:
        """There may be permits, whatever was said before."""
        self._slot_at = 0.0
        self._call()

    def note_failure(self, delivery: Delivery, error: AttemptError) -> None:
        """An attempt has failed. The time that its service asked for is asked of everybody."""
        if self._limits.tokens and error.retry_after_seconds:
            with suppress(Exception):  # it had a key when it began
                closed_until = self._clock.monotonic() + error.retry_after_seconds
                rate_key = self._rate_key(delivery)
                self._to_close[rate_key] = max(closed_until, self._to_close.get(rate_key, 0.0))
                self._call()

    def withdraw(self, wanted: Callable[[Delivery], bool], limit: int) -> list[Delivery]:
        """Take out at most `limit` deliveries that are `wanted`."""
        withdrawn: list[Delivery] = []
        for line in list(self._lines.values()):
            if len(withdrawn) < limit:
                withdrawn += line.withdraw(wanted, limit - len(withdrawn))
        chosen = set([each for each in self._unsorted if wanted(each)][: limit - len(withdrawn)])
        self._unsorted = deque(each for each in self._unsorted if each not in chosen)
        return [*withdrawn, *chosen]

    def waits(self, execution_id: str) -> dict[tuple[int, int], Wait | None]:
        """By (node, attempt) of an execution that waits here: for what; None: for its turn."""
        found: dict[tuple[int, int], Wait | None] = {}
        for rate_key, delivery in self._all():
            if delivery.execution.execution_id == execution_id:
                found[delivery.node, delivery.attempt] = self._wait(rate_key)
        return found

    def stop(self) -> None:
        """Nothing more starts."""
        self._stopping = True

    async def leave(self) -> None:
        """Give back what permits there are: nothing runs any more."""
        with suppress(BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._give_back()

    async def run(self) -> None:
        """Ask, let through, renew, give back, until cancelled."""
        backoff = Backoff(FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
        while True:
            self._called.clear()
            try:
                await self._step()
            except BrokerUnavailable as error:
                log.debug("no permits for the handler %s: %s", self._handler.name, error)
                self.is_away = True
                await asyncio.sleep(backoff.next_seconds())
                continue
            self.is_away = False
            backoff.reset()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._due()):
                    await self._called.wait()

    async def _step(self) -> None:
        await self._give_back()
        await self._close()
        await self._renew()
        self._tidy()
        await self._sort()
        while chosen := self._choose():
            await self._ask(chosen)

    def _call(self) -> None:
        self._called.set()

    def _due(self) -> float | None:
        """When to go on although nothing calls for it; None: never."""
        due = math.inf
        if self._permits and self._lease_milliseconds is not None:
            due = self._next_renewal
        if self._lines:
            due = min(due, self._next_tidying)
            if self._slot_at > self._clock.monotonic():
                due = min(due, self._slot_at)
            elif self._later:
                due = min(due, self._later[0].ask_at)
        return None if due == math.inf else due

    def _room(self) -> int:
        """How many may ask. One at least, even if there is no free slot: it has the next one that is."""
        assert self._slots is not None
        if self._stopping:
            return 0
        queued = self._slots.waiting_of(self._handler.name)
        room = min(max(self._slots.room(), 0 if queued else 1), MOST_AT_ONCE)
        here = self._handler.max_running_per_process
        return room if here is None else min(room, here - self.tally.running - queued)

    def _line(self, rate_key: str) -> _Line:
        line = self._lines.get(rate_key)
        if line is None:
            line = self._lines[rate_key] = _Line(rate_key)
        return line

    def _join(self, delivery: Delivery, rate_key: str) -> None:
        line = self._line(rate_key)
        line.queue.add(delivery)
        self._place(line)

    def _place(self, line: _Line) -> None:
        """Put a line where lines wait, or forget it when nobody waits in it."""
        if line.is_placed:
            return
        if not line:
            self._lines.pop(line.rate_key, None)
            return
        line.is_placed = True
        if line.ask_at > self._clock.monotonic():
            heapq.heappush(self._later, line)
        else:
            self._ready.append(line)

    async def _sort(self) -> None:
        """Find out the rate keys of those that have come."""
        while self._unsorted:
            for _ in range(min(SORTED_AT_ONCE, len(self._unsorted))):
                delivery = self._unsorted.popleft()
                if not _is_wanted(delivery):
                    continue
                try:
                    rate_key = self._rate_key(delivery)
                except BaseException as error:
                    # Nothing is awaited here: whatever is raised comes from the configuration or the key function.
                    assert self._slots is not None
                    self._slots.refuse(delivery, describe_failure(error))
                else:
                    self._join(delivery, rate_key)
            if self._unsorted:
                await asyncio.sleep(0)

    def _rate_key(self, delivery: Delivery) -> str:
        """Raises what is wrong with the configuration, and `KeyInvalid`."""
        key_of = None if self._handler.rate_limit is None else self._handler.rate_limit.key
        if key_of is None:
            return ""
        execution, node, _ = delivery
        config = resolve_config(delivery, self._handler, AttemptInputs(execution, node))
        try:
            rate_key = key_of(config)
        except BaseException as error:
            cause = describe_failure(error)
            raise KeyInvalid(f"the rate limit's key raised {cause.type}: {cause.message}") from None
        if rate_key is None:
            return ""
        if not isinstance(rate_key, str):
            raise KeyInvalid(f"the rate limit's key must be a text or None, not {type(rate_key).__name__}")
        if len(rate_key) > MAX_KEY_CHARACTERS or not rate_key.isprintable():
            raise KeyInvalid(
                f"the rate limit's key must be printable and have at most {MAX_KEY_CHARACTERS} characters, "
                f"not {rate_key[:50]!a} ({len(rate_key)} characters)"
            )
        return rate_key

    def _choose(self) -> list[tuple[str, Delivery]]:
        """Those that ask for permits now, with their rate keys: of each line in turn, as many as could start."""
        now = self._clock.monotonic()
        if now < self._slot_at:
            return []
        while self._later and self._later[0].ask_at <= now:
            self._ready.append(heapq.heappop(self._later))
        room = self._room()
        chosen: list[tuple[str, Delivery]] = []
        while self._ready and len(chosen) < room:
            line = self._ready.popleft()
            line.is_placed = False
            if line and line.ask_at <= now:
                delivery = line.take()
                if self._is_startable(delivery):
                    chosen.append((line.rate_key, delivery))
            self._place(line)
        return chosen

    def _is_startable(self, delivery: Delivery) -> bool:
        assert self._slots is not None
        if not _is_wanted(delivery):
            return False
        if not self._slots.may_start(delivery.execution):
            self._slots.hold((delivery,))
            return False
        return True

    async def _ask(self, chosen: Sequence[tuple[str, Delivery]]) -> None:
        """Ask for permits; who gets one goes on, who does not is the next of its line."""
        assert self._slots is not None
        asks = [Ask(self._clock.new_id() if self._limits.max_running else "", rate_key) for rate_key, _ in chosen]
        if not self._permits:
            self._next_renewal = self._clock.monotonic() + self._renew_seconds
        self._asking = chosen
        try:
            answer = await self._keeper.take_permits(self._handler.name, self._limits, asks, self._lease_milliseconds)
        except BaseException:
            # Whether they were given is not known: they are given back, for nobody has them.
            self._keep(asks)
            self._put_back(chosen)
            raise
        finally:
            self._asking = ()
        self._running = answer.running
        told = list(zip(asks, chosen, answer.refusals, strict=True))
        for _, (rate_key, _), refusal in told:
            if refusal is not None:
                self._heed(rate_key, refusal)
        self._keep(ask for ask, _, refusal in told if refusal is None)
        self._put_back([each for _, each, refusal in told if refusal is not None])
        self._slots.let_through(delivery for _, (_, delivery), refusal in told if refusal is None)

    def _heed(self, rate_key: str, refusal: Refusal) -> None:
        until = self._clock.monotonic() + max(refusal.seconds, SHORTEST_WAIT_SECONDS)
        if refusal.lacks == "slot":
            self._slot_at = until
        else:
            self._line(rate_key).ask_at = until

    def _keep(self, asks: Iterable[Ask]) -> None:
        if self._limits.max_running:
            self._permits += (ask.permit for ask in asks)

    def _put_back(self, refused: Sequence[tuple[str, Delivery]]) -> None:
        for rate_key, delivery in reversed(refused):
            line = self._line(rate_key)
            line.first.appendleft(delivery)
            self._place(line)

    async def _give_back(self) -> None:
        """Permits that nobody has: of what has ended, and of what was let through and did not start after all."""
        assert self._slots is not None
        used = self.tally.running + (0 if self._stopping else self._slots.waiting_of(self._handler.name))
        spare = [self._permits.popleft() for _ in range(len(self._permits) - used)]
        if not spare:
            return
        try:
            await self._keeper.release_permits(self._handler.name, spare)
        except BaseException:
            self._permits += spare
            raise

    async def _close(self) -> None:
        for rate_key, until in list(self._to_close.items()):
            seconds = until - self._clock.monotonic()
            if seconds > 0:
                await self._keeper.close_key(self._handler.name, self._limits, rate_key, seconds)
            if self._to_close.get(rate_key) == until:
                del self._to_close[rate_key]

    async def _renew(self) -> None:
        now = self._clock.monotonic()
        if self._lease_milliseconds is not None and self._permits and now >= self._next_renewal:
            await self._keeper.renew_permits(self._handler.name, list(self._permits), self._lease_milliseconds)
            self._next_renewal = now + self._renew_seconds

    def _tidy(self) -> None:
        """Now and then: forget what waits for a permit and is not wanted any more."""
        now = self._clock.monotonic()
        if self._lines and now >= self._next_tidying:
            self._next_tidying = now + TIDY_SECONDS
            self.withdraw(lambda delivery: not _is_wanted(delivery), len(self))

    def _all(self) -> Iterator[tuple[str, Delivery]]:
        yield from ((line.rate_key, delivery) for line in self._lines.values() for delivery in line.first)
        yield from ((line.rate_key, delivery) for line in self._lines.values() for delivery in line.queue)
        yield from self._asking

    def _wait(self, rate_key: str) -> Wait | None:
        now = self._clock.monotonic()
        if self.is_away:
            return WaitsForBroker(self._handler.name)
        if now < self._slot_at:
            return WaitsForSlot(self._handler.name, self._running, self._limits.max_running)
        line = self._lines.get(rate_key)
        if line is not None and now < line.ask_at:
            return WaitsForRate(self._handler.name, rate_key, self._clock.now() + round((line.ask_at - now) * 1000))
        return None


def _is_wanted(delivery: Delivery) -> bool:
    return not delivery.execution.detached and is_current(*delivery)
