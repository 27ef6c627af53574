"""Makes room: deletes ended executions and idempotency claims that have been kept long enough.

Every process may run this at any time: what one has deleted, the next does not find.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..clock import Clock
from ..errors import BackendError
from ..failpoints import failpoint
from ..ports import Store

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 60.0
BATCH = 200
"""Executions of one transaction: others wait for it."""
DAY_MILLISECONDS = 86_400_000
HOUR_MILLISECONDS = 3_600_000


class Retention:
    """Deletes a bounded batch at a time, until nothing is left that is too old; looks again every minute."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        ended_days: float,
        claim_hours: float,
        interval_seconds: float = INTERVAL_SECONDS,
    ) -> None:
        """`ended_days`: how long executions are kept after their end; 0 keeps them for ever.

        `claim_hours`: how long the answer to a request under an idempotency key is kept.
        """
        self._store = store
        self._clock = clock
        self._ended_days = ended_days
        self._claim_hours = claim_hours
        self._interval_seconds = interval_seconds

    async def run(self) -> None:
        """Look, and look again, until cancelled."""
        while True:
            try:
                await self.delete_old()
            except BackendError as error:
                log.warning("old executions and idempotency keys are kept for now: %s", error)
            except Exception:
                log.exception("old executions and idempotency keys are kept for now")
            await asyncio.sleep(self._interval_seconds)

    async def delete_old(self) -> tuple[int, int]:
        """Delete everything that is too old now; returns how many executions and how many claims that were."""
        now = self._clock.now()
        executions = 0
        if self._ended_days > 0:
            ended_before = now - int(self._ended_days * DAY_MILLISECONDS)
            executions = await self._repeat(self._store.delete_ended_executions, ended_before)
        claims = await self._repeat(self._store.delete_claims, now - int(self._claim_hours * HOUR_MILLISECONDS))
        if executions or claims:
            log.info("deleted %d ended executions and %d idempotency keys", executions, claims)
        return executions, claims

    async def _repeat(self, delete: Callable[[int, int], Awaitable[int]], before: int) -> int:
        total = 0
        while True:
            count = await delete(before, BATCH)
            failpoint("retention.deleted")
            total += count
            if count < BATCH:
                return total
