"""The OpenAPI 3.1 document of the routes, made from what validates their requests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, TypeAdapter

from ..core.problem import Problem
from ..errors import EngineError, Overloaded, PayloadTooLarge, StoreOutcomeUnknown, StoreUnavailable
from .errors import (
    BadRequest,
    CrossSiteRequest,
    Forbidden,
    HostNotAllowed,
    RequestTooSlow,
    Unauthenticated,
    UnsupportedMediaType,
)
from .idempotency import HEADER, MAX_KEY_CHARACTERS
from .models import ProblemDocument
from .problems import PROBLEM_MEDIA_TYPE, problem_document, status_of, title_of
from .routing import JsonBody, LinesBody, Route, Scope

REFERENCE = "#/components/schemas/{model}"
LINES_MEDIA_TYPE = "application/x-ndjson"
SECURITY: Sequence[dict[str, list[str]]] = ({"bearer": []}, {"header": []})

_PATH_PARAMETERS = {
    "execution_id": "the id of an execution",
    "node_id": "the id of a node",
    "name": "the name of a definition, or of a function",
    "key_id": "the id of an API key",
}
_TAGS = {
    "workflows": "Submit a workflow, then trigger it",
    "executions": "Look at executions and cancel them",
    "dead-letters": "Executions that failed and that nobody has dealt with",
    "definitions": "Stored definitions, and starting them by name",
    "functions": "The node types, which may be called by themselves",
    "keys": "API keys",
    "replicas": "How the replicas share the work",
    "plugins": "What plugins have added",
    "health": "How the process is",
    "documentation": "This description",
}
_DESCRIPTION = """\
Submit workflows, start them, follow and cancel them.

A problem is answered as `application/problem+json` (RFC 9457); the last part of its `type` is a code that never
changes. Scopes: `read` < `run` < `admin`, each includes the ones before it.
"""


def describe(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The document of these routes."""
    documented = [route for route in routes if route.documented]
    schemas = _Schemas(documented)
    used = {route.tag for route in documented}
    paths: dict[str, dict[str, Any]] = {}
    for route in documented:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Workflow engine",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": description} for name, description in _TAGS.items() if name in used],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "an API key as a bearer token"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "an API key"},
            },
        },
    }


def errors_of(route: Route) -> Sequence[type[EngineError]]:
    """Every error that a route may answer: what it declares, and what every route of its kind may raise."""
    errors: list[type[EngineError]] = [BadRequest, HostNotAllowed]
    if route.method != "GET":
        errors.append(CrossSiteRequest)
    if route.scope is not Scope.PUBLIC:
        errors += [Unauthenticated, Forbidden, StoreUnavailable]
    if route.counted:
        errors.append(Overloaded)
    if isinstance(route.body, JsonBody):
        errors += [UnsupportedMediaType, PayloadTooLarge, RequestTooSlow]
    elif route.body is not None:
        errors.append(UnsupportedMediaType)
    if route.method == "POST":
        errors.append(StoreOutcomeUnknown)
    return [*errors, *route.errors]


class _Schemas:
    """The schemas of everything that the routes take and answer; shared ones under their names."""

    def __init__(self, routes: Iterable[Route]) -> None:
        models = {(model, mode) for route in routes for model, mode in _models(route)} | {
            (ProblemDocument, "validation")
        }
        # By name, so that the document is the same each time.
        wanted: Any = sorted(models, key=lambda each: (str(each[0]), each[1]))
        adapters: Any = [(each, each[1], TypeAdapter(each[0])) for each in wanted]
        by_key, shared = TypeAdapter.json_schemas(adapters, ref_template=REFERENCE)
        self.definitions: dict[str, Any] = shared.get("$defs", {})
        self._schemas = {key[0]: schema for key, schema in by_key.items()}

    def of(self, model: Any, mode: str) -> dict[str, Any]:
        """The schema of a model: of what is taken (`validation`) or answered (`serialization`)."""
        return self._schemas[(model, mode)]

    def properties(self, model: type[BaseModel]) -> tuple[dict[str, Any], Sequence[str]]:
        """The properties of an object that is taken, and which of them are required."""
        schema = self.of(model, "validation")
        if "$ref" in schema:
            schema = self.definitions[schema["$ref"].rsplit("/", 1)[1]]
        return schema.get("properties", {}), schema.get("required", ())


def _models(route: Route) -> Iterator[tuple[Any, str]]:
    yield route.query, "validation"
    if isinstance(route.body, JsonBody):
        yield route.body.model, "validation"
    elif route.body is not None:
        yield route.body.line, "validation"
    for answer in route.answers.values():
        if answer.model is not None:
            yield answer.model, "serialization"


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "tags": [route.tag],
        "summary": route.summary,
        "description": _sentences(route),
        "parameters": list(_parameters(route, schemas)),
        "responses": {str(status): answer for status, answer in sorted(_responses(route, schemas).items())},
        "security": [] if route.scope is Scope.PUBLIC else list(SECURITY),
        "x-scope": route.scope,
    }
    if route.body is not None:
        operation["requestBody"] = _request_body(route.body, schemas)
    return operation


def _sentences(route: Route) -> str:
    scope = "" if route.scope is Scope.PUBLIC else f"Scope: `{route.scope}`."
    return "\n\n".join(part for part in (route.description, scope) if part)


def _parameters(route: Route, schemas: _Schemas) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PATH_PARAMETERS.get(name, name.replace("_", " ")),
            "schema": {"type": "string", "minLength": 1},
        }
    properties, required = schemas.properties(route.query)
    for name, schema in properties.items():
        shown = {key: value for key, value in schema.items() if key != "description"}
        yield {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": schema.get("description", ""),
            "schema": _without_null(shown),
        }
    if route.idempotent:
        yield {
            "name": HEADER,
            "in": "header",
            "required": False,
            "description": "the same request under the same key is done once, and answered the same each time",
            "schema": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_KEY_CHARACTERS,
                "pattern": "^[!-~]([ -~]*[!-~])?$",
            },
        }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is missing or has a value; it cannot be null."""
    if "anyOf" not in schema:
        return schema
    others = {
        key: value for key, value in schema.items() if key != "anyOf" and not (key == "default" and value is None)
    }
    [only] = [part for part in schema["anyOf"] if part != {"type": "null"}]
    return {**only, **others}


def _request_body(body: JsonBody | LinesBody, schemas: _Schemas) -> dict[str, Any]:
    if isinstance(body, JsonBody):
        content = {"schema": schemas.of(body.model, "validation")}
        if body.example is not None:
            content["example"] = body.example
        return {"required": not body.optional, "content": {"application/json": content}}
    return {"required": True, "content": _lines(schemas.of(body.line, "validation"))}


def _lines(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        LINES_MEDIA_TYPE: {
            "schema": {
                "type": "string",
                "description": "lines, each a JSON text",
                "contentMediaType": "application/json",
                "contentSchema": schema,
            }
        }
    }


def _responses(route: Route, schemas: _Schemas) -> dict[int, dict[str, Any]]:
    responses: dict[int, dict[str, Any]] = {}
    for status, answer in route.answers.items():
        responses[status] = {"description": answer.description}
        if answer.model is not None:
            schema = schemas.of(answer.model, "serialization")
            responses[status]["content"] = _lines(schema) if answer.lines else {"application/json": {"schema": schema}}
        if answer.links:
            responses[status]["links"] = {
                operation: {"operationId": operation, "parameters": {parameter: f"$response.body#/{key}"}}
                for operation, (parameter, key) in answer.links.items()
            }
    by_status: dict[int, list[type[EngineError]]] = {}
    for error in errors_of(route):
        listed = by_status.setdefault(status_of(error), [])
        if error not in listed:
            listed.append(error)
    for status, errors in by_status.items():
        responses[status] = _problem(status, errors, responses.get(status), schemas)
    return responses


def _problem(
    status: int, errors: Sequence[type[EngineError]], answer: dict[str, Any] | None, schemas: _Schemas
) -> dict[str, Any]:
    """The errors of one status as one response, beside the answer that the route itself gives with it."""
    words = "; ".join(f"{title_of(error)} (`{error.code}`)" for error in errors)
    response = answer or {"description": HTTPStatus(status).phrase}
    response["description"] += f": {words}"
    example = problem_document(
        status, errors[0].code, title_of(errors[0]), "what is wrong", [Problem("where", "what and how to mend it")]
    )
    content = response.setdefault("content", {})
    content[PROBLEM_MEDIA_TYPE] = {"schema": schemas.of(ProblemDocument, "validation"), "example": example}
    headers = _headers(status)
    if headers:
        response["headers"] = headers
    return response


def _headers(status: int) -> dict[str, Any]:
    if status == 401:
        return {"WWW-Authenticate": {"description": "how to authenticate", "schema": {"type": "string"}}}
    if status == 503:
        schema = {"type": "integer", "minimum": 0}
        return {"Retry-After": {"description": "seconds to wait before the next try", "schema": schema}}
    return {}
