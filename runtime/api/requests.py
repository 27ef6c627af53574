"""What comes in: bodies and query parameters, parsed strictly."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..core.json_text import InvalidJson, decode
from ..core.problem import Problem, did_you_mean, show
from ..core.shape import describe_errors
from ..errors import PayloadTooLarge
from .problems import BadRequest, UnsupportedMediaType

MAX_WAIT_SECONDS = 300.0

Model = TypeVar("Model", bound=BaseModel)


class TriggerRequest(BaseModel):
    """The body of a trigger."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input_params: dict[str, Any] = Field(default_factory=dict, description="the workflow's input parameters")


async def read_json(request: web.Request, max_bytes: int, *, optional: bool = False) -> Any:
    """The body's JSON value; `{}` for a missing body where that is allowed.

    Raises `PayloadTooLarge` before reading more than `max_bytes`, `UnsupportedMediaType`, `BadRequest`.
    """
    if request.content_length is not None and request.content_length > max_bytes:
        raise PayloadTooLarge(f"the body has {request.content_length} bytes; at most {max_bytes} are allowed")
    body = await _read_body(request, max_bytes)
    if not body and optional:
        return {}
    if request.content_type != "application/json":
        raise UnsupportedMediaType(f"send application/json, not {show(request.content_type)}")
    if not body:
        raise BadRequest("the body is empty; send a JSON object")
    try:
        return decode(body)
    except InvalidJson as error:
        raise BadRequest("the body is not valid JSON", [Problem("$", str(error))]) from None


async def _read_body(request: web.Request, max_bytes: int) -> bytes:
    body = bytearray()
    try:
        async for chunk in request.content.iter_chunked(65_536):
            body += chunk
            if len(body) > max_bytes:
                raise PayloadTooLarge(f"the body is larger than the {max_bytes} bytes allowed")
    except web.RequestPayloadError:
        raise BadRequest("the body is not encoded as its Content-Encoding or Transfer-Encoding says") from None
    return bytes(body)


def parse_body(value: Any, model: type[Model]) -> Model:
    """The body as `model`. Raises `BadRequest` with every problem."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise BadRequest("the body is not valid", describe_errors(error, model)) from None


def check_query(request: web.Request, known: Collection[str]) -> None:
    """Raise `BadRequest` for a query parameter that the route does not know, or that stands twice."""
    problems = []
    for name in dict.fromkeys(request.query):
        if name not in known:
            allowed = f"; this route knows {', '.join(known)}" if known else "; this route takes none"
            problems.append(Problem(f"query.{name[:100]}", f"unknown{did_you_mean(name, known) or allowed}"))
        elif len(request.query.getall(name)) > 1:
            problems.append(Problem(f"query.{name}", "stands twice"))
    if problems:
        raise BadRequest("the query is not valid", problems)


def wait_seconds(request: web.Request) -> float:
    """The `wait` query parameter, in seconds; 0 when missing."""
    text = request.query.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise BadRequest(
            "the query is not valid",
            [Problem("query.wait", f"must be seconds from 0 to {MAX_WAIT_SECONDS:g}, got {show(text)}")],
        )
    return seconds
