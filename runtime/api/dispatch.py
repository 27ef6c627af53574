"""From a route to what aiohttp calls: admit, read, check, hand over. All that every request pays for is here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web

from ..clock import Clock
from ..errors import Overloaded
from .access import Access
from .idempotency import claim_of
from .query import QueryReader
from .requests import parse_body, read_body
from .routing import Call, JsonBody, LinesBody, Route

AiohttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Dispatcher:
    """Serves routes: at most `max_concurrent_requests` at a time, whose bodies come within a time."""

    def __init__(
        self, access: Access, clock: Clock, *, max_concurrent_requests: int, request_timeout_seconds: float
    ) -> None:
        self._access = access
        self._clock = clock
        self._max_concurrent_requests = max_concurrent_requests
        self._request_timeout_seconds = request_timeout_seconds
        self._in_work = 0

    def register(self, app: web.Application, routes: Iterable[Route]) -> None:
        """Add the routes to `app`; GET answers HEAD too."""
        for route in routes:
            handler = self._counted(route) if route.counted else self._serving(route)
            if route.method == "GET":
                app.router.add_get(route.path, handler)
            else:
                app.router.add_route(route.method, route.path, handler)

    def _counted(self, route: Route) -> AiohttpHandler:
        serve = self._serving(route)

        async def handle(request: web.Request) -> web.StreamResponse:
            if self._in_work >= self._max_concurrent_requests:
                raise Overloaded(
                    f"{self._max_concurrent_requests} requests are in work, which is the most; try again in a moment"
                )
            self._in_work += 1
            try:
                return await serve(request)
            finally:
                self._in_work -= 1

        return handle

    def _serving(self, route: Route) -> AiohttpHandler:
        access, query, read = self._access, QueryReader(route.query), self._reader(route)
        # Of a stream of lines each one is a request of its own, which the handler sees to.
        takes_claim = route.idempotent and not isinstance(route.body, LinesBody)

        async def handle(request: web.Request) -> web.StreamResponse:
            access.check_origin(request)
            principal = await access.admit(request, route.scope)
            parameters = query.read(request)
            text, body = await read(request)
            call = Call(request, principal, parameters, body)
            if takes_claim:
                call.claim = claim_of(route.operation, call, text, self._clock.now())
            return await route.handler(call)

        return handle

    def _reader(self, route: Route) -> Callable[[web.Request], Awaitable[tuple[bytes, Any]]]:
        """Reads a body as the route declares it: (the text, the value)."""
        declared = route.body

        async def read_json(request: web.Request) -> tuple[bytes, Any]:
            assert isinstance(declared, JsonBody)
            text = await read_body(request, declared.max_bytes, self._request_timeout_seconds)
            return text, await parse_body(request, text, declared)

        async def read_nothing(_request: web.Request) -> tuple[bytes, Any]:
            return b"", None

        return read_json if isinstance(declared, JsonBody) else read_nothing
