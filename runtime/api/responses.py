"""JSON answers. Each ends with a line feed, so that a terminal shows one below the other."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web


def json_response(
    status: int, value: object, *, content_type: str = "application/json", headers: Mapping[str, str] | None = None
) -> web.Response:
    """`value` as JSON text."""
    body = json.dumps(value).encode() + b"\n"
    return web.Response(status=status, body=body, content_type=content_type, headers=headers)
