"""`/openapi.json`, and two pages that show it: `/docs` (Swagger UI) and `/redoc` (ReDoc)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

from aiohttp import web

from . import assets
from .assets import Asset
from .routing import Answer, Call, Route, Scope

# Both pages make style elements at run time, and ReDoc's search is a worker made of its own text. No scripts
# but our files run, and nothing is fetched from elsewhere: what tries to is refused by the browser.
PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "worker-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


class DocsRoutes:
    """The description of the API. `describe` makes the OpenAPI document; it is called once, when it is asked for."""

    def __init__(self, describe: Callable[[], dict[str, Any]]) -> None:
        self._describe = describe

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [
            Route(
                method="GET",
                path="/openapi.json",
                scope=Scope.PUBLIC,
                operation="openapi",
                handler=self.openapi,
                tag="documentation",
                summary="This description, as OpenAPI 3.1",
                answers={200: Answer(description="the document", model=dict[str, Any])},
            ),
            self._hidden("/docs", "docs", self.swagger_ui, "Swagger UI"),
            self._hidden("/redoc", "redoc", self.redoc, "ReDoc"),
            self._hidden("/docs/assets/{digest}/{file}", "asset", self.asset, "What the pages refer to"),
        ]

    def _hidden(self, path: str, operation: str, handler: Any, summary: str) -> Route:
        return Route(
            method="GET",
            path=path,
            scope=Scope.PUBLIC,
            operation=operation,
            handler=handler,
            tag="documentation",
            summary=summary,
            documented=False,
        )

    @cached_property
    def _document(self) -> Asset:
        return assets.json_asset(json.dumps(self._describe()).encode() + b"\n")

    async def openapi(self, call: Call) -> web.Response:
        """The OpenAPI document."""
        return self._document.response(call.request)

    async def swagger_ui(self, call: Call) -> web.Response:
        """The page of Swagger UI."""
        return _page("docs.html").response(call.request)

    async def redoc(self, call: Call) -> web.Response:
        """The page of ReDoc."""
        return _page("redoc.html").response(call.request)

    async def asset(self, call: Call) -> web.Response:
        """A file of the pages, at the address that names its content."""
        found = assets.assets().get(call.path("file"))
        if found is None or found.digest != call.path("digest"):
            raise web.HTTPNotFound
        return found.response(call.request)


@cache
def _page(name: str) -> Asset:
    return assets.page(name, {"Content-Security-Policy": PAGE_POLICY})
