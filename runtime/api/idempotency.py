"""`Idempotency-Key`: the same request under the same key is done once, and answered the same each time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence

from aiohttp import web

from ..core.problem import Problem
from ..ports import IdempotencyClaim
from .errors import BadRequest
from .routing import Call

HEADER = "Idempotency-Key"
MAX_KEY_CHARACTERS = 255

_KEY = re.compile(rf"[\x20-\x7e]{{1,{MAX_KEY_CHARACTERS}}}")


def read_key(request: web.Request) -> str | None:
    """The key that a request was sent under. Raises `BadRequest` for one that is not allowed, or two."""
    keys = request.headers.getall(HEADER, ())
    if not keys:
        return None
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        message = f"must be one header of 1 to {MAX_KEY_CHARACTERS} printable ASCII characters"
        raise BadRequest(f"the header {HEADER} is not valid", [Problem(f"header.{HEADER}", message)])
    return keys[0]


def claim_of(route: str, call: Call, body: bytes, now: int) -> IdempotencyClaim | None:
    """The claim of a request with this body, in bytes as they came; None without a key."""
    key = read_key(call.request)
    if key is None:
        return None
    request = call.request
    asked = [sorted(request.match_info.items()), sorted(request.query.items())]
    return make_claim(key, [call.principal.name, route], asked, body, now)


def make_claim(key: str, whose: Sequence[str], asked: object, body: bytes, now: int) -> IdempotencyClaim:
    """A claim. `whose`: the caller and the operation, which never share a key with others; `asked`: what else
    than the body tells this request from another."""
    fingerprint = hashlib.sha256(json.dumps(asked).encode() + b"\n" + body).hexdigest()
    return IdempotencyClaim(json.dumps([*whose, key]), fingerprint, now)
