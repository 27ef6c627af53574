"""What the API itself refuses, beside the engine's own errors. Each says its status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from ..core.problem import Problem
from ..errors import CallerError

REALM = 'Bearer realm="workflow-engine"'


class RequestRefused(CallerError):
    """The request is refused"""

    status: ClassVar[int] = 400

    @property
    def headers(self) -> Mapping[str, str]:
        """What the answer's header adds."""
        return {}


class BadRequest(RequestRefused):
    """The request is not valid"""

    code = "bad-request"

    def __init__(self, detail: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.problems = tuple(problems)


class Unauthenticated(RequestRefused):
    """An API key is needed"""

    code = "unauthenticated"
    status = 401

    def __init__(self, detail: str, *, key_was_given: bool) -> None:
        super().__init__(detail)
        self._key_was_given = key_was_given

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": REALM + (', error="invalid_token"' if self._key_was_given else "")}


class Forbidden(RequestRefused):
    """The API key does not allow this"""

    code = "forbidden"
    status = 403

    def __init__(self, needed: str, held: str) -> None:
        super().__init__(f"this needs a key with the scope {needed}; the key has {held}")
        self._needed = needed

    @property
    def headers(self) -> Mapping[str, str]:
        return {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{self._needed}"'}


class CrossSiteRequest(RequestRefused):
    """A page of another site may not do this"""

    code = "cross-site-request"
    status = 403


class HostNotAllowed(RequestRefused):
    """This server is not known by that name"""

    code = "host-not-allowed"
    status = 403


class KeyNotFound(RequestRefused):
    """There is no such API key"""

    code = "key-not-found"
    status = 404


class RequestTooSlow(RequestRefused):
    """The request took too long to arrive"""

    code = "request-timeout"
    status = 408

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Connection": "close"}


class UnsupportedMediaType(RequestRefused):
    """The body is not of a supported media type"""

    code = "unsupported-media-type"
    status = 415
