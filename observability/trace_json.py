"""A trace as others read it: OTLP's JSON, and Jaeger's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .conventions import SCOPE, SERVICE_NAME
from .trace import Link, Span, Trace

_KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}
_ERROR = 2
_NANOSECONDS = 1_000_000
_MICROSECONDS = 1_000


def otlp_json(trace: Trace, service: str) -> dict[str, Any]:
    """As the body of `POST /v1/traces` has it (OTLP/HTTP in JSON, 1.x)."""
    spans = [_otlp_span(trace.trace_id, span) for span in trace.spans]
    resource = {"attributes": _otlp_attributes({SERVICE_NAME: service})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": SCOPE}, "spans": spans}]}]}


def jaeger_json(trace: Trace, service: str) -> dict[str, Any]:
    """As Jaeger's page takes it under "Upload"."""
    spans = [_jaeger_span(trace.trace_id, span) for span in trace.spans]
    processes = {"p1": {"serviceName": service, "tags": []}}
    return {"data": [{"traceID": trace.trace_id, "spans": spans, "processes": processes, "warnings": None}]}


def _otlp_span(trace_id: str, span: Span) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "traceId": trace_id,
        "spanId": span.span_id,
        "parentSpanId": span.parent_id or "",
        "name": span.name,
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(span.started_at * _NANOSECONDS),
        "endTimeUnixNano": str((span.ended_at or 0) * _NANOSECONDS),
        "attributes": _otlp_attributes(span.attributes),
        "links": [_otlp_link(trace_id, link) for link in span.links],
        "status": {},
    }
    if span.error is not None:
        shown["status"] = {"code": _ERROR, "message": span.error}
    return shown


def _otlp_link(trace_id: str, link: Link) -> dict[str, Any]:
    return {"traceId": trace_id, "spanId": link.span_id, "attributes": _otlp_attributes({"why": link.why})}


def _otlp_attributes(attributes: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return [{"key": key, "value": _otlp_value(value)} for key, value in attributes.items()]


def _otlp_value(value: object) -> Mapping[str, Any]:
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": str(value)}


def _jaeger_span(trace_id: str, span: Span) -> dict[str, Any]:
    references = [{"refType": "FOLLOWS_FROM", "traceID": trace_id, "spanID": link.span_id} for link in span.links]
    if span.parent_id is not None:
        references.insert(0, {"refType": "CHILD_OF", "traceID": trace_id, "spanID": span.parent_id})
    tags = {**span.attributes, "span.kind": span.kind.lower()}
    if span.error is not None:
        tags |= {"error": True, "otel.status_description": span.error}
    ended_at = span.started_at if span.ended_at is None else span.ended_at
    return {
        "traceID": trace_id,
        "spanID": span.span_id,
        "operationName": span.name,
        "references": references,
        "startTime": span.started_at * _MICROSECONDS,
        "duration": (ended_at - span.started_at) * _MICROSECONDS,
        "tags": [_jaeger_tag(key, value) for key, value in tags.items()],
        "logs": [],
        "processID": "p1",
    }


def _jaeger_tag(key: str, value: object) -> Mapping[str, Any]:
    if isinstance(value, bool):
        return {"key": key, "type": "bool", "value": value}
    if isinstance(value, int):
        return {"key": key, "type": "int64", "value": value}
    return {"key": key, "type": "string", "value": str(value)}
