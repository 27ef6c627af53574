"""What a crash has left is tried a few at a time, and what is being tried is written down first."""

from __future__ import annotations

import math

from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.machine import Effects, Execution, Suspicion, suspect
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.orchestrator.recovery import TRIAL_SECONDS, Recovery

GRAPH = compile_graph(
    {"name": "wide", "dag": {"nodes": [{"id": f"n{index}", "handler": "h"} for index in range(10)]}},
    NodeDefaults(RetryPolicy(), lambda _handler: 60.0),
)


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> int:
        raise AssertionError("nothing here goes by the wall clock")

    def chance(self) -> float:
        raise AssertionError("nothing here is left to chance")

    def new_id(self) -> str:
        raise AssertionError("nothing here is named")


def left_by_a_crash(clock: Clock, at_once: int) -> tuple[Execution, Recovery]:
    execution = Execution("e", GRAPH, b"{}")
    recovery = Recovery(clock, at_once)
    recovery.add([(execution, node) for node in range(10)])
    return execution, recovery


def released(recovery: Recovery) -> list[int]:
    effects = Effects()
    recovery.release(effects)
    nodes = [node for _, node in effects.dispatch]
    assert effects.suspicions == [Suspicion("e", f"n{node}", 1, 1) for node in nodes], "written with the dispatch"
    return nodes


def test_a_few_are_tried_at_a_time() -> None:
    _, recovery = left_by_a_crash(Clock(), 3)
    assert released(recovery) == [0, 1, 2]
    assert released(recovery) == []


def test_what_has_ended_makes_room() -> None:
    execution, recovery = left_by_a_crash(Clock(), 3)
    released(recovery)
    execution.attempts[1] = 2
    assert released(recovery) == [3]


def test_what_has_run_for_a_while_makes_room() -> None:
    clock = Clock()
    _, recovery = left_by_a_crash(clock, 3)
    released(recovery)
    assert recovery.next_due() == clock.seconds + TRIAL_SECONDS
    clock.seconds += TRIAL_SECONDS
    assert released(recovery) == [3, 4, 5]


def test_what_is_wanted_no_more_is_not_tried() -> None:
    execution, recovery = left_by_a_crash(Clock(), 3)
    execution.detached = True
    assert released(recovery) == []
    assert recovery.next_due() == math.inf


def test_what_runs_apart_keeps_nobody_waiting() -> None:
    execution, recovery = left_by_a_crash(Clock(), 3)
    for node in range(4):
        suspect(execution, node, 1, Effects())
    effects = Effects()
    recovery.release(effects)
    assert [node for _, node in effects.dispatch] == [0, 1, 2, 3, 4, 5, 6]
    assert [each.lost_deliveries for each in effects.suspicions] == [2, 2, 2, 2, 1, 1, 1]


def test_everything_can_be_forgotten() -> None:
    _, recovery = left_by_a_crash(Clock(), 3)
    released(recovery)
    recovery.clear()
    assert released(recovery) == []
    assert recovery.next_due() == math.inf
