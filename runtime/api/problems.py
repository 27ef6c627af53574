"""Errors as problem details (RFC 9457): `{"type", "title", "status", "detail", "errors": [{"path", "message"}]}`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from ...observability.rare_log import RareLog
from ..core.problem import Problem
from ..errors import (
    BackendError,
    CallerError,
    DeadLetterNotFound,
    DefinitionNotFound,
    EngineError,
    ExecutionConflict,
    ExecutionNotFound,
    FunctionNotFound,
    IdempotencyConflict,
    InvalidDefinition,
    InvalidInput,
    NodeNotFound,
    NotAccepting,
    Overloaded,
    PayloadTooLarge,
)
from .errors import FunctionFailed, RequestRefused
from .responses import json_response

log = logging.getLogger(__name__)

PROBLEM_TYPE_PREFIX = "urn:workflow-engine:problem:"
PROBLEM_MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

# The first class that an error is an instance of decides its status.
_STATUS: Sequence[tuple[type[EngineError], int]] = (
    (InvalidDefinition, 422),
    (InvalidInput, 422),
    (PayloadTooLarge, 413),
    (ExecutionNotFound, 404),
    (FunctionNotFound, 404),
    (NodeNotFound, 404),
    (DefinitionNotFound, 404),
    (DeadLetterNotFound, 404),
    (ExecutionConflict, 409),
    (IdempotencyConflict, 409),
    (BackendError, 503),
    (CallerError, 400),
    (EngineError, 500),
)
# Refusals that are no fault of anything: they happen at every restart and under every load.
_EXPECTED = (NotAccepting, Overloaded)

TITLES = {
    400: "The request is not valid",
    404: "There is nothing at this address",
    405: "Wrong method",
    500: "The engine has a fault",
}
_HTTP_DETAILS = {
    404: "no route has this path; those of the API are shown at its /docs",
    405: "the route at this path takes other methods; the Allow header names them",
}


def status_of(kind: type[EngineError]) -> int:
    """The status of the answer to an error of this class."""
    if issubclass(kind, RequestRefused):
        return kind.status
    return next(status for base, status in _STATUS if issubclass(kind, base))


def title_of(kind: type[EngineError]) -> str:
    """An error's title: the docstring of its class."""
    return (kind.__doc__ or "").strip().splitlines()[0]


def problem_document(status: int, code: str, title: str, detail: str, problems: Sequence[Problem] = ()) -> Any:
    """A problem as JSON."""
    body: dict[str, object] = {
        "type": PROBLEM_TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
    }
    if problems:
        body["errors"] = [{"path": problem.path, "message": problem.message} for problem in problems]
    return body


def error_document(error: EngineError) -> Any:
    """An error as a problem."""
    kind = type(error)
    document = problem_document(status_of(kind), error.code, title_of(kind), str(error), error.problems)
    if isinstance(error, FunctionFailed):
        document |= {"execution_id": error.execution_id, "error": error.error}
    return document


def problem_response(document: Any, headers: Mapping[str, str] | None = None) -> web.Response:
    """A problem as a response."""
    status = document["status"]
    if status == 503:
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS), **(headers or {})}
    return json_response(status, document, content_type=PROBLEM_MEDIA_TYPE, headers=headers)


def error_response(error: EngineError, rare_log: RareLog) -> web.Response:
    """An error as a response. What is the engine's fault, or its store's, is logged."""
    document = error_document(error)
    if document["status"] >= 500 and not isinstance(error, _EXPECTED):
        rare_log.write(logging.ERROR, error.code, f"request refused: {error}")
    return problem_response(document, error.headers if isinstance(error, RequestRefused) else None)


def http_error_response(error: web.HTTPException) -> web.Response:
    """What aiohttp raises (404 and 405 above all) as a problem."""
    code = (error.reason or "error").lower().replace(" ", "-")
    title = TITLES.get(error.status, error.reason)
    allow = {"Allow": error.headers["Allow"]} if error.status == 405 else None
    detail = _HTTP_DETAILS.get(error.status, error.text or error.reason)
    return problem_response(problem_document(error.status, code, title, detail), allow)


def problems_middleware(*, show_faults: bool) -> Any:
    """A middleware that turns whatever a route raises into a problem.

    `show_faults`: the answer to a fault of the engine names the exception; the log always does.
    """
    rare_log = RareLog(log)

    @web.middleware
    async def middleware(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except EngineError as error:
            return error_response(error, rare_log)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            return http_error_response(error)
        except ConnectionError:
            raise  # the client has gone; nobody is there to answer
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            detail = "the request could not be served; the log says why"
            if show_faults:
                detail = f"{detail} ({type(error).__name__}: {error})"
            return problem_response(problem_document(500, "internal-error", TITLES[500], detail))

    return middleware
