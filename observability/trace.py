"""The trace of an execution, made from its stored rows.

Nothing is recorded for it while an execution runs: what a span has to say stands in the rows anyway. So it costs
nothing until somebody asks, it is right when the process that began the execution has died, and every process makes
the same spans with the same ids of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..runtime.core.graph import Graph
from ..runtime.core.history import AttemptTimes, attempt_times
from ..runtime.core.state import WorkflowState
from ..runtime.ports import LoadedExecution
from . import conventions as names


class Link(NamedTuple):
    """A span of the same trace that this one follows from; `why` is "dependency" or "earlier attempt"."""

    span_id: str
    why: str


class Span(NamedTuple):
    """A span. Ids in hexadecimal digits, times in epoch milliseconds; `ended_at` is None while it goes on.

    `error`: what went wrong, None when nothing did.
    """

    span_id: str
    parent_id: str | None
    name: str
    kind: str
    started_at: int
    ended_at: int | None
    attributes: Mapping[str, Any]
    links: Sequence[Link] = ()
    error: str | None = None


class Trace(NamedTuple):
    """The spans of one execution; the first is the execution's own."""

    trace_id: str
    spans: Sequence[Span]


def trace_id_of(execution_id: str) -> str:
    """An execution's id without its hyphens is a trace id, so who knows the one finds the other."""
    return execution_id.replace("-", "")


def span_id_of(*path: object) -> str:
    """The id of what is at a place in an execution: `(execution_id,)`, `(execution_id, node_id, attempt, phase)`."""
    return hashlib.sha256("/".join(map(str, path)).encode()).digest()[:8].hex()


def trace_of(loaded: LoadedExecution, graph: Graph, definition: tuple[str, int]) -> Trace:
    """The trace of an execution as far as it has come. `definition`: its name and version.

    For each attempt that has ended there is a span with two below it: its wait, and its run, which what the handler
    does hangs below. It is linked to the last attempts of its dependencies and to its own earlier attempt.
    """
    record = loaded.record
    name, version = definition
    root = Span(
        span_id_of(record.execution_id),
        None,
        names.EXECUTION_SPAN.format(name=name),
        "SERVER",
        record.created_at if record.started_at is None else record.started_at,
        record.completed_at,
        {
            names.EXECUTION_ID: record.execution_id,
            names.DEFINITION_NAME: name,
            names.DEFINITION_VERSION: version,
            names.EXECUTION_STATE: record.state,
        },
        error=_error_of_execution(record.state, record.error),
    )
    spans = [root]
    last: dict[str, str] = {}
    for times in attempt_times(loaded.attempts, record.started_at, graph):
        made = _spans_of_attempt(record.execution_id, root.span_id, times, graph, last)
        last[times.node_id] = made[0].span_id
        spans += made
    return Trace(trace_id_of(record.execution_id), spans)


def _spans_of_attempt(
    execution_id: str, root_id: str, times: AttemptTimes, graph: Graph, last: Mapping[str, str]
) -> Sequence[Span]:
    node = graph.index_of[times.node_id]
    handler = graph.handlers[node]
    attributes: dict[str, Any] = {
        names.NODE_ID: times.node_id,
        names.NODE_HANDLER: handler,
        names.NODE_ATTEMPT: times.attempt,
        names.NODE_STATE: times.state,
    }
    error = None
    if times.error is not None:
        attributes[names.ERROR_TYPE] = times.error["type"]
        error = str(times.error["message"])
    if times.retry_at is not None:
        attributes[names.RETRY_AT] = times.retry_at
    dependencies = (graph.node_ids[each] for each in graph.dependencies[node])
    links = [Link(last[each], "dependency") for each in dependencies if each in last]
    if times.node_id in last:
        links.append(Link(last[times.node_id], "earlier attempt"))
    place = (execution_id, times.node_id, times.attempt)
    attempt_id = span_id_of(*place)
    whole = Span(
        attempt_id,
        root_id,
        names.ATTEMPT_SPAN.format(node_id=times.node_id),
        "INTERNAL",
        times.queued_at,
        times.finished_at,
        attributes,
        links,
        error,
    )
    began_at = times.finished_at if times.started_at is None else times.started_at
    wait = Span(span_id_of(*place, "queue"), attempt_id, names.QUEUE_SPAN, "PRODUCER", times.queued_at, began_at, {})
    if times.started_at is None:
        return [whole, wait]
    run = Span(
        span_id_of(*place, "run"),
        attempt_id,
        names.RUN_SPAN.format(handler=handler),
        "CONSUMER",
        times.started_at,
        times.finished_at,
        {key: value for key, value in attributes.items() if key in (names.NODE_HANDLER, names.ERROR_TYPE)},
        error=error,
    )
    return [whole, wait, run]


def _error_of_execution(state: WorkflowState, error: str | None) -> str | None:
    if state is not WorkflowState.FAILED or error is None:
        return None
    return str(json.loads(error)["message"])
