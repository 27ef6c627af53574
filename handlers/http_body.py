"""Bodies: JSON and text, and reading what a server answers without ever reading more than asked for."""

from __future__ import annotations

import codecs
import json
import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

from ..plugins import PermanentError

if TYPE_CHECKING:
    from aiohttp import ClientResponse

READ_BYTES = 65_536
EXCERPT_READ_BYTES = 2_048
EXCERPT_CHARACTERS = 200

_JSON_TYPE = re.compile(r"(application|text)/json|[^/]+/[^/]+\+json", re.IGNORECASE)

# Python's text codecs that are no character sets. A server could make `punycode` take minutes.
_NOT_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})


async def read_limited(response: ClientResponse, bytes_max: int) -> bytes:
    """Return the whole body, decompressed.

    Raises `PermanentError` (`response_too_large`) as soon as there are more than `bytes_max` bytes of
    it after decompression. The rest is not read: the connection is closed with the response.
    """
    body = bytearray()
    async for chunk in response.content.iter_chunked(READ_BYTES):
        body += chunk
        if len(body) > bytes_max:
            raise PermanentError(f"the response has more than {bytes_max} bytes", error_type="response_too_large")
    return bytes(body)


async def read_excerpt(response: ClientResponse, *, secret: str | None = None) -> str:
    """Return the beginning of the body as one line for an error message, without `secret`.

    Never fails: a body that cannot be read is worth less than the status it came with.
    """
    from aiohttp import ClientError

    body = bytearray()
    with suppress(ClientError):
        while len(body) < EXCERPT_READ_BYTES:
            chunk = await response.content.read(EXCERPT_READ_BYTES - len(body))
            if not chunk:
                break
            body += chunk
    return excerpt(bytes(body), secret=secret)


def excerpt(body: bytes, *, secret: str | None = None) -> str:
    """Return the beginning of `body` as one printable line, without `secret`."""
    text = body.decode(errors="replace")
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    if secret:
        line = line.replace(secret, "[secret]")
    return line if len(line) <= EXCERPT_CHARACTERS else f"{line[:EXCERPT_CHARACTERS]}..."


def is_json_type(content_type: str) -> bool:
    """Say whether a media type, without its parameters, is JSON or built on it (`+json`)."""
    return _JSON_TYPE.fullmatch(content_type) is not None


def parse_json(body: bytes) -> Any:
    """Parse strict JSON; raises `ValueError`, also for NaN, infinities and too deep nesting."""
    try:
        return json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def encode_json(value: Any) -> bytes:
    """Return `value` as JSON in UTF-8; raises `ValueError` for what either cannot hold."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"a number is out of range: {digits[:EXCERPT_CHARACTERS]}")
    return number


def decode_text(body: bytes, charset: str | None) -> str:
    """Decode `body`; bytes that `charset` does not know become U+FFFD, an unknown charset is UTF-8."""
    with suppress(LookupError, ValueError):
        codec = codecs.lookup(charset or "utf-8")
        if codec.name not in _NOT_CHARSETS:
            return body.decode(codec.name, errors="replace")
    return body.decode(errors="replace")


def header_texts(response: ClientResponse) -> dict[str, str]:
    """Return the headers by lower-case name; those that came several times are joined by `, `."""
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        # aiohttp keeps bytes that are not UTF-8 as lone surrogates, which no JSON text can hold.
        text = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        key = name.lower()
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers
