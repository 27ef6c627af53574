"""Runs a coroutine to its end, and leaves the process even when a handler will not stop."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)

LAST_TASKS_SECONDS = 1.0


def run_to_end(main: Coroutine[Any, Any, int]) -> int:
    """Like `asyncio.run`, but a task that swallows cancellation cannot keep the process."""
    loop = asyncio.new_event_loop()
    try:
        code = loop.run_until_complete(main)
    except BaseException:
        _cancel_rest(loop)
        raise
    left = _cancel_rest(loop)
    if left:
        log.warning("leaving %d tasks behind that do not stop", left)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return code


def _cancel_rest(loop: asyncio.AbstractEventLoop) -> int:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if not tasks:
        return 0
    _, pending = loop.run_until_complete(asyncio.wait(tasks, timeout=LAST_TASKS_SECONDS))
    return len(pending)
