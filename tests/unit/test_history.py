"""Histories and traces are told from rows alone: in an order in which causes come first, with the right parents."""

from __future__ import annotations

from collections import Counter

import pytest

from workflow_engine.observability.trace import Span, span_id_of, trace_of
from workflow_engine.observability.trace_json import jaeger_json, otlp_json
from workflow_engine.runtime.core.graph import Graph, NodeDefaults, compile_graph
from workflow_engine.runtime.core.history import EventKind, attempt_times, events_of
from workflow_engine.runtime.core.machine import AttemptRow
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.ports import CommandRecord, ExecutionRecord, LoadedExecution

ID = "01890a5d-ac96-774b-bcce-b302099a8057"
TRACE_ID = "01890a5dac96774bbcceb302099a8057"
ERROR = '{"type": "timeout", "message": "took longer", "node_id": "b", "attempt": 1}'


@pytest.fixture
def graph() -> Graph:
    """A diamond: a, then b and c, then d."""
    nodes = [
        {"id": "a", "handler": "input"},
        {"id": "b", "handler": "work", "dependencies": ["a"]},
        {"id": "c", "handler": "work", "dependencies": ["a"]},
        {"id": "d", "handler": "output", "dependencies": ["b", "c"]},
    ]
    defaults = NodeDefaults(RetryPolicy(3, 1.0, 60.0, 2.0, True), lambda _handler: 30.0)
    return compile_graph({"name": "x", "dag": {"nodes": nodes}}, defaults)


def row(
    sequence: int,
    node_id: str,
    started_at: int | None,
    finished_at: int,
    *,
    attempt: int = 1,
    state: NodeState = NodeState.COMPLETED,
    error: str | None = None,
    retry_at: int | None = None,
) -> AttemptRow:
    return AttemptRow(ID, sequence, node_id, attempt, state, None, error, started_at, finished_at, retry_at)


ATTEMPTS = (
    row(1, "a", 100, 110),
    row(2, "c", 112, 150),
    row(3, "b", 115, 160, state=NodeState.FAILED, error=ERROR, retry_at=1160),
    row(4, "b", 1170, 1200, attempt=2),
    row(5, "d", 1200, 1201),
)


def loaded(
    *attempts: AttemptRow, state: WorkflowState = WorkflowState.COMPLETED, error: str | None = None
) -> LoadedExecution:
    ended = None if state is WorkflowState.RUNNING else 1201
    record = ExecutionRecord(ID, "def", 0, state, b"{}", error, 90, 95, ended, None)
    return LoadedExecution(record, attempts, ())


def test_an_attempt_is_queued_when_the_last_of_what_it_waits_for_is_there(graph: Graph) -> None:
    times = attempt_times(ATTEMPTS, 95, graph)
    assert [(each.node_id, each.attempt, each.queued_at) for each in times] == [
        ("a", 1, 95),
        ("c", 1, 110),
        ("b", 1, 110),
        ("b", 2, 1160),
        ("d", 1, 1200),
    ]


def test_clocks_that_differ_make_no_negative_wait(graph: Graph) -> None:
    times = attempt_times([row(1, "a", 100, 110), row(2, "b", 104, 120)], 95, graph)
    assert times[1].queued_at == times[1].started_at == 104


def test_events_come_by_time_and_causes_before_what_they_cause(graph: Graph) -> None:
    seen = loaded(*ATTEMPTS)
    cancel = CommandRecord(1, ID, 1300, True, None)
    events = events_of(seen.record, seen.attempts, [cancel], graph)
    assert [(each.at, each.kind, each.node_id, each.attempt) for each in events] == [
        (90, EventKind.CREATED, None, None),
        (95, EventKind.STARTED, None, None),
        (95, EventKind.QUEUED, "a", 1),
        (100, EventKind.ATTEMPT_STARTED, "a", 1),
        (110, EventKind.COMPLETED, "a", 1),
        (110, EventKind.QUEUED, "c", 1),
        (110, EventKind.QUEUED, "b", 1),
        (112, EventKind.ATTEMPT_STARTED, "c", 1),
        (115, EventKind.ATTEMPT_STARTED, "b", 1),
        (150, EventKind.COMPLETED, "c", 1),
        (160, EventKind.FAILED, "b", 1),
        (160, EventKind.RETRY, "b", 1),
        (1160, EventKind.QUEUED, "b", 2),
        (1170, EventKind.ATTEMPT_STARTED, "b", 2),
        (1200, EventKind.COMPLETED, "b", 2),
        (1200, EventKind.QUEUED, "d", 1),
        (1200, EventKind.ATTEMPT_STARTED, "d", 1),
        (1201, EventKind.COMPLETED, "d", 1),
        (1201, EventKind.ENDED, None, None),
        (1300, EventKind.CANCEL_REQUESTED, None, None),
    ]
    assert events[-1].details == {"effective": False}
    assert events[-2].details == {"state": "COMPLETED"}
    assert events[10].details["error"]["type"] == "timeout"
    assert events[11].details == {"retry_at": 1160}


def test_an_execution_that_was_never_triggered_has_begun_to_be(graph: Graph) -> None:
    record = ExecutionRecord(ID, "def", 0, WorkflowState.PENDING, None, None, 90, None, None, None)
    assert [each.kind for each in events_of(record, (), (), graph)] == [EventKind.CREATED]
    assert len(trace_of(LoadedExecution(record, (), ()), graph, ("x", 1)).spans) == 1


def by_name(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def test_a_trace_has_a_span_for_each_attempt_with_its_wait_and_its_run(graph: Graph) -> None:
    trace = trace_of(loaded(*ATTEMPTS), graph, ("x", 3))
    assert trace.trace_id == TRACE_ID
    spans = list(trace.spans)
    root = spans[0]
    assert (root.name, root.parent_id, root.started_at, root.ended_at) == ("workflow x", None, 95, 1201)
    assert root.attributes["workflow.definition.version"] == 3
    assert len({span.span_id for span in spans}) == len(spans) == 1 + 3 * len(ATTEMPTS)
    assert Counter(span.parent_id == root.span_id for span in spans[1:]) == {True: 5, False: 10}
    failed, again = by_name(spans, "node b")
    assert (failed.error, failed.attributes["error.type"]) == ("took longer", "timeout")
    assert [(link.span_id, link.why) for link in again.links] == [
        (by_name(spans, "node a")[0].span_id, "dependency"),
        (failed.span_id, "earlier attempt"),
    ]
    [join] = by_name(spans, "node d")
    assert {link.span_id for link in join.links} == {again.span_id, by_name(spans, "node c")[0].span_id}
    below = [span for span in spans if span.parent_id == again.span_id]
    assert [(span.name, span.started_at, span.ended_at) for span in below] == [
        ("queue", 1160, 1170),
        ("run work", 1170, 1200),
    ]


def test_who_makes_it_makes_the_same(graph: Graph) -> None:
    assert trace_of(loaded(*ATTEMPTS), graph, ("x", 1)) == trace_of(loaded(*ATTEMPTS), graph, ("x", 1))
    assert span_id_of(ID, "a", 1) != span_id_of(ID, "a", 11)


def test_what_ended_before_it_began_has_waited_only(graph: Graph) -> None:
    cancelled = row(2, "b", None, 130, state=NodeState.CANCELLED)
    trace = trace_of(loaded(row(1, "a", 100, 110), cancelled, state=WorkflowState.CANCELLED), graph, ("x", 1))
    assert [span.name for span in trace.spans[-2:]] == ["node b", "queue"]


def test_an_execution_that_runs_has_a_span_without_an_end(graph: Graph) -> None:
    trace = trace_of(loaded(row(1, "a", 100, 110), state=WorkflowState.RUNNING), graph, ("x", 1))
    assert trace.spans[0].ended_at is None
    [span, *_] = otlp_json(trace, "engine")["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert span["endTimeUnixNano"] == "0"
    assert jaeger_json(trace, "engine")["data"][0]["spans"][0]["duration"] == 0


def test_as_otlp_and_as_jaeger_have_it(graph: Graph) -> None:
    trace = trace_of(loaded(*ATTEMPTS, state=WorkflowState.FAILED, error=ERROR), graph, ("x", 1))
    [resource] = otlp_json(trace, "engine")["resourceSpans"]
    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "engine"}}]
    root, first, *_ = resource["scopeSpans"][0]["spans"]
    assert root["status"] == {"code": 2, "message": "took longer"}
    assert (root["kind"], root["parentSpanId"], root["startTimeUnixNano"]) == (2, "", "95000000")
    assert first["parentSpanId"] == root["spanId"]
    assert {"key": "workflow.node.attempt", "value": {"intValue": "1"}} in first["attributes"]
    [document] = jaeger_json(trace, "engine")["data"]
    spans = {span["spanID"]: span for span in document["spans"]}
    assert spans[root["spanId"]]["duration"] == 1_106_000
    again = span_id_of(ID, "b", 2)
    assert [each["refType"] for each in spans[again]["references"]] == ["CHILD_OF", "FOLLOWS_FROM", "FOLLOWS_FROM"]
    assert {"key": "error", "type": "bool", "value": True} in spans[root["spanId"]]["tags"]
