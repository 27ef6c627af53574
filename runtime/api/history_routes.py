"""What has happened to an execution: its history, its timeline, its trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice

from aiohttp import web

from ...observability.trace import trace_of
from ...observability.trace_json import jaeger_json, otlp_json
from ..core.history import AttemptTimes, Event, attempt_times, events_of
from ..definitions import off_loop
from ..engine import Engine, ExecutionHistory
from ..errors import ExecutionNotFound
from . import models
from .bodies import HistoryQuery, TraceQuery
from .responses import bytes_response, json_response
from .routing import Answer, Call, Route, Scope
from .values import format_moment

BYTES_OF_AN_ATTEMPT = 2_000
"""What the spans of one come to, about."""


class HistoryRoutes:
    """What is under `/v1/workflows/{execution_id}` of the past."""

    def __init__(self, engine: Engine, service: str) -> None:
        """`service`: the name that traces carry."""
        self._engine = engine
        self._service = service

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [
            Route(
                method="GET",
                path="/v1/workflows/{execution_id}/history",
                scope=Scope.READ,
                operation="history",
                handler=self.history,
                tag="executions",
                summary="What has happened, in order",
                description="Made from what is stored: what runs now is there when it has ended. `next_cursor` leads "
                "to the next page.",
                query=HistoryQuery,
                answers={200: Answer(description="a page", model=models.EventPage)},
                errors=(ExecutionNotFound,),
            ),
            Route(
                method="GET",
                path="/v1/workflows/{execution_id}/timeline",
                scope=Scope.READ,
                operation="timeline",
                handler=self.timeline,
                tag="executions",
                summary="When each attempt could start, did start, and ended",
                description="Attempts that have ended, in the order of their ends. `next_cursor` leads to the next "
                "page.",
                query=HistoryQuery,
                answers={200: Answer(description="a page", model=models.TimelinePage)},
                errors=(ExecutionNotFound,),
            ),
            Route(
                method="GET",
                path="/v1/workflows/{execution_id}/trace",
                scope=Scope.READ,
                operation="trace",
                handler=self.trace,
                tag="executions",
                summary="The OpenTelemetry trace",
                description="The execution's span, and for each attempt that has ended its wait and its run. The "
                "trace's id is the execution's without hyphens.",
                query=TraceQuery,
                answers={200: Answer(description="the spans", model=models.TraceDocument)},
                errors=(ExecutionNotFound,),
            ),
        ]

    async def history(self, call: Call) -> web.Response:
        """A page of events."""
        query: HistoryQuery = call.query
        seen = await self._engine.history(call.path("execution_id"))
        record, attempts, commands, _ = seen.loaded
        events = events_of(record, attempts, commands, seen.graph)
        return json_response(
            200, _page([_event(each) for each in events[query.first : query.last]], len(events), query)
        )

    async def timeline(self, call: Call) -> web.Response:
        """A page of attempts."""
        query: HistoryQuery = call.query
        seen = await self._engine.history(call.path("execution_id"))
        times = attempt_times(seen.loaded.attempts, seen.loaded.record.started_at, seen.graph)
        shown = [_attempt(each) for each in islice(times, query.first, query.last)]
        return json_response(200, _page(shown, len(times), query))

    async def trace(self, call: Call) -> web.Response:
        """The trace as a document."""
        query: TraceQuery = call.query
        seen = await self._engine.history(call.path("execution_id"))
        size_bytes = len(seen.loaded.attempts) * BYTES_OF_AN_ATTEMPT
        return bytes_response(200, await off_loop(size_bytes, lambda: self._trace_text(seen, query.format)))

    def _trace_text(self, seen: ExecutionHistory, form: str) -> bytes:
        trace = trace_of(seen.loaded, seen.graph, (seen.name, seen.version))
        document = jaeger_json(trace, self._service) if form == "jaeger" else otlp_json(trace, self._service)
        return json.dumps(document).encode() + b"\n"


def _page(items: Sequence[object], count: int, query: HistoryQuery) -> dict[str, object]:
    return {"items": items, "next_cursor": str(query.last) if query.last < count else None}


def _event(event: Event) -> dict[str, object]:
    details = dict(event.details)
    if "retry_at" in details:
        details["retry_at"] = format_moment(details["retry_at"])
    shown: dict[str, object] = {"at": format_moment(event.at), "event": event.kind}
    if event.node_id is not None:
        shown |= {"node_id": event.node_id, "attempt": event.attempt}
    return {**shown, "details": details}


def _attempt(times: AttemptTimes) -> dict[str, object]:
    return {
        "node_id": times.node_id,
        "attempt": times.attempt,
        "state": times.state,
        "queued_at": format_moment(times.queued_at),
        "started_at": format_moment(times.started_at),
        "finished_at": format_moment(times.finished_at),
        "retry_at": format_moment(times.retry_at),
        "error": times.error,
    }
