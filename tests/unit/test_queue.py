"""The fair queue: executions take turns."""

from __future__ import annotations

import pytest

from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.machine import Execution
from workflow_engine.runtime.core.queue import Delivery, FairQueue
from workflow_engine.runtime.core.retry import RetryPolicy

GRAPH = compile_graph(
    {"name": "wide", "dag": {"nodes": [{"id": f"n{index}", "handler": "h"} for index in range(10)]}},
    NodeDefaults(RetryPolicy(), lambda _handler: 60.0),
)


def test_executions_take_turns_and_each_keeps_its_order() -> None:
    wide, small = Execution("wide", GRAPH, b"{}"), Execution("small", GRAPH, b"{}")
    queue = FairQueue()
    for node in range(5):
        queue.add(Delivery(wide, node, 1))
    for node in range(2):
        queue.add(Delivery(small, node, 1))

    taken = [queue.take() for _ in range(len(queue))]

    assert [(delivery.execution.execution_id, delivery.node) for delivery in taken] == [
        ("wide", 0),
        ("small", 0),
        ("wide", 1),
        ("small", 1),
        ("wide", 2),
        ("wide", 3),
        ("wide", 4),
    ]


def test_executions_take_turns_with_several_of_each_at_a_time() -> None:
    wide, small = Execution("wide", GRAPH, b"{}"), Execution("small", GRAPH, b"{}")
    queue = FairQueue()
    for node in range(5):
        queue.add(Delivery(wide, node, 1))
    queue.add(Delivery(small, 0, 1))

    turns = [[(each.execution.execution_id, each.node) for each in queue.take_some(3)] for _ in range(3)]

    assert turns == [[("wide", 0), ("wide", 1), ("wide", 2)], [("small", 0)], [("wide", 3), ("wide", 4)]]
    assert len(queue) == 0
    with pytest.raises(IndexError):
        queue.take_some(3)


def test_nothing_is_left_of_what_was_taken() -> None:
    queue = FairQueue()
    queue.add(Delivery(Execution("one", GRAPH, b"{}"), 0, 1))

    queue.take()

    assert len(queue) == 0
    assert not queue
    with pytest.raises(IndexError):
        queue.take()


def test_what_would_have_been_last_is_withdrawn_first_and_the_rest_keeps_its_order() -> None:
    wide, small = Execution("wide", GRAPH, b"{}"), Execution("small", GRAPH, b"{}")
    queue = FairQueue()
    for node in range(5):
        queue.add(Delivery(wide, node, 1))
    queue.add(Delivery(small, 0, 1))

    withdrawn = queue.withdraw(lambda delivery: delivery.node % 2 == 0, limit=3)

    assert [(delivery.execution.execution_id, delivery.node) for delivery in withdrawn] == [
        ("small", 0),
        ("wide", 4),
        ("wide", 2),
    ]
    left = [queue.take() for _ in range(len(queue))]
    assert [(delivery.execution.execution_id, delivery.node) for delivery in left] == [
        ("wide", 0),
        ("wide", 1),
        ("wide", 3),
    ]
    assert len(queue) == 0


def test_nothing_is_withdrawn_that_is_not_wanted() -> None:
    queue = FairQueue()
    queue.add(Delivery(Execution("one", GRAPH, b"{}"), 0, 1))

    assert queue.withdraw(lambda _delivery: False, limit=10) == []
    assert len(queue) == 1
