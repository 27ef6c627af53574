"""What the other replicas' workers could take: by their last heartbeats, less what they were given since."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..core.deliveries import Heartbeat

LEAST_ROOM = 100
ROOM_PER_SLOT = 20
"""Of what cannot run here, that much is out at a time: enough to keep short tasks coming, and bounded."""
PATIENCE_SECONDS = 0.05
"""What would start here within that time is not worth sending away."""


class Spare:
    """Free slots elsewhere, and how fast this process starts what waits."""

    SAMPLE_SECONDS = PATIENCE_SECONDS

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._slots: dict[str, int] = {}
        self._free = 0
        self._handed_out_then = 0
        self._handed_out_now: Mapping[str, int] = {}
        self._sampled_at = 0.0
        self._started_then: int | None = None

    @property
    def may_help(self) -> bool:
        """Whether somebody else has a free slot."""
        return self._free > 0

    def note(self, heartbeats: Collection[Heartbeat], handed_out: Mapping[str, int]) -> None:
        """Who is alive. `handed_out`: by handler, what others were given and is not back; read again later."""
        self._slots = {}
        self._free = 0
        self._handed_out_now = handed_out
        self._handed_out_then = sum(handed_out.values())
        for heartbeat in heartbeats:
            if heartbeat.replica == self._replica:
                continue
            self._free += heartbeat.free_slots
            for handler in heartbeat.handlers:
                self._slots[handler] = self._slots.get(handler, 0) + heartbeat.slots

    def serves(self, handler: str) -> bool:
        """Whether another live replica has this handler."""
        return handler in self._slots

    def room(self, handler: str, handed_out: int) -> int:
        """How many more deliveries of a handler may be given away that cannot run here."""
        if handler not in self._slots:
            return 0
        return max(LEAST_ROOM, ROOM_PER_SLOT * self._slots[handler]) - handed_out

    def surplus(self, queued: int, started: int, now: float) -> int:
        """How many of the deliveries that wait here others would start sooner.

        `started`: how many attempts this process has started so far, from which follows how fast it gets through them.
        """
        elapsed = now - self._sampled_at
        if self._free <= 0 or not queued:
            self._started_then = None
            return 0
        if self._started_then is None:
            self._sampled_at, self._started_then = now, started
            return 0
        if elapsed < PATIENCE_SECONDS:
            return 0
        soon = (started - self._started_then) * PATIENCE_SECONDS / elapsed
        self._sampled_at, self._started_then = now, started
        free = self._free - (sum(self._handed_out_now.values()) - self._handed_out_then)
        return max(0, min(int(queued - soon), free))
