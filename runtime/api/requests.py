"""Bodies, read strictly: bounded in size and in time, and checked before anybody sees them."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from ..core.json_text import InvalidJson, decode
from ..core.limits import MAX_PROBLEMS
from ..core.problem import Problem, show
from ..core.shape import describe_errors
from ..definitions import off_loop
from ..errors import PayloadTooLarge
from .errors import BadRequest, RequestTooSlow, UnsupportedMediaType
from .routing import JsonBody

CHUNK_BYTES = 65_536

Model = TypeVar("Model", bound=BaseModel)


async def read_body(request: web.Request, max_bytes: int, timeout_seconds: float) -> bytes:
    """The whole body.

    Raises `PayloadTooLarge` before reading more than `max_bytes`, `RequestTooSlow`, and `BadRequest` for
    one that is not encoded as it says.
    """
    if request.content_length is not None and request.content_length > max_bytes:
        raise PayloadTooLarge(f"the body has {request.content_length} bytes; at most {max_bytes} are allowed")
    try:
        if request.content.is_eof():  # all of it has come, as with nearly every request
            whole = request.content.read_nowait()
            _check_size(whole, max_bytes)
            return whole
        async with asyncio.timeout(timeout_seconds):
            body = bytearray()
            async for chunk in request.content.iter_chunked(CHUNK_BYTES):
                body += chunk
                _check_size(body, max_bytes)
            return bytes(body)
    except TimeoutError:
        raise RequestTooSlow(f"the body has not come within {timeout_seconds:g} seconds") from None
    except web.RequestPayloadError:
        raise BadRequest("the body is not encoded as its Content-Encoding or Transfer-Encoding says") from None


def _check_size(body: bytes | bytearray, max_bytes: int) -> None:
    if len(body) > max_bytes:
        raise PayloadTooLarge(f"the body is larger than the {max_bytes} bytes allowed")


async def parse_body(request: web.Request, text: bytes, declared: JsonBody) -> Any:
    """A body's text as its route declares it. Raises `UnsupportedMediaType`, and `BadRequest` with every problem."""
    if not text and declared.optional:
        value: Any = {}
    else:
        check_media_type(request, "application/json")
        if not text:
            raise BadRequest("the body is empty; send a JSON object")
        value = await decode_json(text)
    return value if declared.engine_checks else validate(_bounded(value, declared.model), declared.model)


async def decode_json(text: bytes) -> Any:
    """A strict JSON text's value. Raises `BadRequest` saying where it is not one."""
    try:
        return await off_loop(len(text), lambda: decode(text))
    except InvalidJson as error:
        raise BadRequest("the body is not valid JSON", [Problem("$", str(error))]) from None


def validate(value: Any, model: type[Model]) -> Model:
    """A decoded body as `model`. Raises `BadRequest` with every problem."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise BadRequest("the body is not valid", describe_errors(error, model)) from None


def _bounded(value: Any, model: type[BaseModel]) -> Any:
    """A body with no more unknown keys than are reported: pydantic takes its time for each, and stops for none."""
    if not isinstance(value, dict) or len(value) <= MAX_PROBLEMS:
        return value
    unknown = islice((key for key in value if key not in model.model_fields), MAX_PROBLEMS)
    return {key: value[key] for key in value if key in model.model_fields} | dict.fromkeys(unknown)


def check_media_type(request: web.Request, wanted: str) -> None:
    """Raise `UnsupportedMediaType` unless the body says that it is of this type."""
    if request.content_type != wanted:
        raise UnsupportedMediaType(f"send {wanted}, not {show(request.content_type)}")
