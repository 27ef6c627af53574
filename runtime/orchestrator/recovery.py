"""What a crash has left: attempts that may have been running then, and may have been what caused it.

They are tried a few at a time, and that they are is written before. So whoever was being tried when the next process
crashes is known, and nothing else comes under suspicion.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from ..clock import Clock
from ..core.machine import Effects, Execution, is_current, is_isolated, suspect

TRIAL_SECONDS = 5.0
"""An attempt that has run for that long without a crash makes room for the next one."""


class Recovery:
    """The attempts that wait for their trial, and those that have it."""

    def __init__(self, clock: Clock, at_once: int) -> None:
        self._clock = clock
        self._at_once = at_once
        self._waiting: deque[tuple[Execution, int, int]] = deque()
        self._tried: dict[tuple[Execution, int, int], float] = {}

    def add(self, left: Iterable[tuple[Execution, int]]) -> None:
        """These nodes were to run, or ran, when their former owner went."""
        self._waiting.extend((execution, node, execution.attempts[node]) for execution, node in left)

    def release(self, effects: Effects) -> None:
        """Dispatch as many as there is room for."""
        if not self._waiting:
            return
        now = self._clock.monotonic()
        self._tried = {each: until for each, until in self._tried.items() if until > now and _is_wanted(*each)}
        while self._waiting and len(self._tried) < self._at_once:
            each = self._waiting.popleft()
            if not _is_wanted(*each):
                continue
            execution, node, attempt = each
            suspect(execution, node, attempt, effects)
            effects.dispatch.append((execution, node))
            # What runs in a process of its own can take nobody along: it needs no trial, and keeps nobody waiting.
            if not is_isolated(*each):
                self._tried[each] = now + TRIAL_SECONDS

    def next_due(self) -> float:
        """When the next one is released at the latest, on the monotonic clock."""
        if not self._waiting:
            return math.inf
        return min(self._tried.values(), default=0.0)

    def clear(self) -> None:
        """Forget everything."""
        self._waiting.clear()
        self._tried.clear()


def _is_wanted(execution: Execution, node: int, attempt: int) -> bool:
    return not execution.detached and is_current(execution, node, attempt)
