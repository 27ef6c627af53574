"""Retries that are due soon, in memory. The durable truth is `retry_at` of the failed attempt's row."""

from __future__ import annotations

import heapq
import math

from ..core.machine import Execution


class Timers:
    """A heap of (due on the monotonic clock, execution, node)."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Execution, int]] = []
        self._count = 0
        self._pending: dict[Execution, int] = {}
        self._forgotten = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, execution: Execution, node: int, due: float) -> None:
        """Remember a node whose next attempt is due then."""
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, execution, node))
        self._pending[execution] = self._pending.get(execution, 0) + 1

    def next_due(self) -> float:
        """When the earliest is due; infinity when there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def take_due(self, now: float) -> list[tuple[Execution, int]]:
        """Take out what is due and still wanted."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            _, _, execution, node = heapq.heappop(self._heap)
            if execution not in self._pending:
                self._forgotten -= 1
                continue
            due.append((execution, node))
            self._pending[execution] -= 1
            if not self._pending[execution]:
                del self._pending[execution]
        return due

    def forget(self, execution: Execution) -> None:
        """Drop an execution's timers; its memory goes at the latest when half of the heap is of such."""
        self._forgotten += self._pending.pop(execution, 0)
        if self._forgotten * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2] in self._pending]
            heapq.heapify(self._heap)
            self._forgotten = 0

    def clear(self) -> None:
        """Forget everything."""
        self._heap.clear()
        self._pending.clear()
        self._forgotten = 0
