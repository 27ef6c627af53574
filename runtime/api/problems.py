"""Errors as problem details (RFC 9457): `{"type", "title", "status", "detail", "errors": [{"path", "message"}]}`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web

from ..core.problem import Problem
from ..errors import (
    BackendError,
    CallerError,
    EngineError,
    ExecutionConflict,
    ExecutionNotFound,
    InvalidDefinition,
    InvalidInput,
    PayloadTooLarge,
)
from .responses import json_response

log = logging.getLogger(__name__)

PROBLEM_TYPE_PREFIX = "urn:workflow-engine:problem:"
RETRY_AFTER_SECONDS = 1

# The first class that an error is an instance of decides its status.
_STATUS: Sequence[tuple[type[EngineError], int]] = (
    (InvalidDefinition, 422),
    (InvalidInput, 422),
    (PayloadTooLarge, 413),
    (ExecutionNotFound, 404),
    (ExecutionConflict, 409),
    (BackendError, 503),
    (CallerError, 400),
    (EngineError, 500),
)

_TITLES = {400: "The request is not valid", 404: "There is nothing at this address", 405: "Wrong method"}


class BadRequest(CallerError):
    """The request is not valid"""

    code = "bad-request"

    def __init__(self, detail: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.problems = tuple(problems)


class UnsupportedMediaType(CallerError):
    """The body is not of a supported media type"""

    code = "unsupported-media-type"


def problem_response(status: int, code: str, title: str, detail: str, problems: Sequence[Problem] = ()) -> web.Response:
    """A problem document as a response."""
    body: dict[str, object] = {
        "type": PROBLEM_TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
    }
    if problems:
        body["errors"] = [{"path": problem.path, "message": problem.message} for problem in problems]
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else None
    return json_response(status, body, content_type="application/problem+json", headers=headers)


@web.middleware
async def problems_middleware(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn whatever a route raises into a problem document."""
    try:
        return await handler(request)
    except EngineError as error:
        return _from_engine_error(error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = (error.reason or "error").lower().replace(" ", "-")
        response = problem_response(
            error.status, code, _TITLES.get(error.status, error.reason), error.text or error.reason
        )
        if error.status == 405:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return problem_response(
            500, "internal-error", "The engine has a fault", "the request could not be served; the log says why"
        )


def _from_engine_error(error: EngineError) -> web.Response:
    status = (
        415 if isinstance(error, UnsupportedMediaType) else next(s for kind, s in _STATUS if isinstance(error, kind))
    )
    if status >= 500:
        log.error("request refused: %s", error)
    title = (type(error).__doc__ or "").strip()
    return problem_response(status, error.code, title, str(error), error.problems)
