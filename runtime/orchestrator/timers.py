"""Retries that are due soon, in memory. The durable truth is `retry_at` of the failed attempt's row."""

from __future__ import annotations

import heapq

from ..core.machine import Execution


class Timers:
    """A heap of (due on the monotonic clock, execution, node)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Execution, int]] = []
        self._count = 0

    def add(self, execution: Execution, node: int, due: float) -> None:
        """Remember a node whose next attempt is due then."""
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, execution, node))

    def next_due(self) -> float | None:
        """When the earliest is due, or None."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, now: float) -> list[tuple[Execution, int]]:
        """Take out what is due and still wanted."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, _, execution, node = heapq.heappop(self._heap)
            if not execution.detached:
                due.append((execution, node))
        return due

    def clear(self) -> None:
        """Forget everything."""
        self._heap.clear()
