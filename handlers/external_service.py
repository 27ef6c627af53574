"""`call_external_service`: one HTTP request, with its redirects, and its answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..plugins import NodeContext, PermanentError, handler
from .external_service_config import ExternalServiceConfig, scalar_text
from .http_body import (
    decode_text,
    encode_json,
    header_texts,
    is_json_type,
    parse_json,
    read_excerpt,
    read_limited,
)
from .http_failures import network_failures, status_failure
from .http_request import REDIRECT_STATUSES, SAFE_METHODS, Request, has_header, parse_url

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession


@handler("call_external_service", config=ExternalServiceConfig)
async def call_external_service(config: ExternalServiceConfig, context: NodeContext) -> Any:
    """Send one HTTP request and return the answer: `{status_code, url, method, headers, response}`.

    `response` is the parsed body if the server calls it JSON, else text. Requests that may change
    something carry an Idempotency-Key header, which is the same if the same attempt is delivered again.
    """
    request = build_request(config, context.idempotency_key)
    with network_failures(str(request)):
        async with asyncio.timeout(config.timeout_seconds):
            return await _exchange(context.http, request, config)


def build_request(config: ExternalServiceConfig, idempotency_key: str) -> Request:
    """Return the request that `config` describes; raises `PermanentError` if it cannot be encoded."""
    try:
        url = parse_url(config.url).with_fragment(None).extend_query(_query_pairs(config))
        body, content_type = _encoded_body(config)
    except ValueError as error:
        raise PermanentError(f"the request cannot be encoded: {error}", error_type="invalid_request") from None
    headers = {name: scalar_text(value) for name, value in config.headers.items()}
    if body is not None and not has_header(headers, "content-type"):
        headers["Content-Type"] = content_type
    if config.method not in SAFE_METHODS and not has_header(headers, "idempotency-key"):
        headers["Idempotency-Key"] = idempotency_key
    return Request(config.method, url, headers, body)


def _query_pairs(config: ExternalServiceConfig) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in config.query.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        pairs.extend((name, scalar_text(item)) for item in values)
    return pairs


def _encoded_body(config: ExternalServiceConfig) -> tuple[bytes | None, str]:
    """Return the body and its media type; raises `ValueError` for what UTF-8 or JSON cannot hold."""
    if config.sends_json:
        return encode_json(config.json_body), "application/json"
    body = None if config.body is None else config.body.encode()
    return body, "text/plain; charset=utf-8"


async def _exchange(session: ClientSession, request: Request, config: ExternalServiceConfig) -> dict[str, Any]:
    redirects_left = config.max_redirects
    while True:
        async with session.request(
            request.method,
            request.url,
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
        ) as response:
            location = _redirect_location(response, config)
            if location is None:
                return await _answer(response, request, config)
            if redirects_left == 0:
                raise PermanentError(
                    f"{request} redirects once more after {config.max_redirects} redirects",
                    error_type="too_many_redirects",
                )
        redirects_left -= 1
        request = request.redirected(response.status, location)


def _redirect_location(response: ClientResponse, config: ExternalServiceConfig) -> str | None:
    """Return where to go next; None if this answer is the last one, whatever its status."""
    if config.max_redirects == 0 or config.expects(response.status):
        return None
    return response.headers.get("Location") if response.status in REDIRECT_STATUSES else None


async def _answer(response: ClientResponse, request: Request, config: ExternalServiceConfig) -> dict[str, Any]:
    if not config.expects(response.status):
        excerpt = await read_excerpt(response)
        raise status_failure(str(request), response.status, response.headers, excerpt)
    body = await read_limited(response, config.max_response_bytes)
    return {
        "status_code": response.status,
        "url": str(request.url),
        "method": request.method,
        "headers": header_texts(response),
        "response": _parsed(body, response, request),
    }


def _parsed(body: bytes, response: ClientResponse, request: Request) -> Any:
    if not is_json_type(response.content_type):
        return decode_text(body, response.charset)
    if not body:
        # A HEAD or a 204 describes JSON that it does not bring.
        return None
    try:
        return parse_json(body)
    except ValueError as error:
        raise PermanentError(
            f"{request} answered with a body that is not the JSON it claims to be: {error}",
            error_type="response_invalid_json",
        ) from None
