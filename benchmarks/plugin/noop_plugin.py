"""A plugin for the benchmarks: a handler that does nothing."""

from __future__ import annotations

from typing import Any

from workflow_engine.plugins import Handler, NodeContext, handler, hookimpl


@handler("noop")
async def noop(config: dict[str, Any], context: NodeContext) -> None:
    """Do nothing."""


@hookimpl
def workflow_engine_handlers() -> list[Handler]:
    """The handler."""
    return [noop]
