"""The objects of handlers that are classes: one each, opened before the first attempt and closed at the end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from ...plugins.handler import Handler, RunFunction
from .failure import OpenFailed

log = logging.getLogger(__name__)


class RunPlain(Protocol):
    """Runs plain work of a handler where it blocks nobody: as `Threads.run`."""

    def __call__(self, name: str, work: Callable[[], Any], give_up: Callable[[], None]) -> Awaitable[Any]: ...


class _Opening:
    """An object that is being opened, and how many attempts wait for it."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[RunFunction | OpenFailed]) -> None:
        self.task = task
        self.waiting = 0


class Warm:
    """The objects of one process."""

    def __init__(self, run_plain: RunPlain) -> None:
        """`run_plain`: for the plain methods of handlers whose lane is `thread`; others' run on the event loop."""
        self._run_plain = run_plain
        self._openings: dict[str, _Opening] = {}
        self._objects: dict[str, tuple[Handler, Any]] = {}
        self._runs: dict[str, RunFunction] = {}

    @property
    def is_open(self) -> bool:
        """Whether anything is open."""
        return bool(self._objects)

    def get(self, handler: Handler) -> RunFunction | None:
        """What runs an attempt of a handler, if its object is open."""
        return self._runs.get(handler.name)

    async def open(self, handler: Handler) -> RunFunction:
        """What runs an attempt of a handler that is a class; opens its object, once for all that wait for it.

        Raises `OpenFailed`; then the next attempt tries again with another object.
        """
        opening = self._openings.get(handler.name)
        if opening is None:
            task = asyncio.get_running_loop().create_task(self._open(handler), name=f"open {handler.name}")
            opening = self._openings[handler.name] = _Opening(task)
            task.add_done_callback(lambda _: self._forget(handler.name, opening))
        opening.waiting += 1
        try:
            result = await asyncio.shield(opening.task)
        finally:
            opening.waiting -= 1
            if not opening.waiting and not opening.task.done():
                # Nobody waits for it any more: it takes too long, and the next attempt starts anew.
                self._forget(handler.name, opening)
                opening.task.cancel()
        if isinstance(result, OpenFailed):
            raise result
        return result

    async def close(self, timeout_seconds: float) -> None:
        """Close what is open; returns when that is done, or is not done in time."""
        objects, self._objects, self._runs = self._objects, {}, {}
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._close(*each)) for each in reversed(objects.values())]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_seconds)
            for task in late:
                task.cancel()
            if late:
                log.warning("%d handlers are left behind that do not close within %g s", len(late), timeout_seconds)

    def _forget(self, name: str, opening: _Opening | None) -> None:
        if self._openings.get(name) is opening:
            del self._openings[name]

    async def _open(self, handler: Handler) -> RunFunction | OpenFailed:
        """Raises nothing but its own cancellation: what a task raises may end the loop."""
        assert handler.make is not None
        made: Any = None
        try:
            if handler.lane == "thread":
                made = await self._run_plain(handler.name, handler.make, _nothing)
            else:
                made = handler.make()
            await self._call(handler, made, "open")
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            log.warning("handler %s cannot be opened", handler.name, exc_info=error)
            return OpenFailed(handler.name, error)
        self._objects[handler.name] = (handler, made)
        self._runs[handler.name] = partial(handler.run, made)
        return self._runs[handler.name]

    async def _close(self, handler: Handler, made: Any) -> None:
        try:
            await self._call(handler, made, "close")
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
                raise
            log.warning("handler %s was not closed well", handler.name, exc_info=error)

    async def _call(self, handler: Handler, made: Any, method: str) -> None:
        function = getattr(made, method, None)
        if function is None:
            return
        if handler.lane == "thread" and not inspect.iscoroutinefunction(function):
            await self._run_plain(handler.name, function, _nothing)
            return
        result = function()
        if inspect.isawaitable(result):
            await result


def _nothing() -> None:
    """An object that is being opened or closed is not told that nobody waits for it."""


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
