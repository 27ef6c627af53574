"""What the API itself refuses, beside the engine's own errors. Each says its status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

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


class FunctionFailed(RequestRefused):
    """The function failed"""

    # Not 5xx: the engine is well, and has tried it as often as it was told to; a client need not do so again.
    code = "function-failed"
    status = 424

    def __init__(self, execution_id: str, error: Mapping[str, Any] | None) -> None:
        """`error` is the failed attempt's; None when the call was cancelled."""
        if error is None:
            super().__init__(f"execution {execution_id} was cancelled")
        else:
            super().__init__(f"it failed at attempt {error['attempt']}: {error['type']}: {error['message']}")
        self.execution_id = execution_id
        self.error = error

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Location": f"/v1/workflows/{self.execution_id}"}


class RefusedByPlugin(RequestRefused):
    """A plugin refuses the request"""

    code = "refused-by-plugin"


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
