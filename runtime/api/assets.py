"""The files of the API's pages, from the package itself: no other server is asked for anything."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from aiohttp import web

FOR_EVER = "public, max-age=31536000, immutable"
ASK_EACH_TIME = "no-cache"

_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".png": "image/png",
}
_REFERENCE = re.compile(r"asset:([a-z.-]+)")


class Asset:
    """A file in two encodings. `digest` tells its content from every other."""

    def __init__(self, name: str, packed: bytes, cache_control: str, headers: Mapping[str, str] | None = None) -> None:
        """`packed`: the content, in gzip; `headers`: what its answer's header says besides."""
        self._packed = packed
        self._media_type = _MEDIA_TYPES[name[name.rindex(".") :]]
        self.digest = hashlib.sha256(packed).hexdigest()[:16]
        self._headers = {"Cache-Control": cache_control, "Vary": "Accept-Encoding", **(headers or {})}

    def response(self, request: web.Request) -> web.Response:
        """The file, in the encoding that the client takes; 304 when the client has it already."""
        takes_packed = "gzip" in request.headers.get("Accept-Encoding", "")
        etag = f'"{self.digest}-gzip"' if takes_packed else f'"{self.digest}"'
        headers = {"ETag": etag, **self._headers}
        if etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        body = self._packed
        if takes_packed:
            headers["Content-Encoding"] = "gzip"
        else:
            body = gzip.decompress(body)
        return web.Response(body=body, content_type=self._media_type, charset=self._charset, headers=headers)

    @property
    def _charset(self) -> str | None:
        return "utf-8" if self._media_type.startswith("text/") else None


@cache
def assets() -> Mapping[str, Asset]:
    """What pages refer to, by name. An address holds the content's digest, so it may be kept for ever."""
    found = {}
    for file in (resources.files(__package__) / "static").iterdir():
        name = file.name.removesuffix(".gz")
        if name.endswith((".js", ".css", ".png")):
            content = file.read_bytes()
            found[name] = Asset(name, content if file.name != name else _pack(content), FOR_EVER)
    return found


def page(name: str, headers: Mapping[str, str]) -> Asset:
    """A page of `static/`, with the addresses of what it refers to."""
    text = (resources.files(__package__) / "static" / name).read_text("utf-8")
    text = _REFERENCE.sub(lambda match: asset_path(match[1]), text)
    return Asset(name, _pack(text.encode()), ASK_EACH_TIME, headers)


def asset_path(name: str) -> str:
    """The address of an asset, as seen from a page: so it holds behind a proxy that adds to paths, too."""
    return f"docs/assets/{assets()[name].digest}/{name}"


def json_asset(text: bytes) -> Asset:
    """A JSON document that seldom changes."""
    return Asset("document.json", _pack(text), ASK_EACH_TIME)


def _pack(content: bytes) -> bytes:
    return gzip.compress(content, 9, mtime=0)
