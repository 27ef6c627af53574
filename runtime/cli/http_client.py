"""A client of the API: blocking, one connection for each request, with nothing but the standard library.

What may be sent twice is sent again when the connection is lost or the server says that it is not available.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlencode, urlsplit

from ..clock import Clock
from ..core.problem import printable
from .errors import UNREACHABLE, CommandError, UsageError
from .server_errors import foreign_answer, refusal

TIMEOUT_SECONDS = 30.0
LOOK_SECONDS = 3.0
ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.2
LONGEST_DELAY_SECONDS = 10.0
NO_CONTENT = 204
_TRY_AGAIN = (429, 503)


class Answer(NamedTuple):
    """What the server said: the status, the headers and the body."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


class Connection(NamedTuple):
    """How to get to a server: its address, an API key or None, and what time and chance are."""

    url: str
    api_key: str | None
    clock: Clock
    pause: Callable[[float], None]


class _NotConnectedError(Exception):
    """There was no connection: nothing was sent."""


class _LostError(Exception):
    """The connection ended before the answer did: nobody knows what was done."""


class HttpClient:
    """Talks to one server."""

    def __init__(self, connection: Connection, *, attempts: int = ATTEMPTS) -> None:
        """Raises `UsageError` for an address that is none."""
        self._connection = connection
        self._address = _address(connection.url)
        self._attempts = attempts
        self._reached = False

    def get(self, path: str, query: Mapping[str, Any] | None = None, *, wait_seconds: float = 0.0) -> Any:
        """Read. `wait_seconds` is how long the server may take by itself. Raises `CommandError`."""
        return self._ask("GET", path, query=query, timeout_seconds=TIMEOUT_SECONDS + wait_seconds)

    def post(
        self, path: str, body: Any = None, *, query: Mapping[str, Any] | None = None, creates: bool = False
    ) -> Any:
        """Change something that may be asked for twice, or, with `creates`, create it once whatever happens.

        `body` is a value, or JSON text as bytes. Raises `CommandError`.
        """
        headers = {"Idempotency-Key": self._connection.clock.new_id()} if creates else {}
        return self._ask("POST", path, query=query, body=body, headers=headers)

    def delete(self, path: str) -> None:
        """Remove what may be asked for twice. Raises `CommandError`."""
        self._ask("DELETE", path)

    def send_once(self, method: str, path: str, body: Any = None) -> Any:
        """Ask for what must not be asked for twice. Raises `CommandError`."""
        return self._ask(method, path, body=body, attempts=1)

    def look(self, path: str) -> Any:
        """Read once, whatever the status is. Raises `CommandError`."""
        return self._decoded(self._persist(lambda: self._send("GET", self._target(path), None, {}, LOOK_SECONDS), 1))

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        attempts: int | None = None,
    ) -> Any:
        target = self._target(path) + ("?" + urlencode(query, doseq=True) if query else "")
        content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Accept": "application/json", **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/json"
        if self._connection.api_key is not None:
            sent["Authorization"] = f"Bearer {self._connection.api_key}"
        answer = self._persist(
            lambda: self._send(method, target, content, sent, timeout_seconds), attempts or self._attempts
        )
        return self._value(answer)

    def _target(self, path: str) -> str:
        return self._address.path.rstrip("/") + path

    def _persist(self, send: Callable[[], Answer], attempts: int) -> Answer:
        """Send until there is an answer that another attempt would not better."""
        for attempt in range(attempts):
            last = attempt == attempts - 1
            retry_after = 0.0
            try:
                answer = send()
            except _NotConnectedError as error:
                # A server that was never there will not come; one that was may be starting again.
                if last or not self._reached:
                    raise CommandError(self._not_there(error), UNREACHABLE) from None
            except _LostError as error:
                self._reached = True
                if last:
                    raise CommandError(f"{self._connection.url}: {error}", UNREACHABLE) from None
            else:
                self._reached = True
                if last or answer.status not in _TRY_AGAIN:
                    return answer
                retry_after = _seconds(answer.headers.get("Retry-After", ""))
            delay = FIRST_DELAY_SECONDS * 2**attempt * (0.5 + self._connection.clock.chance() / 2)
            self._connection.pause(min(max(delay, retry_after), LONGEST_DELAY_SECONDS))
        raise AssertionError("the last attempt returns or raises")

    def _send(
        self, method: str, target: str, content: bytes | None, headers: Mapping[str, str], timeout_seconds: float
    ) -> Answer:
        connection = self._open(timeout_seconds)
        try:
            try:
                connection.connect()
            except ssl.SSLCertVerificationError as error:
                raise CommandError(
                    f"{self._connection.url}: its certificate is not trusted ({error.verify_message}); "
                    "SSL_CERT_FILE names a file with the certificates to trust",
                    UNREACHABLE,
                ) from None
            except (OSError, UnicodeError) as error:
                raise _NotConnectedError(_reason(error)) from None
            try:
                connection.request(method, target, content, dict(headers))
                response = connection.getresponse()
                return Answer(response.status, response.headers, response.read())
            except TimeoutError:
                raise _LostError(f"no answer within {timeout_seconds:g} seconds") from None
            except (OSError, http.client.HTTPException) as error:
                raise _LostError(f"the connection was lost before the answer ({_reason(error)})") from None
        finally:
            connection.close()

    def _open(self, timeout_seconds: float) -> http.client.HTTPConnection:
        host, port = self._address.hostname or "", self._address.port
        if self._address.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=timeout_seconds)
        return http.client.HTTPConnection(host, port, timeout=timeout_seconds)

    def _value(self, answer: Answer) -> Any:
        if answer.status == NO_CONTENT:
            return None
        value = self._decoded(answer)
        if answer.status >= 300:
            raise refusal(self._connection.url, answer.status, value)
        return value

    def _decoded(self, answer: Answer) -> Any:
        """The object that the body holds. Asking it for what an answer of the engine has fails with `CommandError`."""
        foreign = foreign_answer(self._connection.url, answer.status)

        class Document(dict[str, Any]):
            def __missing__(self, key: str) -> Any:
                raise foreign

        try:
            value = json.loads(answer.body, object_hook=Document)
        except (ValueError, RecursionError):
            raise foreign from None
        if not isinstance(value, Document):
            raise foreign
        return value

    def _not_there(self, error: Exception) -> str:
        return (
            f"there is no server at {printable(self._connection.url)} ({error}). Is it running? "
            "workflow-engine serve starts one; --url or WORKFLOW_ENGINE_URL says where it is"
        )


def _address(url: str) -> SplitResult:
    try:
        address = urlsplit(url)
        sound = address.scheme in ("http", "https") and address.hostname and (address.port is None or address.port > 0)
    except ValueError:
        sound = False
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(f"{url[:200]!r} is no address of a server: write it as http://host:port or https://host")
    if address.username is not None or address.query or address.fragment:
        raise UsageError("the server's address has neither a user nor a query; an API key goes into --api-key-file")
    return address


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return printable(text[:1].lower() + text[1:] if text[1:2].islower() else text)


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0.0
