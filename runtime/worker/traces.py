"""What a handler may leave behind in the task that it ran in."""

from __future__ import annotations

import asyncio
import contextvars


def left_no_traces(task: asyncio.Task[None] | None, context_before: contextvars.Context) -> bool:
    """Whether the next attempt may run where one has just ended: no cancel pending, no variable changed."""
    if task is None or task.cancelling():
        return False
    try:
        return contextvars.copy_context() == context_before
    except BaseException:
        # Raised by the comparison of two values. Nothing is awaited here, so it is nobody's cancel.
        return False


def is_task_of_now(task: asyncio.Task[None] | None) -> bool:
    """Whether this code runs in `task`."""
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
