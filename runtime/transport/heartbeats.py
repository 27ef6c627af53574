"""Tells the others that this replica is alive and what it has in hand, and learns the same of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from ..broker import Broker
from ..clock import Clock
from ..core.deliveries import DeliveryKey, Heartbeat, Replicas, SeenHeartbeat
from ..errors import BrokerUnavailable

log = logging.getLogger(__name__)

PROMPT_SECONDS = 0.25
"""What has run for that long is named, so that its partition's next owner knows of it, and whoever looks."""
AGAIN_SECONDS = 1.0


class Heartbeats:
    """Beats at an interval, and sooner when something has started that no heartbeat names."""

    def __init__(
        self, *, broker: Broker, clock: Clock, describe: Callable[[], Heartbeat], interval_seconds: float
    ) -> None:
        self.listeners: list[Callable[[Replicas], None]] = []
        """Called with every heartbeat there is, after each beat."""
        self._broker = broker
        self._clock = clock
        self._describe = describe
        self._interval_seconds = interval_seconds
        self._named: frozenset[DeliveryKey] = frozenset()
        self._last_beat = 0.0
        self._started = asyncio.Event()
        self._latest: Replicas | None = None
        self._latest_at = 0.0

    def note_start(self) -> None:
        """Something has started to run here."""
        if not self._started.is_set():
            self._started.set()

    async def beat(self) -> None:
        """Say it now. Raises `BrokerUnavailable`."""
        heartbeat = self._describe()
        self._started.clear()
        self._last_beat = self._clock.monotonic()
        replicas = await self._broker.beat(heartbeat)
        self._named = frozenset(heartbeat.attempts)
        self._keep(replicas)
        for listener in self.listeners:
            listener(replicas)

    async def replicas(self, max_age_seconds: float = 0.0) -> Replicas:
        """Every heartbeat there is, seen no longer ago than that, and this replica as it is now.

        Raises `BrokerUnavailable`.
        """
        if self._latest is None or self._clock.monotonic() - self._latest_at >= max_age_seconds:
            self._keep(await self._broker.read_replicas())
        assert self._latest is not None
        own = self._describe()
        others = [each for each in self._latest.seen if each.heartbeat.replica != own.replica]
        return self._latest._replace(seen=[*others, SeenHeartbeat(self._latest.now, own)])

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            wait_seconds = self._interval_seconds
            try:
                if await self._wants_beat():
                    await self.beat()
            except BrokerUnavailable:
                wait_seconds = min(AGAIN_SECONDS, self._interval_seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._started.wait()

    async def _wants_beat(self) -> bool:
        """Whether the interval has passed, or something that runs for a while is not named."""
        if self._started.is_set():
            self._started.clear()
            await asyncio.sleep(min(PROMPT_SECONDS, self._interval_seconds))
            if not self._named.issuperset(self._describe().attempts):
                return True
        return self._clock.monotonic() - self._last_beat >= self._interval_seconds * 0.9 or self._latest is None

    def _keep(self, replicas: Replicas) -> None:
        self._latest = replicas
        self._latest_at = self._clock.monotonic()
