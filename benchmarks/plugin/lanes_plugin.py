"""A plugin for the benchmark of lanes: in each lane a handler that does nothing, and one that misbehaves."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from workflow_engine.plugins import Handler, NodeContext, handler, hookimpl

BUSY_SECONDS = 0.25


def _explode() -> NoReturn:
    raise RuntimeError("as the benchmark wants it")


def _compute() -> None:
    until = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < until:
        pass


def _take_memory() -> None:
    kept = []
    while True:
        kept.append(bytes(16 * 1024 * 1024))


DEEDS: dict[str, Callable[[], Any]] = {
    "nothing": lambda: None,
    "blocks": lambda: time.sleep(BUSY_SECONDS),
    "computes": _compute,
    "hangs": lambda: threading.Event().wait(),
    "explodes": _explode,
    "exits": lambda: sys.exit(3),
    "ends the process": lambda: os._exit(3),
    "takes all memory": _take_memory,
}


@handler("lane_async")
async def lane_async(config: dict[str, Any], _context: NodeContext) -> None:
    """Misbehave on the event loop; to hang there blocks nobody."""
    if config.get("what") == "hangs":
        await asyncio.Event().wait()
    DEEDS[config.get("what", "nothing")]()


@handler("lane_thread")
def lane_thread(config: dict[str, Any], context: NodeContext) -> None:
    """Misbehave in a thread; one that hangs looks whether it is to stop."""
    if config.get("what") == "hangs":
        context.cancelled.wait()
    else:
        DEEDS[config.get("what", "nothing")]()


@handler("lane_process", lane="process")
def lane_process(config: dict[str, Any], _context: NodeContext) -> None:
    """Misbehave in a process of its own."""
    DEEDS[config.get("what", "nothing")]()


@hookimpl
def workflow_engine_handlers() -> list[Handler]:
    """The handlers."""
    return [lane_async, lane_thread, lane_process]
