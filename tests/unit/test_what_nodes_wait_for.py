"""What a node waits for, told from an execution and what is known around it."""

from __future__ import annotations

import pytest

from workflow_engine.runtime.core.graph import Graph, NodeDefaults, compile_graph
from workflow_engine.runtime.core.machine import AttemptError, Effects, Execution, Outcome, apply_outcome, start
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.core.waiting import MAX_NODES_NAMED, Surroundings, WaitsFor, what_it_waits_for

NOW = 1_790_000_000_000
ALONE = Surroundings()


def graph(*nodes: tuple[str, list[str]]) -> Graph:
    listed = [{"id": name, "handler": f"run-{name}", "dependencies": needed} for name, needed in nodes]
    policy = RetryPolicy(3, 5.0, 60.0, 2.0, jitter=False)
    return compile_graph({"name": "w", "dag": {"nodes": listed}}, NodeDefaults(policy, lambda _handler: 60.0))


@pytest.fixture
def execution() -> Execution:
    """ "a" may run, "b" comes behind it."""
    return Execution("e", graph(("a", []), ("b", ["a"])), b"{}")


def kind(execution: Execution, node: int, around: Surroundings = ALONE, now: int = NOW) -> WaitsFor | None:
    waiting = what_it_waits_for(execution, node, around, now)
    return None if waiting is None else waiting.kind


def fail(execution: Execution) -> None:
    error = AttemptError("ValueError", "no", retryable=True)
    apply_outcome(execution, Outcome("e", 0, 1, None, error, NOW, NOW), Effects())


def test_what_runs_or_has_ended_waits_for_nothing(execution: Execution) -> None:
    assert start(execution, 0, 1)
    assert kind(execution, 0) is None
    apply_outcome(execution, Outcome("e", 0, 1, b"1", None, NOW, NOW), Effects())
    assert kind(execution, 0, Surroundings(cancelled=True)) is None


@pytest.mark.parametrize(
    ("around", "expected"),
    [
        (ALONE, WaitsFor.SLOT),
        (Surroundings(limited={"run-a"}), WaitsFor.LIMIT),
        (Surroundings(limited={"run-a"}, unserved={"run-a"}), WaitsFor.HANDLER),
        (Surroundings(limited={"run-b"}, unserved={"run-b"}), WaitsFor.SLOT),
        (Surroundings(unserved={"run-a"}, unowned=True), WaitsFor.PARTITION),
        (Surroundings(unowned=True, cancelled=True), WaitsFor.CANCEL),
    ],
)
def test_what_may_run_waits_for_the_first_thing_in_its_way(
    execution: Execution, around: Surroundings, expected: WaitsFor
) -> None:
    assert kind(execution, 0, around) is expected


def test_what_comes_behind_others_waits_for_those(execution: Execution) -> None:
    waiting = what_it_waits_for(execution, 1, Surroundings(unowned=True), NOW)
    assert waiting == (WaitsFor.PREDECESSORS, "waits for a", ["a"], None)


def test_many_predecessors_are_counted() -> None:
    first = [f"n{number}" for number in range(MAX_NODES_NAMED + 2)]
    execution = Execution("e", graph(*((name, []) for name in first), ("last", first)), b"{}")
    assert start(execution, 0, 1)
    apply_outcome(execution, Outcome("e", 0, 1, b"1", None, NOW, NOW), Effects())
    waiting = what_it_waits_for(execution, len(first), ALONE, NOW)
    assert waiting is not None
    assert waiting.nodes == first[1:]
    assert waiting.message == f"waits for {', '.join(first[1:-1])} and 1 more"


def test_a_retry_waits_for_its_time_and_then_for_what_any_attempt_waits_for(execution: Execution) -> None:
    assert start(execution, 0, 1)
    fail(execution)
    waiting = what_it_waits_for(execution, 0, ALONE, NOW)
    assert waiting == (WaitsFor.RETRY, "attempt 1 failed; waits for the time of the next one", (), NOW + 5_000)
    assert kind(execution, 0, Surroundings(unowned=True)) is WaitsFor.PARTITION
    assert kind(execution, 0, Surroundings(unserved={"run-a"}), NOW + 5_000) is WaitsFor.HANDLER
    assert kind(execution, 0, now=NOW + 5_000) is WaitsFor.SLOT
