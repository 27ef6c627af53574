"""Keeps in the store what this replica says of itself, and reads what the others have said there.

It is what is known of them where heartbeats cannot be heard. Nothing is decided by it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from ..clock import Clock
from ..core.deliveries import Heartbeat, Replicas, SeenHeartbeat
from ..errors import BackendError
from ..ports import OwnerStore
from .limits import FORGET_HEARTBEATS_AFTER
from .redis_values import Unreadable, heartbeat_text, read_said

log = logging.getLogger(__name__)

MISSED_BY_THE_LIVING = 3
"""A live replica may miss that many checkpoints in a row, but for one."""
LEAVE_SECONDS = 1.0


class Checkpoints:
    """Writes at an interval; reads when it is asked."""

    def __init__(
        self, *, store: OwnerStore, clock: Clock, describe: Callable[[], Heartbeat], interval_seconds: float
    ) -> None:
        self.timeout_seconds = MISSED_BY_THE_LIVING * interval_seconds
        """A checkpoint that is older is a dead replica's."""
        self._store = store
        self._clock = clock
        self._describe = describe
        self._interval_seconds = interval_seconds
        self._failed = False

    async def replicas(self) -> Replicas:
        """The last checkpoint of every other replica, and what this one says of itself now. Raises `StoreUnavailable`.

        Times on this process's clock.
        """
        now = self._clock.now()
        own = self._describe()
        seen = [SeenHeartbeat(now, own)]
        forgotten_after = max(FORGET_HEARTBEATS_AFTER, self.timeout_seconds * 1000)
        for text, age_seconds in await self._store.list_checkpoints():
            try:
                heartbeat = read_said(text.encode())
            except Unreadable as error:
                log.debug("a checkpoint cannot be read, and counts for nothing: %s", error)
                continue
            if heartbeat.replica != own.replica and age_seconds * 1000 < forgotten_after:
                seen.append(SeenHeartbeat(now - round(age_seconds * 1000), heartbeat))
        return Replicas(now, now, seen)

    async def run(self) -> None:
        """Write, and write again, until cancelled."""
        while True:
            heartbeat = self._describe()
            try:
                await self._store.checkpoint(heartbeat.replica, heartbeat_text(heartbeat))
                self._failed = False
            except BackendError as error:
                if not self._failed:
                    log.warning("what this process does is not written down for now: %s", error)
                self._failed = True
            await asyncio.sleep(self._interval_seconds)

    async def leave(self) -> None:
        """This replica is no more: nothing is said of it."""
        with suppress(BackendError, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._store.leave(self._describe().replica)
