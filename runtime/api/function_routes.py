"""The node types that definitions may name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiohttp import web
from pydantic import BaseModel
from pydantic.errors import PydanticUserError

from ...plugins import Handler
from . import models
from .responses import json_response
from .routing import Answer, Call, Route, Scope


class FunctionRoutes:
    """`GET /v1/functions`."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._items = described(handlers)

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
        """All node types by name."""
        return json_response(200, {"items": self._items})


def described(handlers: Mapping[str, Handler]) -> list[dict[str, object]]:
    """The handlers by name, as the API shows them."""
    return [_item(handlers[name]) for name in sorted(handlers)]


def _item(handler: Handler) -> dict[str, object]:
    schema = None if handler.config_model is None else _schema(handler.config_model)
    return {"name": handler.name, "description": handler.description, "config_schema": schema}


def _schema(model: type[BaseModel]) -> dict[str, Any] | None:
    """A plugin's model may have fields that JSON Schema has no word for."""
    try:
        return model.model_json_schema()
    except PydanticUserError:
        return None
