"""A request, and what becomes of it when the server sends it elsewhere."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..plugins import PermanentError

if TYPE_CHECKING:
    from yarl import URL

# A request with one of these may be sent twice without harm, so it needs no idempotency key.
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})

# What describes a body, and goes when the body does.
_BODY_HEADERS = frozenset(
    {"content-encoding", "content-language", "content-location", "content-type", "idempotency-key"}
)

# What another server may see. Any other header may be a credential: `X-Api-Key` is one as well.
_SHAREABLE_HEADERS = _BODY_HEADERS | {"accept", "accept-language", "user-agent"}


# Of a host name as it is sent, international names being encoded by then.
_HOST = re.compile(r"[A-Za-z0-9._~:%-]+")


def parse_url(text: str) -> URL:
    """Parse an absolute http or https URL without credentials; raises `ValueError` saying what is wrong."""
    from yarl import URL

    url = URL(text)
    if url.scheme not in ("http", "https") or not _HOST.fullmatch(url.raw_host or ""):
        raise ValueError("must be an absolute http:// or https:// URL")
    if url.raw_user is not None or url.raw_password is not None:
        raise ValueError("must not hold a user name or password; send an Authorization header")
    return url


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `str()` of it names it in messages, without the query, which may hold secrets."""

    method: str
    url: URL
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)

    def __str__(self) -> str:
        return f"{self.method} {self.url.with_query(None).with_fragment(None)}"

    def redirected(self, status: int, location: str) -> Request:
        """Return the request that follows a redirect, as browsers do it.

        303, and 301 and 302 after a POST, make it a GET without a body. On the way to another server
        only harmless headers stay. Raises `PermanentError` (`redirect_refused`) for a target that is no
        http or https URL, and for one that gives up encryption.
        """
        target = self._target(location)
        method, headers, body = self.method, self.headers, self.body
        if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
            method, body = "GET", None
            headers = {name: headers[name] for name in headers if name.lower() not in _BODY_HEADERS}
        if not _same_server(self.url, target):
            headers = {name: headers[name] for name in headers if name.lower() in _SHAREABLE_HEADERS}
        return Request(method, target, headers, body)

    def _target(self, location: str) -> URL:
        from yarl import URL

        try:
            target = self.url.join(URL(location)).with_user(None).with_fragment(None)
        except ValueError:
            raise PermanentError(
                f"{self} redirects to something that is no URL", error_type="redirect_refused"
            ) from None
        if target.scheme not in ("http", "https") or not target.host:
            raise PermanentError(f"{self} redirects to a URL that is not http or https", error_type="redirect_refused")
        if self.url.scheme == "https" and target.scheme == "http":
            raise PermanentError(f"{self} redirects from https to http", error_type="redirect_refused")
        return target


def has_header(headers: Collection[str], wanted: str) -> bool:
    """Say whether `wanted`, given in lower case, is among the header names."""
    return any(name.lower() == wanted for name in headers)


def _same_server(old: URL, new: URL) -> bool:
    """Say whether `new` is where `old` is, or the same host's https door instead of its http one."""
    if (old.scheme, old.host, old.port) == (new.scheme, new.host, new.port):
        return True
    ports = (old.scheme, old.port, new.scheme, new.port)
    return old.host == new.host and ports == ("http", 80, "https", 443)
