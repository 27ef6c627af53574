"""Deliveries that wait: executions take turns, so that a wide one does not hold up the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from .machine import Execution


class Delivery(NamedTuple):
    """An attempt handed to whoever runs it. `execution` is looked at only for permission and inputs."""

    execution: Execution
    node: int
    attempt: int


class FairQueue:
    """First in, first out within an execution; one delivery of each execution in turn."""

    def __init__(self) -> None:
        self._deliveries: dict[Execution, deque[Delivery]] = {}
        self._turns: deque[Execution] = deque()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Delivery]:
        return chain.from_iterable(self._deliveries.values())

    def add(self, delivery: Delivery) -> None:
        """Queue a delivery behind those of its execution."""
        self._count += 1
        waiting = self._deliveries.get(delivery.execution)
        if waiting is None:
            self._deliveries[delivery.execution] = deque((delivery,))
            self._turns.append(delivery.execution)
        else:
            waiting.append(delivery)

    def take(self) -> Delivery:
        """The next delivery of the execution whose turn it is. Raises `IndexError` when nothing waits."""
        [delivery] = self.take_some(1)
        return delivery

    def take_some(self, most: int) -> list[Delivery]:
        """At most so many of the execution whose turn it is; at least one. Raises `IndexError` when nothing waits."""
        execution = self._turns.popleft()
        waiting = self._deliveries[execution]
        taken = [waiting.popleft() for _ in range(min(most, len(waiting)))]
        self._count -= len(taken)
        if waiting:
            self._turns.append(execution)
        else:
            del self._deliveries[execution]
        return taken

    def withdraw(self, wanted: Callable[[Delivery], bool], limit: int) -> list[Delivery]:
        """Take out at most `limit` deliveries that are `wanted`, those that would have been last."""
        withdrawn: list[Delivery] = []
        for execution in reversed(list(self._turns)):
            waiting = self._deliveries[execution]
            kept: deque[Delivery] = deque()
            while waiting:
                delivery = waiting.pop()
                if len(withdrawn) < limit and wanted(delivery):
                    withdrawn.append(delivery)
                else:
                    kept.appendleft(delivery)
            if kept:
                self._deliveries[execution] = kept
            else:
                del self._deliveries[execution]
                self._turns.remove(execution)
            if len(withdrawn) >= limit:
                break
        self._count -= len(withdrawn)
        return withdrawn
