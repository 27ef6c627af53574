"""A slot of the worker pool: a task that runs one attempt after another."""

from __future__ import annotations

import asyncio

from ..core.queue import Delivery
from .attempt import Attempt
from .waiting import Gates


class Slot:
    """What runs in it now, and since when. `deadline` on the monotonic clock."""

    __slots__ = ("attempt", "deadline", "delivery", "gates", "given_up", "idle", "started_at", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.idle: asyncio.Future[None] | None = None
        self.delivery: Delivery | None = None
        self.attempt: Attempt | None = None
        self.gates: Gates = ()
        self.started_at = 0
        self.deadline = 0.0
        self.given_up = False

    def enter(self, gates: Gates) -> None:
        """The attempt starts here through gates."""
        self.gates = gates
        for gate in gates:
            gate.enter()

    def leave(self) -> None:
        """The attempt has ended, or is no longer waited for."""
        self.delivery = self.attempt = None
        if self.gates:
            for gate in self.gates:
                gate.leave()
            self.gates = ()
