"""Timers in memory."""

from __future__ import annotations

import gc
import math
import weakref

from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.machine import Execution
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.orchestrator.timers import Timers

GRAPH = compile_graph(
    {"name": "one", "dag": {"nodes": [{"id": "a", "handler": "h"}, {"id": "b", "handler": "h"}]}},
    NodeDefaults(RetryPolicy(), lambda _handler: 60.0),
)


class Watched(Execution):
    """An execution whose end can be seen."""

    __slots__ = ("__weakref__",)


def test_what_is_due_comes_out_in_order_and_once() -> None:
    timers, execution = Timers(), Execution("e", GRAPH, b"{}")
    timers.add(execution, 1, 20.0)
    timers.add(execution, 0, 10.0)

    assert timers.next_due() == 10.0
    assert timers.take_due(9.9) == []
    assert timers.take_due(10.0) == [(execution, 0)]
    assert timers.take_due(30.0) == [(execution, 1)]
    assert timers.take_due(30.0) == []
    assert timers.next_due() == math.inf


def test_what_is_forgotten_does_not_come_out() -> None:
    timers, kept, gone = Timers(), Execution("kept", GRAPH, b"{}"), Execution("gone", GRAPH, b"{}")
    for execution in (kept, gone):
        timers.add(execution, 0, 10.0)
    timers.forget(gone)

    assert timers.take_due(10.0) == [(kept, 0)]
    assert len(timers) == 0


def test_forgotten_executions_are_not_kept_in_memory_until_they_would_be_due() -> None:
    timers = Timers()
    executions = [Watched(f"e{number}", GRAPH, b"{}") for number in range(100)]
    watched = [weakref.ref(execution) for execution in executions]
    for execution in executions:
        timers.add(execution, 0, 1e9)
        timers.add(execution, 1, 1e9)

    for execution in executions:
        timers.forget(execution)
    del executions, execution
    gc.collect()

    assert len(timers) == 0
    assert [reference for reference in watched if reference() is not None] == []
