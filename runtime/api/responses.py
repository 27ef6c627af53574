"""JSON answers. Each ends with a line feed, so that a terminal shows one below the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

SERVER_NAME = "workflow-engine"
# What every answer's header says unless the answer says otherwise.
DEFAULT_HEADERS: Mapping[str, str] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def json_response(
    status: int, value: object, *, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> web.Response:
    """`value` as JSON text."""
    return bytes_response(status, json.dumps(value).encode() + b"\n", content_type=content_type, headers=headers)


def bytes_response(
    status: int, body: bytes, *, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> web.Response:
    """A body as it is."""
    return web.Response(status=status, body=body, content_type=content_type, headers=headers)


async def add_default_headers(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Before an answer is sent: what it does not say for itself."""
    headers: Any = response.headers
    # aiohttp would tell its version and Python's.
    headers["Server"] = SERVER_NAME
    for name, value in DEFAULT_HEADERS.items():
        headers.setdefault(name, value)
