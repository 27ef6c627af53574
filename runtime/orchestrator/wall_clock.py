"""The wall clock for what is due: as if it had never been set back, so that nothing waits twice."""

from __future__ import annotations

import logging

from ..clock import Clock

log = logging.getLogger(__name__)

STEP_MILLISECONDS = 2_000


class WallClock:
    """Notices steps by the monotonic clock, between one look and the next."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset: int | None = None
        self._set_back = 0

    def now(self) -> int:
        """Epoch milliseconds."""
        offset = self._clock.now() - round(self._clock.monotonic() * 1000)
        step = offset - self._offset if self._offset is not None else 0
        self._offset = offset
        if abs(step) > STEP_MILLISECONDS:
            log.warning("the wall clock was set %s by %.1f s", "back" if step < 0 else "on", abs(step) / 1000)
            self._set_back = max(0, self._set_back - step)
        return self._clock.now() + self._set_back
