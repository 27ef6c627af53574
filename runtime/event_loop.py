"""Runs a coroutine to its end, and leaves the process even when a handler will not stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)

LAST_TASKS_SECONDS = 1.0
LAST_THREADS_SECONDS = 1.0


def run_to_end(main: Coroutine[Any, Any, int]) -> int:
    """Like `asyncio.run`, but no task and no thread of a handler can keep the process, or end it."""
    loop = asyncio.new_event_loop()
    try:
        code = _run(loop, main)
    except BaseException:
        if not _cancel_rest(loop):
            _close(loop)
        raise
    left = _cancel_rest(loop)
    if not left:
        _close(loop)
        left = _wait_for_threads()
    if left:
        log.warning("leaving %d tasks or threads behind that do not stop", left)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _run(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, int]) -> int:
    """Run `main`. When another task raises what ends a loop, go on: it is a handler's, and not for it to decide."""
    task = loop.create_task(main)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            if task.done():
                task.exception()  # it is on its way already: not to be reported as lost
                raise
            if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                raise
            log.error("a task raised %s: that does not end this process", type(error).__name__)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop that nothing runs on any more: left open, Python 3.13 complains when it is cleared away."""
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def _cancel_rest(loop: asyncio.AbstractEventLoop) -> int:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if not tasks:
        return 0
    _, pending = loop.run_until_complete(asyncio.wait(tasks, timeout=LAST_TASKS_SECONDS))
    return len(pending)


def _wait_for_threads() -> int:
    """Give threads a moment to end; how many have not. The interpreter would wait for those without end."""
    threads = [each for each in threading.enumerate() if each is not threading.current_thread() and not each.daemon]
    for thread in threads:
        thread.join(LAST_THREADS_SECONDS / len(threads))
    return sum(thread.is_alive() for thread in threads)
