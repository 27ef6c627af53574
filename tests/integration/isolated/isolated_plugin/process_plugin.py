"""Handlers of the lane `process`: some behave, the others hurt the process that they run in."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from workflow_engine.plugins import Handler, NodeContext, handler, hookimpl

_kept: list[Any] = []


def _take_memory() -> None:
    while True:
        _kept.append(bytes(16 * 1024 * 1024))


def _never_end() -> None:
    while True:
        pass


async def _leak() -> None:
    _kept.append(asyncio.ensure_future(asyncio.Event().wait()))


DEEDS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "exit": lambda: sys.exit(3),
    "exit at once": lambda: os._exit(3),
    "abort": os.abort,
    "take memory": _take_memory,
    "never end": _never_end,
    "fork": os.fork,
    "a set": lambda: {1},
}


@handler("plain_deed", lane="process")
def plain_deed(config: dict[str, Any], _context: NodeContext) -> Any:
    """Do it; return the process."""
    done = DEEDS[config["what"]]()
    return done if isinstance(done, set) else os.getpid()


@handler("async_deed", lane="process")
async def async_deed(config: dict[str, Any], _context: NodeContext) -> Any:
    """The same on the event loop, which it blocks."""
    done = await _leak() if config["what"] == "leak" else DEEDS[config["what"]]()
    return done if isinstance(done, set) else os.getpid()


@handler("warm_process", lane="process")
class WarmProcess:
    """Keep something for all attempts of a process, and have something said at the end."""

    def __init__(self) -> None:
        self.count = 0

    async def open(self) -> None:
        """Have a task of its own."""
        self.task = asyncio.ensure_future(asyncio.Event().wait())

    def run(self, _config: dict[str, Any], context: NodeContext) -> Any:
        """Count, in a thread, and say how far it is."""
        self.count += 1
        context.progress(f"attempt {self.count}")
        return [os.getpid(), self.count, threading.current_thread() is threading.main_thread()]

    async def close(self) -> None:
        """Say so."""
        self.task.cancel()
        sys.stderr.write("closed in order\n")


@handler("all_of_a_context", lane="process")
def all_of_a_context(_config: dict[str, Any], context: NodeContext) -> Any:
    """Use everything that plain functions may use."""
    try:
        context.wait_for_secret("key")
    except LookupError as error:
        known = str(error)
    context.logger.warning("seen in a process")
    return [context.idempotency_key, context.inputs, 0 < context.seconds_left <= 60, bool(context.cancelled), known]


@hookimpl
def workflow_engine_handlers() -> list[Handler]:
    """The handlers of this plugin."""
    return [plain_deed, async_deed, WarmProcess, all_of_a_context]  # type: ignore[list-item]
