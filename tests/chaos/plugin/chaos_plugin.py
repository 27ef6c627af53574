"""A plugin for the chaos tests: handlers that take a while, fail at first, or end their process; all keep a log."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

from workflow_engine.plugins import Handler, NodeContext, RetryAfter, handler, hookimpl

LOG_VARIABLE = "CHAOS_HANDLER_LOG"


@handler("pause")
async def pause(config: dict[str, Any], context: NodeContext) -> dict[str, Any]:
    """Wait `seconds`, fail the first `failures` attempts, then return the sum of the inputs plus one."""
    _log(context)
    await asyncio.sleep(config.get("seconds", 0.0))
    if context.attempt <= config.get("failures", 0):
        raise RetryAfter("not yet")
    return {"sum": 1 + sum(value["sum"] for value in context.inputs.values())}


@handler("rare")
async def rare(config: dict[str, Any], context: NodeContext) -> dict[str, Any]:
    """The same under another name, which not every worker serves."""
    return await pause.run(config, context)


@handler("poison")
async def poison(_config: dict[str, Any], context: NodeContext) -> None:
    """End the process that runs it."""
    _log(context)
    os._exit(1)


def _log(context: NodeContext) -> None:
    """A line for each start: execution, node, attempt, process, nanoseconds since the epoch."""
    path = os.environ.get(LOG_VARIABLE)
    if path:
        with Path(path).open("a") as log:
            log.write(f"{context.execution_id} {context.node_id} {context.attempt} {os.getpid()} {time.time_ns()}\n")


@hookimpl
def workflow_engine_handlers() -> list[Handler]:
    """The handlers of this plugin."""
    return [pause, rare, poison]
