"""What waits for a slot: lines of limited handlers hold up nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.machine import ISOLATED_FROM, Execution
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.worker.waiting import ISOLATED_AT_ONCE, Gate, Waiting

NODES = [{"id": f"n{index}", "handler": "limited" if index < 5 else "free"} for index in range(10)]
GRAPH = compile_graph({"name": "wide", "dag": {"nodes": NODES}}, NodeDefaults(RetryPolicy(), lambda _handler: 60.0))
LIMITED, FREE = range(5), range(5, 10)


def waiting_with(nodes: Sequence[int], limit: int = 1) -> tuple[Waiting, Execution]:
    waiting, execution = Waiting({"limited": (Gate(limit),)}), Execution("one", GRAPH, b"{}")
    for node in nodes:
        waiting.add(Delivery(execution, node, 1))
    return waiting, execution


def start_next(waiting: Waiting) -> int | None:
    """As a slot does: take, and enter the gates; the node that starts."""
    delivery = waiting.take()
    if delivery is None:
        return None
    for gate in waiting.gates_of(GRAPH.handlers[delivery.node], False):
        gate.enter()
    return delivery.node


def test_a_line_that_is_held_up_holds_up_nobody_else() -> None:
    waiting, _ = waiting_with([*LIMITED, *FREE])

    assert [start_next(waiting) for _ in range(7)] == [0, 5, 6, 7, 8, 9, None]
    assert (len(waiting), waiting.ready_count, waiting.held_up) == (4, 0, {"limited"})
    [gate] = waiting.gates_of("limited", False)
    gate.leave()
    assert (waiting.ready_count, waiting.held_up) == (4, set())
    assert [start_next(waiting), start_next(waiting)] == [1, None]


def test_a_line_that_may_go_on_and_the_queue_take_turns() -> None:
    waiting, _ = waiting_with([*LIMITED, *FREE], limit=100)

    assert [start_next(waiting) for _ in range(11)] == [0, 5, 1, 6, 2, 7, 3, 8, 4, 9, None]
    assert not waiting


@pytest.mark.parametrize(("limit", "first"), [(1, []), (2, [1])])
def test_every_gate_of_a_line_has_to_let_it_pass(limit: int, first: Sequence[int]) -> None:
    shared = Gate(limit)
    shared.enter()
    waiting = Waiting({"limited": (Gate(5), shared)})
    execution = Execution("one", GRAPH, b"{}")
    waiting.add(Delivery(execution, 1, 1))

    assert [start_next(waiting)] == (first or [None])


def test_suspects_wait_in_lines_of_their_own_with_the_gates_of_their_handler() -> None:
    waiting = Waiting({"limited": (Gate(1),)})
    execution = Execution("one", GRAPH, b"{}")
    for node in (0, *FREE):
        execution.suspicions[node, 1] = ISOLATED_FROM
        waiting.add(Delivery(execution, node, 1))

    assert len(waiting.gates_of("limited", True)) == 2
    assert waiting.gates_of("free", False) == ()
    taken = []
    while (delivery := waiting.take()) is not None:
        taken.append(delivery.node)
        for gate in waiting.gates_of(GRAPH.handlers[delivery.node], True):
            gate.enter()
    assert len(taken) == ISOLATED_AT_ONCE
    assert 0 in taken
    assert len(waiting) == 2
    assert waiting.withdraw(lambda _delivery: True, 10) == []


def test_of_what_is_withdrawn_those_come_first_that_are_held_up() -> None:
    waiting, _ = waiting_with([*LIMITED, *FREE])
    assert start_next(waiting) == 0

    withdrawn = waiting.withdraw(lambda delivery: delivery.node != 4, 5)

    assert [delivery.node for delivery in withdrawn] == [3, 2, 1, 9, 8]
    assert len(waiting) == 4
    assert [delivery.node for delivery in waiting.withdraw(lambda _delivery: True, 10)] == [4, 7, 6, 5]
    assert not waiting
