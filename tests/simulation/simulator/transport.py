"""The in-process transport with bad luck: wake-ups get lost, outcomes come late or twice."""

from __future__ import annotations

from simulator.world import World
from workflow_engine.runtime.core.machine import Outcome
from workflow_engine.runtime.transport.local import LocalTransport


class SimulatedTransport(LocalTransport):
    """What remote workers and a wiped Redis will do to the owner, done to the one that is in process."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wake(self, execution_id: str) -> None:
        if not self._world.strikes("wake_up_lost"):
            super().wake(execution_id)

    def hand_in(self, outcome: Outcome) -> None:
        faults = self._world.faults
        if self._world.strikes("outcome_late"):
            self._world.loop.call_later(faults.random() * 5, super().hand_in, outcome)
        else:
            super().hand_in(outcome)
        if self._world.strikes("outcome_doubled"):
            self._world.loop.call_later(faults.random() * 30, super().hand_in, outcome)
