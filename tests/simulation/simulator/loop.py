"""An event loop with a seeded scheduler and virtual time, on which hosts can be killed.

Whatever a host does carries its incarnation in a context variable. Killing it parks every handle of
that incarnation for good: nothing of it runs again, not even a `finally`, exactly as after `kill -9`.
Pausing it parks them until it is resumed, as SIGSTOP and SIGCONT do; the clock goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar
from random import Random
from typing import Any, TypeVar

Result = TypeVar("Result")

OUTSIDE = ("outside", 0)
HOST: ContextVar[tuple[str, int]] = ContextVar("HOST", default=OUTSIDE)


class Deadlock(AssertionError):
    """Nothing can ever run again, and what was awaited has not happened."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs ready handles in an order drawn from a seed; when none is ready, time jumps to the next timer."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._time = 0.0
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._dead: set[tuple[str, int]] = set()
        self._parked: list[asyncio.Handle] = []
        self._paused: dict[tuple[str, int], list[asyncio.Handle]] = {}
        self._tasks: list[asyncio.Task[Any]] = []
        self.errors: list[dict[str, Any]] = []
        self.steps = 0

    def kill(self, host: tuple[str, int]) -> None:
        """Nothing of this incarnation runs any more."""
        self._dead.add(host)

    def pause(self, host: tuple[str, int]) -> None:
        """Nothing of this incarnation runs until it is resumed."""
        self._paused.setdefault(host, [])

    def resume(self, host: tuple[str, int]) -> int:
        """What would have run in the meantime runs now; returns how much that is."""
        late = self._paused.pop(host, [])
        self._ready += late
        return len(late)

    def is_dead(self, host: tuple[str, int]) -> bool:
        """Whether this incarnation was killed."""
        return host in self._dead

    def run_until_complete(self, future: Any, deadline: float = float("inf")) -> Any:
        task = asyncio.ensure_future(future, loop=self)
        events._set_running_loop(self)
        try:
            while not task.done():
                self._run_one(deadline)
        finally:
            events._set_running_loop(None)
        return task.result()

    def _run_one(self, deadline: float) -> None:
        while self._timers and (not self._ready or self._timers[0][0] <= self._time):
            due, _, timer = heapq.heappop(self._timers)
            if timer.cancelled():
                continue
            if due > deadline:
                raise Deadlock(f"still waiting at {deadline} s")
            self._time = max(self._time, due)
            self._ready.append(timer)
        if not self._ready:
            raise Deadlock(f"nothing left to run at {self._time} s")
        position = int(self._random.random() * len(self._ready))
        self._ready[position], self._ready[-1] = self._ready[-1], self._ready[position]
        handle = self._ready.pop()
        if handle.cancelled():
            return
        host = self._context_of(handle).get(HOST, OUTSIDE)
        if host in self._dead:
            self._parked.append(handle)
            return
        if host in self._paused:
            self._paused[host].append(handle)
            return
        self.steps += 1
        handle._run()

    @staticmethod
    def _context_of(handle: asyncio.Handle) -> Context:
        context: Context = handle._context  # type: ignore[attr-defined]
        return context

    def time(self) -> float:
        return self._time

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is dropped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def create_task_of(self, host: tuple[str, int], coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        """A task that lives and dies with a host."""
        context = Context()
        context.run(HOST.set, host)
        return self.create_task(coroutine, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def bury(self) -> None:
        """The world ends: what is left of the dead is closed without a word.

        Here, one after another, while all they refer to is alive: left to the garbage collector, which finds them in
        rings, the interpreter may crash.
        """
        for task in self._tasks:
            if task.done():
                continue
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            coroutine: Any = task.get_coro()
            with suppress(BaseException):
                coroutine.close()
        self._tasks.clear()
