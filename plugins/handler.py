"""`@handler`: how a node type is declared."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from .context import NodeContext

HANDLER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")

RunFunction = Callable[[Any, NodeContext], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Handler:
    """A node type: its name, the function that runs an attempt, and the model of its configuration.

    `run(config, context)` gets the configuration with its templates resolved: an instance of
    `config_model`, or a plain `dict` when there is no model. It returns any JSON value.
    """

    name: str
    run: RunFunction
    config_model: type[BaseModel] | None
    description: str


def handler(name: str, *, config: type[BaseModel] | None = None) -> Callable[[RunFunction], Handler]:
    """Declare the decorated `async def (config, context)` as the handler `name`.

    Raises `ValueError` for a malformed name, and `TypeError` for a `config` that is no pydantic model or a
    function that is not asynchronous: it would stop every other node while it runs.
    """
    if not isinstance(name, str) or not HANDLER_NAME.fullmatch(name):
        raise ValueError(f"handler name {name!r} does not match {HANDLER_NAME.pattern}")
    if config is not None and not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise TypeError(f"handler {name!r}: config must be a pydantic model, not {config!r}")

    def declare(function: RunFunction) -> Handler:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(
                f"handler {name!r} must be an 'async def' function; "
                "call blocking code through 'await asyncio.to_thread(...)'"
            )
        return Handler(name, function, config, inspect.getdoc(function) or "")

    return declare
