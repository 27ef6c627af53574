"""Tells the store which handlers this process has: for those that check definitions and have others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from ..clock import Clock
from ..errors import BackendError
from ..ports import CatalogueStore, HandlerRecord

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 86_400.0
"""Handlers are forgotten in the end that no process tells of any more."""
AGAIN_SECONDS = 60.0


class Announcer:
    """Stores the handlers at the start, and again every day."""

    def __init__(
        self,
        *,
        store: CatalogueStore,
        clock: Clock,
        handlers: Sequence[HandlerRecord],
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        self._store = store
        self._clock = clock
        self._handlers = handlers
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Tell, and tell again, until cancelled."""
        while True:
            wait_seconds = self._interval_seconds
            try:
                await self._store.save_handlers(self._handlers, self._clock.now())
            except BackendError as error:
                log.warning("other processes do not hear of the handlers here for now: %s", error)
                wait_seconds = min(AGAIN_SECONDS, self._interval_seconds)
            except Exception:
                log.exception("other processes do not hear of the handlers here")
            await asyncio.sleep(wait_seconds)
