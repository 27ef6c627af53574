"""Every endpoint, from the OpenAPI document that the API serves: its routes, its models, its problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from workflow_engine import __version__
from workflow_engine.runtime.api.app import build_routes
from workflow_engine.runtime.api.openapi import describe, errors_of
from workflow_engine.runtime.api.options import ApiOptions
from workflow_engine.runtime.api.problems import status_of
from workflow_engine.runtime.api.routing import Route

from .markdown import anchor, code, table
from .models import linked_type, schema_table


class Endpoint(NamedTuple):
    """One operation: its route and what OpenAPI says of it."""

    route: Route
    operation: Mapping[str, Any]


@cache
def routes() -> Sequence[Route]:
    """Every route that is documented. Nothing is behind them: they are only looked at."""
    nothing: Any = None
    everything = build_routes(
        nothing, health=nothing, clock=nothing, version=__version__, options=ApiOptions(), keys=nothing
    )
    return [route for route in everything if route.documented]


@cache
def document() -> Mapping[str, Any]:
    """The OpenAPI document."""
    return describe(routes(), __version__)


def endpoints() -> list[Endpoint]:
    """Every endpoint, in the order of the document."""
    return [Endpoint(route, document()["paths"][route.path][route.method.lower()]) for route in routes()]


def render() -> str:
    """An overview, a section for each endpoint by tag, and the objects that they speak of."""
    parts = [_overview()]
    for tag in document()["tags"]:
        of_tag = [each for each in endpoints() if tag["name"] in each.operation["tags"]]
        if of_tag:
            parts.append(f"## {tag['description']}")
            parts += map(_section, of_tag)
    parts.append("## Objects")
    parts += [_object(name, schema) for name, schema in sorted(document()["components"]["schemas"].items())]
    return "\n\n".join(parts)


def _overview() -> str:
    rows = [
        (
            each.route.method,
            f"[{code(each.route.path)}](#endpoint-{each.route.operation})",
            str(each.route.scope),
            each.operation["summary"],
        )
        for each in endpoints()
    ]
    return table(("method", "path", "scope", "what it does"), rows)


def _section(endpoint: Endpoint) -> str:
    route, operation = endpoint
    parts = [anchor(f"endpoint-{route.operation}"), f"### {route.method} {route.path}", f"{operation['summary']}."]
    parts += [route.description] * bool(route.description)
    parts.append(f"Scope: {code(route.scope)}.")
    parameters = operation["parameters"]
    if parameters:
        head = ("parameter", "in", "type", "meaning")
        parts.append(table(head, [_parameter(each) for each in parameters]))
    parts += _body(operation)
    parts += ["Answers:", table(("status", "body", "meaning"), _answers(endpoint))]
    parts.append("Problems: " + "; ".join(_problem_links(route)) + ".")
    return "\n\n".join(parts)


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str, str]:
    schema = parameter["schema"]
    bounds = [f"{word} {schema[key]:g}" for key, word in _BOUNDS.items() if key in schema]
    default = [f"{code(schema['default'])} unless given"] if schema.get("default") not in (None, []) else []
    meaning = "; ".join([*filter(None, [parameter["description"]]), *bounds, *default])
    return code(parameter["name"]), parameter["in"], _linked(schema), meaning


_BOUNDS = {"minimum": "at least", "maximum": "at most"}


def _body(operation: Mapping[str, Any]) -> Iterator[str]:
    body = operation.get("requestBody")
    if body is not None:
        optional = "" if body["required"] else " It may be left out."
        yield f"Body: {_content(body['content'])}.{optional}"


def _content(content: Mapping[str, Any]) -> str:
    return " or ".join(f"{code(kind)} ({_content_type(each['schema'])})" for kind, each in content.items())


def _content_type(schema: Mapping[str, Any]) -> str:
    if "contentSchema" in schema:
        return f"lines of {_linked(schema['contentSchema'])}"
    return _linked(schema)


def _linked(schema: Mapping[str, Any]) -> str:
    return linked_type(schema, "object-")


def _answers(endpoint: Endpoint) -> Iterator[tuple[str, str, str]]:
    for status, answer in sorted(endpoint.route.answers.items()):
        content = endpoint.operation["responses"][str(status)].get("content", {})
        own = {kind: each for kind, each in content.items() if kind != "application/problem+json"}
        yield str(status), _content(own) if own else "", answer.description


def _problem_links(route: Route) -> Iterator[str]:
    by_status: dict[int, set[str]] = {}
    for kind in errors_of(route):
        by_status.setdefault(status_of(kind), set()).add(kind.code)
    for status, codes in sorted(by_status.items()):
        yield f"{status} " + ", ".join(f"[{each}](problems.md#problem-{each})" for each in sorted(codes))


def _object(name: str, schema: Mapping[str, Any]) -> str:
    parts = [anchor(f"object-{name}"), f"### {name}"]
    parts += [str(schema["description"])] * ("description" in schema)
    if "enum" in schema:
        parts.append(", ".join(map(code, schema["enum"])))
    elif schema.get("properties"):
        parts.append(schema_table(schema, _linked))
    return "\n\n".join(parts)
