"""Attempts in processes of their own: of the lane `process`, and those suspected of ending the process that runs them.

A child runs the very `run_attempt` that would have run here. It leads a session and a process group of its own;
whatever is left of that group when an attempt is given up is killed. A child waits for the next attempt: to start a
process takes half a second of a processor. One for suspects does so only if an attempt has left nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import zlib
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import suppress

from pydantic import TypeAdapter

from ..core.machine import AttemptError
from ..core.queue import Delivery
from .assignment import (
    CLOSE_SECONDS,
    ERROR,
    HEADER,
    LAST_WORDS_SECONDS,
    MAX_ERROR_BYTES,
    MAX_PROGRESS_BYTES,
    OUTPUT,
    PROGRESS,
    READY,
    ChildSettings,
    SetUp,
    leave_seconds,
    write_assignment,
    write_set_up,
)
from .attempt import AttemptResult

log = logging.getLogger(__name__)

MODULE = "workflow_engine.runtime.worker.child"
STANDARD_ERROR = 2
IDLE_SECONDS = 10.0
"""How long a child for suspects waits for another attempt."""
LANE_IDLE_SECONDS = 60.0
"""How long one of the lane does."""
START_SECONDS = 60.0
"""How long it may take a child to get ready: it loads every plugin, maybe on a machine that is busy."""
READY_SECONDS = 2.0
"""How long a child may take to find out whether an attempt has left something behind."""

_ERROR = TypeAdapter(AttemptError)
_PROGRESS: TypeAdapter[float | str] = TypeAdapter(float | str)
_RUBBISH = "the process that ran it wrote something else than an outcome"


class _Nonsense(Exception):
    """What stands where a frame belongs is none."""


class _Lost(Exception):
    """A child gives no outcome; `error` says why, as if it were the attempt's doing."""

    def __init__(self, error: AttemptError) -> None:
        super().__init__(error.message)
        self.error = error


class Isolation:
    """The children of this process, for suspects or for the lane: `run` as often as wanted, then `close`."""

    def __init__(
        self,
        settings: ChildSettings,
        *,
        is_for_suspects: bool = True,
        memory_bytes: int | None = None,
        idle_seconds: float = IDLE_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        """`memory_bytes`: what each child may take; None: as much as there is."""
        self._settings = settings
        self._is_for_suspects = is_for_suspects
        self._memory_bytes = memory_bytes
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        self._idle: dict[_Child, asyncio.TimerHandle] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def run(
        self,
        delivery: Delivery,
        max_output_bytes: int,
        begun: Callable[[], None],
        on_progress: Callable[[float | str], None] | None = None,
    ) -> AttemptResult:
        """As `run_attempt`, in a child that has nothing else to do; `begun` is called when the attempt begins there.

        Its handler is found there as it was here, so its plugin has to be installed. A child that dies of the attempt
        is the error `worker_crashed` (in the lane `process_died`), one that does not get that far `worker_failed`. When
        this returns, cancelled or not, the child waits for another attempt, or it and what is left of its process group
        are gone, or, in the lane and of its own accord, are about to be.
        """
        assignment = write_assignment(delivery)
        if self._is_for_suspects:
            _tell_of(delivery)
        if self._idle:
            child, timer = self._idle.popitem()
            timer.cancel()
            try:
                return await self._run_in(child, assignment, begun, on_progress)
            except _Lost as lost:
                if not self._is_for_suspects:
                    return None, lost.error
                # Maybe it died of what an attempt before this one has done to its memory. Nobody is condemned for that.
                log.warning("%s. It had run others before: it runs again in a new process", lost)
        try:
            child = await self._start(max_output_bytes)
            return await self._run_in(child, assignment, begun, on_progress)
        except (OSError, RuntimeError) as error:  # a RuntimeError: no thread can be started
            log.error("no process can be started for an attempt: %s", error)
            return None, AttemptError("worker_failed", f"no process can be started for it: {error}", True)
        except _Lost as lost:
            return None, lost.error

    async def close(self) -> None:
        """End the children that wait. What ran was cancelled before. Returns soon, whatever they do."""
        for child in list(self._idle):
            self._dismiss(child)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=2 * CLOSE_SECONDS)

    async def _start(self, max_output_bytes: int) -> _Child:
        """A child that is ready for an attempt. Raises `_Lost`, `OSError` and `RuntimeError`."""
        set_up = SetUp(list(sys.path), self._settings, self._is_for_suspects, self._memory_bytes, max_output_bytes)
        child = await _start(set_up)
        child.ended.add_done_callback(lambda _: self._dismiss(child))
        try:
            await child.get_ready(write_set_up(set_up), self._start_seconds)
        except BaseException:
            await child.kill()
            raise
        return child

    async def _run_in(
        self,
        child: _Child,
        assignment: bytes,
        begun: Callable[[], None],
        on_progress: Callable[[float | str], None] | None,
    ) -> AttemptResult:
        has_ended = is_ready = False
        try:
            begun()
            outcome = await child.run(assignment, on_progress)
            has_ended = True
            is_ready = await child.is_ready()
            return outcome
        finally:
            loop = asyncio.get_running_loop()
            if is_ready:
                self._idle[child] = loop.call_later(self._idle_seconds, self._dismiss, child)
            elif has_ended and not self._is_for_suspects:
                self._let_go(child)
            else:
                await child.kill()

    def _dismiss(self, child: _Child) -> None:
        """Let a child go that waits for an attempt, if it does."""
        timer = self._idle.pop(child, None)
        if timer is not None:
            timer.cancel()
            self._let_go(child)

    def _let_go(self, child: _Child) -> None:
        leaving = asyncio.get_running_loop().create_task(child.leave())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)


class _Child:
    """A process that runs attempts, one at a time: `get_ready`; `run`, `is_ready`, and again; `leave` or `kill`."""

    def __init__(
        self,
        process: Process,
        connection: socket.socket,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        set_up: SetUp,
    ) -> None:
        self.process_id = process.pid
        self._connection = connection
        self._reader, self._writer = streams
        self._set_up = set_up
        self._most = {READY: 0, PROGRESS: MAX_PROGRESS_BYTES, ERROR: MAX_ERROR_BYTES, OUTPUT: set_up.max_output_bytes}
        """Bytes of a frame."""
        self.ended = asyncio.create_task(process.wait())
        # A process that the child has started may hold the other end open; then nobody else says that it is over.
        self.ended.add_done_callback(lambda _: self._shut(socket.SHUT_RD))

    async def get_ready(self, set_up: bytes, limit_seconds: float) -> None:
        """Say what it is for, and wait until it is ready. Raises `_Lost`."""
        try:
            async with asyncio.timeout(limit_seconds):
                self._writer.write(set_up)
                await self._expect((READY,), has_begun=False)
        except TimeoutError:
            reason = f"the process that was to run it did not begin within {limit_seconds:g} s"
            raise _Lost(AttemptError("worker_failed", reason, True)) from None

    async def run(self, assignment: bytes, on_progress: Callable[[float | str], None] | None) -> AttemptResult:
        """Assign an attempt, and wait for its outcome. Raises `_Lost`."""
        self._writer.write(assignment)
        try:
            while True:
                kind, body = await self._expect((OUTPUT, ERROR, PROGRESS), has_begun=True)
                if kind == OUTPUT:
                    return body, None
                if kind == ERROR:
                    return None, _ERROR.validate_json(body)
                if on_progress is not None:
                    on_progress(_PROGRESS.validate_json(body))
        except ValueError:  # of something else than an outcome
            raise _Lost(self._blame(_RUBBISH)) from None

    async def is_ready(self) -> bool:
        """Whether another attempt may be assigned: nothing is left of the one before. If not, it had time to end."""
        with suppress(TimeoutError, EOFError, ConnectionError, _Nonsense):
            async with asyncio.timeout(READY_SECONDS):
                kind = PROGRESS
                while kind == PROGRESS:
                    kind, _ = await self._receive()
                if kind == READY:
                    return True
        if self._set_up.is_for_suspects:
            await asyncio.wait([self.ended], timeout=LAST_WORDS_SECONDS)
        return False

    async def leave(self) -> None:
        """Let it end by itself, as nothing runs there; it is gone when this returns."""
        try:
            self._shut(socket.SHUT_WR)
            await asyncio.wait([self.ended], timeout=leave_seconds(self._set_up))
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Kill it and its process group, whose id is nobody else's while anything of it is left."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process_id, signal.SIGKILL)
        try:
            await asyncio.wait([self.ended])
        finally:
            self._writer.transport.abort()

    async def _expect(self, kinds: Sequence[bytes], *, has_begun: bool) -> tuple[bytes, bytes]:
        try:
            kind, body = await self._receive()
            if kind in kinds:
                return kind, body
        except (EOFError, ConnectionError):
            await asyncio.wait([self.ended], timeout=LAST_WORDS_SECONDS)
            code = self.ended.result() if self.ended.done() else None
            how = _end(code)
            if not has_begun:
                reason = f"the process that was to run it {how} before it began; see the log"
                raise _Lost(AttemptError("worker_failed", reason, True)) from None
            when = " before the handler returned" if code is None or code >= 0 else ""
            raise _Lost(self._blame(f"the process that ran it {how}{when}")) from None
        except _Nonsense:
            pass
        raise _Lost(self._blame(_RUBBISH))

    def _blame(self, reason: str) -> AttemptError:
        """The error of an attempt that is taken for the cause of what has become of its process."""
        if self._set_up.is_for_suspects:
            return AttemptError("worker_crashed", reason, False)
        return AttemptError("process_died", reason, True)

    async def _receive(self) -> tuple[bytes, bytes]:
        """The kind and the body of the next frame. Raises `_Nonsense`, `EOFError` and `ConnectionError`."""
        kind, length, checksum = HEADER.unpack(await self._reader.readexactly(HEADER.size))
        if length > self._most.get(kind, -1):
            raise _Nonsense
        body = await self._reader.readexactly(length) if length else b""
        if zlib.crc32(body) != checksum:
            raise _Nonsense
        return kind, body

    def _shut(self, direction: int) -> None:
        """Let whoever reads at an end find the end, behind what has been sent so far."""
        with suppress(OSError):
            self._connection.shutdown(direction)


async def _start(set_up: SetUp) -> _Child:
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            process = await asyncio.create_subprocess_exec(
                *_python(),
                *("-m", MODULE, str(theirs.fileno())),
                stdin=DEVNULL,
                stdout=STANDARD_ERROR if sys.__stderr__ else DEVNULL,
                stderr=STANDARD_ERROR if sys.__stderr__ else DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            writer.transport.abort()
            raise
    return _Child(process, ours, (reader, writer), set_up)


def _python() -> Sequence[str]:
    """What starts the Python of this process once more. In a binary it takes `-m` alone, and sees to the rest."""
    if getattr(sys, "frozen", False):
        return (sys.executable,)
    # The path is sent; what is printed is seen although the process may die; a dying one leaves its trace.
    options = ("-P", "-u", "-X", "faulthandler", *(f"-W{option}" for option in sys.warnoptions))
    return (sys.executable, *options)


def _end(code: int | None) -> str:
    """How a child ended (None: it did not) that gave no answer."""
    if code is None:
        return "closed its connection to the engine"
    if code < 0:
        return f"was ended by signal {_signal_name(-code)}"
    return f"ended with exit code {code}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _tell_of(delivery: Delivery) -> None:
    log.info(
        "node %s of execution %s runs in a process of its own, apart from all else",
        delivery.execution.graph.node_ids[delivery.node],
        delivery.execution.execution_id,
        extra={"execution_id": delivery.execution.execution_id, "attempt": delivery.attempt},
    )
