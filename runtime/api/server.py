"""The HTTP server under the application: what goes wrong before a request is one, and clients that are slow.

aiohttp answers broken HTTP with plain text and logs a trace for each; here it is a problem document, and
no fault of the server's.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from .problems import PROBLEM_MEDIA_TYPE, http_error_response, problem_document, problem_response
from .responses import DEFAULT_HEADERS, SERVER_NAME

log = logging.getLogger(__name__)

Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

KEEP_ALIVE_SECONDS = 75.0
"""Longer than load balancers keep idle connections (60 seconds), so that they are the ones who close."""
LINGERING_SECONDS = 2.0
"""How long the rest of a refused body is taken, so that the client gets to read why."""


class _Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_head_timer", "_request_timeout_seconds")

    def __init__(self, manager: web.Server, *, request_timeout_seconds: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._request_timeout_seconds = request_timeout_seconds
        self._head_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Who still waits for a request although bytes have come has got the beginning of one.
        waits = self._waiter is not None and not self._waiter.done()
        if waits and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._request_timeout_seconds, self._head_is_late)
        elif not waits and self._head_timer is not None:
            self._stop_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.transport is not None:
            self.transport.write(_late_head(self._request_timeout_seconds))
            self.force_close()

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """A body that is not what it says is its sender's fault, also where nobody but aiohttp reads it."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            log.debug("the rest of a body cannot be read: %s", kw["exc_info"])
        else:
            super().log_exception(*args, **kw)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """A problem document for what could not be read as a request. The connection ends with it."""
        if isinstance(exc, ConnectionError):
            raise exc  # the client has gone; aiohttp ends the connection
        if status >= 500:
            log.error("a request failed outside its route", exc_info=exc)
            document = problem_document(
                500, "internal-error", "The engine has a fault", "the request could not be served; the log says why"
            )
        else:
            log.debug("a request from %s is no sound HTTP: %s", request.remote, exc)
            detail = f"this is no sound HTTP: {_first_line(message)}"
            document = problem_document(status, "bad-request", "The request is not valid", detail)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = problem_response(document, {**DEFAULT_HEADERS, "Server": SERVER_NAME})
        response.force_close()
        return response


def _first_line(message: str | None) -> str:
    lines = (message or "").strip().splitlines()
    return "".join(c for c in lines[0] if c.isprintable())[:200].rstrip(":") if lines else "it cannot be read"


def _late_head(seconds: float) -> bytes:
    detail = f"the request's head has not come within {seconds:g} seconds"
    document = problem_document(408, "request-timeout", "The request took too long to arrive", detail)
    body = json.dumps(document).encode() + b"\n"
    headers = {
        "Content-Type": PROBLEM_MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
        "Server": SERVER_NAME,
        **DEFAULT_HEADERS,
    }
    lines = ["HTTP/1.1 408 Request Timeout", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


class _Server(web.Server):
    """Makes a `_Connection` for each client."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


def _answering(handle: Handle) -> Handle:
    """What is refused before any middleware, which is an `Expect` that nobody knows, as a problem document."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await handle(request)
        except web.HTTPException as error:
            return http_error_response(error)

    return answer


class ApiRunner(web.AppRunner):
    """Runs an application on `_Server`. The head of a request may take `request_timeout_seconds`."""

    def __init__(self, app: web.Application, *, request_timeout_seconds: float, **options: Any) -> None:
        super().__init__(
            app,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            lingering_time=LINGERING_SECONDS,
            **options,
        )
        self._kwargs["request_timeout_seconds"] = request_timeout_seconds

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(_answering(made.request_handler), request_factory=made.request_factory, **made._kwargs)
