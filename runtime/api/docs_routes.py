"""`/openapi.json`, and two pages that show it: `/docs` (Swagger UI) and `/redoc` (ReDoc)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, cached_property
from typing import Any

from aiohttp import web

from ..engine import Engine
from ..errors import StoreUnavailable
from ..ports import HandlerRecord
from . import assets
from .assets import Asset
from .function_docs import with_functions
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
    """The description of the API, and of the functions that there are.

    `describe` makes the OpenAPI document; it is called once, when it is asked for. Which functions there are is for
    those to see who may ask for them: everybody where no keys are needed.
    """

    def __init__(self, describe: Callable[[], dict[str, Any]], engine: Engine) -> None:
        self._describe = describe
        self._engine = engine
        self._with_functions: tuple[Sequence[HandlerRecord], Asset] | None = None

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
    def _document(self) -> dict[str, Any]:
        return self._describe()

    @cached_property
    def _without_functions(self) -> Asset:
        return _json_asset(self._document)

    async def openapi(self, call: Call) -> web.Response:
        """The OpenAPI document."""
        asset = self._without_functions
        if call.principal.scope.includes(Scope.READ):
            with suppress(StoreUnavailable):
                asset = self._asset_of(await self._engine.definitions.handlers.records())
        return asset.response(call.request)

    def _asset_of(self, records: Sequence[HandlerRecord]) -> Asset:
        if self._with_functions is None or self._with_functions[0] != records:
            self._with_functions = records, _json_asset(with_functions(self._document, records))
        return self._with_functions[1]

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


def _json_asset(document: dict[str, Any]) -> Asset:
    return assets.json_asset(json.dumps(document).encode() + b"\n")


@cache
def _page(name: str) -> Asset:
    return assets.page(name, {"Content-Security-Policy": PAGE_POLICY})
