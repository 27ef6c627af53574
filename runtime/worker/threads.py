"""Threads for plain functions: each runs one piece of work after another, as many as are wanted at a time.

A thread cannot be stopped from outside. What is given up goes on in its thread, which then counts as lingering and is
replaced; of one handler only so many may linger. None of them keeps the process from ending.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from .forks import Original

ResultT = TypeVar("ResultT")

MOST_LINGERING = 32
"""Of one handler. A thread takes some 100 KB, and maybe a processor."""


class NoThread(Exception):
    """There is no thread for it; the message says why."""


class _Job(Generic[ResultT]):
    __slots__ = ("error", "future", "is_given_up", "name", "result", "work")

    def __init__(self, name: str, work: Callable[[], ResultT], future: asyncio.Future[ResultT]) -> None:
        self.name = name
        self.work = work
        self.future = future
        self.is_given_up = False
        self.result: ResultT
        self.error: BaseException | None = None


class Threads:
    """The threads of one event loop. Its methods are for the loop's thread."""

    def __init__(self, *, most_lingering: int = MOST_LINGERING) -> None:
        self._most_lingering = most_lingering
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._done: deque[_Job[Any]] = deque()
        self._will_collect = False
        self._wanted = 0
        self._count = 0
        self._lingering: dict[_Job[Any], str] = {}
        self._quiet: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = contextvars.copy_context()
        self._original = Original()

    @property
    def lingering(self) -> list[str]:
        """Names of what was given up and still runs."""
        return list(self._lingering.values())

    async def run(self, name: str, work: Callable[[], ResultT], give_up: Callable[[], None]) -> ResultT:
        """What `work` returns or raises, in a thread.

        When this is cancelled, `give_up` is called, and nobody waits for the work any more. Raises `NoThread`.
        """
        if self._lingering and self.lingering.count(name) >= self._most_lingering:
            raise NoThread(
                f"{self._most_lingering} threads run what {name} began and was told to stop: "
                "it gets another one when one of them ends"
            )
        loop = self._loop = asyncio.get_running_loop()
        if self._wanted >= self._count - len(self._lingering):
            self._start_thread(loop)
        job = _Job(name, work, loop.create_future())
        self._wanted += 1
        self._jobs.put(job)
        try:
            result: ResultT = await job.future
            return result
        finally:
            self._wanted -= 1
            if job.future.cancelled() or not job.future.done():
                job.is_given_up = True
                self._lingering[job] = name
                give_up()

    def wait_for(self, awaited: Awaitable[ResultT]) -> ResultT:
        """What the event loop makes of it. To be called in one of the threads."""

        async def wait() -> ResultT:
            return await awaited

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

    async def settle(self, timeout_seconds: float) -> None:
        """Give what was told to stop so long to do it."""
        if self._lingering:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._quiet], timeout=timeout_seconds)

    def close(self) -> None:
        """End the threads that have nothing to do; the others end with what they do."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _start_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            threading.Thread(target=self._serve, args=(loop,), name="handler", daemon=True).start()
        except RuntimeError as error:
            raise NoThread(f"no thread can be started for it: {error}") from None
        self._count += 1

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        """A thread's life."""
        with suppress(RuntimeError):  # the loop is closed
            while (job := self._jobs.get()) is not None:
                self._perform(job)
                self._done.append(job)
                del job
                if not self._will_collect:
                    self._will_collect = True
                    loop.call_soon_threadsafe(self._collect)

    def _perform(self, job: _Job[Any]) -> None:
        if job.is_given_up:
            return
        try:
            job.result = self._context.copy().run(job.work)
        except StopIteration as error:  # which no future takes
            job.error = RuntimeError(f"StopIteration: {error}")
        except BaseException as error:
            job.error = error
        self._original.end_copies()

    def _collect(self) -> None:
        """Hand on what has been done. Whoever adds to it after this line calls again."""
        self._will_collect = False
        while self._done:
            job = self._done.popleft()
            self._lingering.pop(job, None)
            if job.future.done():
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(job.error)
        if self._quiet is not None and not self._lingering and not self._quiet.done():
            self._quiet.set_result(None)
