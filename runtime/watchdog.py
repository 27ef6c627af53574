"""The watchdog: a thread that sees that the event loop stands still, says who holds it, and ends the process in time.

The loop beats; the thread counts how long it has not. It counts in its own steps, each of which is short: what stopped
the whole process (SIGSTOP, a machine that slept, a debugger) has stopped the thread as well, and is not counted, so a
process that wakes has all the time that it had before. What holds the interpreter's lock stops the thread too: that
is not seen.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any

from .clock import Clock
from .core.queue import Delivery

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
LONGEST_STEP_SECONDS = 2 * BEAT_SECONDS
BLOCKED_SECONDS = 1.0
"""From then on the loop counts as blocked."""
MOST_CAUSES = 100
SAYING_SECONDS = 2.0
"""The loop may be blocked by the very log: it gets no longer than that."""
EXIT_CODE = 1
DEBUGGERS = frozenset({"bdb", "pdb"})


class Watchdog:
    """Watches the loop that it is started on, until it is stopped."""

    def __init__(
        self,
        *,
        clock: Clock,
        find_attempt: Callable[[object], Delivery | None],
        limit_seconds: float = math.inf,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """`find_attempt` says which attempt runs in a task, on any thread. A loop that is blocked for `limit_seconds`
        has lost what it owned: then the process ends, by `leave`."""
        self.blocked_count = 0
        """How often the loop has been blocked for longer than `BLOCKED_SECONDS`."""
        self.longest_block_seconds = 0.0
        self._clock = clock
        self._find_attempt = find_attempt
        self._limit_seconds = limit_seconds
        self._leave = leave
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._beats = 0
        self._seen_beats = 0
        self._looked_at = 0.0
        self._blocked_seconds = 0.0
        self._is_counted = False
        self._known_causes: set[str] = set()

    def start(self) -> None:
        """Watch the loop of this thread."""
        self.attach()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def attach(self) -> None:
        """Let the loop of this thread beat, without a thread that looks."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._looked_at = self._clock.monotonic()
        self._beat()

    def stop(self) -> None:
        """Watch no more. Safe to call twice, and without `start`."""
        self._stopping.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join(SAYING_SECONDS)

    def look(self) -> None:
        """One look at the loop: what the thread does, again and again."""
        now = self._clock.monotonic()
        step_seconds = min(now - self._looked_at, LONGEST_STEP_SECONDS)
        self._looked_at = now
        if self._beats != self._seen_beats:
            self._seen_beats = self._beats
            self._blocked_seconds = 0.0
            self._is_counted = False
            return
        self._blocked_seconds += step_seconds
        if self._blocked_seconds < BLOCKED_SECONDS:
            return
        self.longest_block_seconds = max(self.longest_block_seconds, self._blocked_seconds)
        if not self._is_counted:
            self._is_counted = True
            self.blocked_count += 1
            self._warn()
        if self._blocked_seconds >= self._limit_seconds:
            self._end()

    def _beat(self) -> None:
        self._beats += 1
        assert self._loop is not None
        self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)

    def _watch(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            self.look()

    def _frame(self) -> FrameType | None:
        return sys._current_frames().get(self._loop_thread)

    def _holder(self, frame: FrameType | None) -> tuple[str, str, dict[str, Any]]:
        """Who holds the loop: as a cause, in words, and as fields of the log. Without an attempt, the place."""
        delivery = self._find_attempt(asyncio.current_task(self._loop))
        if delivery is None:
            place = "code that is no longer there" if frame is None else _place(frame)
            return place, place, {}
        execution, node, attempt = delivery
        handler = execution.graph.handlers[node]
        words = (
            f"the handler {handler}, in attempt {attempt} of node {execution.graph.node_ids[node]} of execution "
            f"{execution.execution_id}"
        )
        return handler, words, {"execution_id": execution.execution_id, "attempt": attempt}

    def _warn(self) -> None:
        """Once for each cause: what blocks does so again and again."""
        frame = self._frame()
        cause, words, fields = self._holder(frame)
        if cause in self._known_causes or len(self._known_causes) >= MOST_CAUSES:
            return
        self._known_causes.add(cause)
        _say(
            logging.WARNING,
            f"the event loop is blocked for {self._blocked_seconds:.1f} s by {words}: nothing else runs in this "
            f"process meanwhile; a plain function as a handler gets a thread of its own",
            fields,
            frame,
        )

    def _end(self) -> None:
        """Nobody comes back from here: others have taken what this process owned."""
        frame = self._frame()
        if _is_debugged(frame):
            return
        _, words, fields = self._holder(frame)
        _say(
            logging.CRITICAL,
            f"the event loop has been blocked for {self._blocked_seconds:.1f} s by {words}: what this process owned is "
            f"others' by now, so it ends",
            fields,
            frame,
        )
        self._leave(EXIT_CODE)


def _say(level: int, message: str, fields: dict[str, Any], frame: FrameType | None) -> None:
    """Log it with the stack of the loop's thread, not of this one."""
    if not log.isEnabledFor(level):
        return
    stack = None if frame is None else "".join(traceback.format_stack(frame)).rstrip()
    record = log.makeRecord(log.name, level, __file__, 0, message, (), None, extra=fields, sinfo=stack)
    saying = threading.Thread(target=log.handle, args=(record,), daemon=True)
    saying.start()
    saying.join(SAYING_SECONDS)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_qualname} ({frame.f_globals.get('__name__', '?')})"


def _is_debugged(frame: FrameType | None) -> bool:
    """Whether somebody looks at the loop's thread through Python's own debugger, which blocks it on purpose."""
    while frame is not None:
        if frame.f_globals.get("__name__") in DEBUGGERS:
            return True
        frame = frame.f_back
    return False
