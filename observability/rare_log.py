"""Log lines of what happens often while something is wrong."""

from __future__ import annotations

import asyncio
import logging

SECONDS_BETWEEN_LINES = 1.0


class RareLog:
    """At most one line a second for each cause; the next one says how many there would have been."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._last: dict[str, float] = {}
        self._left_out: dict[str, int] = {}

    def write(self, level: int, cause: str, message: str) -> None:
        """Say it, unless something was said of the same cause a moment ago."""
        now = asyncio.get_running_loop().time()
        if now - self._last.get(cause, -SECONDS_BETWEEN_LINES) < SECONDS_BETWEEN_LINES:
            self._left_out[cause] = self._left_out.get(cause, 0) + 1
            return
        self._last[cause] = now
        left_out = self._left_out.pop(cause, 0)
        self._log.log(level, "%s%s", message, f" ({left_out} more of this kind)" if left_out else "")
