"""What waits for a slot: in one queue, or, where not every attempt of a handler may start, in a line of its own.

A line has gates, each of which lets so many attempts run at once. A line that may not go on holds up nobody else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from ..core.machine import is_isolated
from ..core.queue import Delivery, FairQueue

ISOLATED_AT_ONCE = 4
"""Suspects: each is a process, of some 50 MB."""
MOST_COUNTED = 10_000
"""It takes a few milliseconds, of everybody's."""


class Gate:
    """Lets at most `limit` attempts run at once. Those that pass `enter` it, and `leave` when they have ended."""

    __slots__ = ("_limit", "_running")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0

    def has_room(self) -> bool:
        """Whether another attempt may start."""
        return self._running < self._limit

    def note_taken(self) -> None:
        """One has left the line: it starts now, or never."""

    def enter(self) -> None:
        """An attempt starts."""
        self._running += 1

    def leave(self) -> None:
        """An attempt has ended, or is no longer waited for."""
        self._running -= 1


class Tally(Gate):
    """Lets everybody pass, knows how many have, and calls whenever somebody comes or goes."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[[], None]) -> None:
        super().__init__(0)
        self._call = call

    @property
    def running(self) -> int:
        """How many attempts run."""
        return self._running

    def has_room(self) -> bool:
        return True

    def note_taken(self) -> None:
        self._call()

    def leave(self) -> None:
        super().leave()
        self._call()


Gates = Sequence[Gate]


class _Line(NamedTuple):
    gates: Gates
    deliveries: FairQueue

    def may_go_on(self) -> bool:
        return all(gate.has_room() for gate in self.gates)


class Waiting:
    """The deliveries that wait for a slot. Lines and the queue take turns."""

    def __init__(self, gates: Mapping[str, Gates]) -> None:
        """`gates`: of the handlers that have some."""
        self._gates = gates
        self._suspects = Gate(ISOLATED_AT_ONCE)
        self._queue = FairQueue()
        self._lines: dict[tuple[str, bool], _Line] = {}
        """Those in which somebody waits, by handler and whether it is of its suspects."""
        self._is_turn_of_lines = True

    def __len__(self) -> int:
        return len(self._queue) + sum(len(line.deliveries) for line in self._lines.values())

    def __bool__(self) -> bool:
        return bool(self._queue) or bool(self._lines)

    @property
    def ready_count(self) -> int:
        """How many wait for a slot and for nothing else; of a line that may go on all count."""
        return len(self._queue) + sum(len(line.deliveries) for line in self._lines.values() if line.may_go_on())

    @property
    def held_up(self) -> set[str]:
        """The handlers of which more wait than may start."""
        return {handler for (handler, _), line in self._lines.items() if not line.may_go_on()}

    def count_by_handler(self) -> Counter[str]:
        """How many wait; of very many that no gates hold up, the first ones are counted."""
        counts = Counter(execution.graph.handlers[node] for execution, node, _ in islice(self._queue, MOST_COUNTED))
        for (handler, _), line in self._lines.items():
            counts[handler] += len(line.deliveries)
        return counts

    def add(self, delivery: Delivery) -> None:
        """Let a delivery wait behind those of its execution."""
        handler, is_suspect = delivery.execution.graph.handlers[delivery.node], is_isolated(*delivery)
        if not is_suspect and handler not in self._gates:
            self._queue.add(delivery)
            return
        line = self._lines.get((handler, is_suspect))
        if line is None:
            line = self._lines[handler, is_suspect] = _Line(self.gates_of(handler, is_suspect), FairQueue())
        line.deliveries.add(delivery)

    def count_of(self, handler: str) -> int:
        """How many of a handler that has gates wait."""
        lines = (self._lines.get((handler, is_suspect)) for is_suspect in (False, True))
        return sum(len(line.deliveries) for line in lines if line is not None)

    def gates_of(self, handler: str, is_suspect: bool) -> Gates:
        """What an attempt has to pass."""
        gates = self._gates.get(handler, ())
        return (*gates, self._suspects) if is_suspect else gates

    def take(self) -> Delivery | None:
        """The next delivery that may start, if there is one."""
        if self._lines and (self._is_turn_of_lines or not self._queue):
            self._is_turn_of_lines = False
            delivery = self._take_of_lines()
            if delivery is not None:
                return delivery
        self._is_turn_of_lines = True
        return self._queue.take() if self._queue else None

    def _take_of_lines(self) -> Delivery | None:
        for key, line in self._lines.items():
            if line.may_go_on():
                delivery = line.deliveries.take()
                for gate in line.gates:
                    gate.note_taken()
                del self._lines[key]
                if line.deliveries:
                    self._lines[key] = line  # behind the others
                return delivery
        return None

    def withdraw(self, wanted: Callable[[Delivery], bool], limit: int) -> list[Delivery]:
        """Take out at most `limit` deliveries that are `wanted`; of lines that are held up first, suspects never."""
        withdrawn: list[Delivery] = []
        for (handler, is_suspect), line in sorted(self._lines.items(), key=lambda item: item[1].may_go_on()):
            if not is_suspect and len(withdrawn) < limit:
                withdrawn += line.deliveries.withdraw(wanted, limit - len(withdrawn))
                if not line.deliveries:
                    del self._lines[handler, False]
        if len(withdrawn) < limit:
            withdrawn += self._queue.withdraw(wanted, limit - len(withdrawn))
        return withdrawn
