"""The node types that definitions may name."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aiohttp import web

from ..engine import Engine
from ..ports import HandlerRecord
from . import models
from .responses import json_response
from .routing import Answer, Call, Route, Scope


class FunctionRoutes:
    """`GET /v1/functions`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [
            Route(
                method="GET",
                path="/v1/functions",
                scope=Scope.READ,
                operation="functions",
                handler=self.functions,
                tag="definitions",
                summary="The node types",
                description="What a node's `handler` may be, and what its `config` takes.",
                answers={200: Answer(description="all of them, by name", model=models.FunctionList)},
            )
        ]

    async def functions(self, _call: Call) -> web.Response:
        """All node types by name, those of other processes too where they run nodes for this one."""
        records = await self._engine.definitions.handlers.records()
        return json_response(200, {"items": [function_item(record) for record in records]})


def function_item(record: HandlerRecord) -> dict[str, object]:
    """A handler as the API shows it."""
    return {
        "name": record.name,
        "description": record.description,
        "config_schema": None if record.config_schema is None else json.loads(record.config_schema),
        "distribution": record.distribution,
        "version": record.version,
    }
