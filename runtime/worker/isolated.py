"""Attempts in processes of their own, for those that are suspected of ending the process that runs them.

A child runs the very `run_attempt` that would have run here. It leads a session and a process group of its own;
whatever is left of that group when an attempt has left something behind, or is given up, is killed. A child whose
attempt has left nothing behind waits for the next one: to start a process takes half a second of a processor.
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

from pydantic import TypeAdapter, ValidationError

from ..core.machine import AttemptError
from ..core.queue import Delivery
from .assignment import (
    BEGUN,
    ERROR,
    HEADER,
    LAST_WORDS_SECONDS,
    MAX_ERROR_BYTES,
    OUTPUT,
    READY,
    ChildSettings,
    write_assignment,
)

log = logging.getLogger(__name__)

MODULE = "workflow_engine.runtime.worker.child"
STANDARD_ERROR = 2
READ_BYTES = 256 * 1024
IDLE_SECONDS = 10.0
"""How long a child waits for another attempt."""
START_SECONDS = 60.0
"""How long it may take a child to begin an attempt: it loads every plugin, maybe on a machine that is busy."""
READY_SECONDS = 2.0
"""How long a child may take to find out whether an attempt has left something behind."""

_ERROR = TypeAdapter(AttemptError)
_NO_OUTCOME = AttemptError("worker_crashed", "the process that ran it wrote something else than an outcome", False)


class _Nonsense(Exception):
    """What stands where a frame belongs is none."""


class _Lost(Exception):
    """A child gives no outcome; `error` says why, as if it were the attempt's doing."""

    def __init__(self, error: AttemptError) -> None:
        super().__init__(error.message)
        self.error = error


class Isolation:
    """The children of this process: `run` as often as wanted, then `close`."""

    def __init__(
        self, settings: ChildSettings, *, idle_seconds: float = IDLE_SECONDS, start_seconds: float = START_SECONDS
    ) -> None:
        self._settings = settings
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        self._idle: dict[_Child, asyncio.TimerHandle] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def run(
        self, delivery: Delivery, max_output_bytes: int, begun: Callable[[], None]
    ) -> tuple[bytes | None, AttemptError | None]:
        """As `run_attempt`, in a child that has nothing else to do; `begun` is called when the attempt begins there.

        Its handler is found there as it was here, so its plugin has to be installed. A child that dies of the attempt
        is the error `worker_crashed`, one that does not get that far `worker_failed`. When this returns, cancelled or
        not, the child waits for another attempt, or it and what is left of its process group are gone.
        """
        assignment = write_assignment(delivery, max_output_bytes, list(sys.path), self._settings)
        if self._idle:
            child, timer = self._idle.popitem()
            timer.cancel()
            try:
                return await self._run_in(child, delivery, assignment, max_output_bytes, begun)
            except _Lost as lost:
                # Maybe it died of what an attempt before this one has done to its memory. Nobody is condemned for that.
                log.warning("%s. It had run others before: it runs again in a new process", lost)
        try:
            child = await _start()
        except (OSError, RuntimeError) as error:  # a RuntimeError: no thread can be started
            log.error("no process can be started for an attempt: %s", error)
            return None, AttemptError("worker_failed", f"no process can be started for it: {error}", True)
        child.ended.add_done_callback(lambda _: self._dismiss(child))
        try:
            return await self._run_in(child, delivery, assignment, max_output_bytes, begun)
        except _Lost as lost:
            return None, lost.error

    async def close(self) -> None:
        """End the children that wait. What ran was cancelled before. Returns soon, whatever they do."""
        for child in list(self._idle):
            self._dismiss(child)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=2 * LAST_WORDS_SECONDS)

    async def _run_in(
        self, child: _Child, delivery: Delivery, assignment: bytes, max_output_bytes: int, begun: Callable[[], None]
    ) -> tuple[bytes | None, AttemptError | None]:
        log.info(
            "node %s of execution %s runs in process %d, apart from all else",
            delivery.execution.graph.node_ids[delivery.node],
            delivery.execution.execution_id,
            child.process_id,
            extra={"execution_id": delivery.execution.execution_id, "attempt": delivery.attempt},
        )
        is_ready = False
        try:
            await child.begin(assignment, self._start_seconds)
            begun()
            outcome = await child.outcome(max_output_bytes)
            is_ready = await child.is_ready()
            return outcome
        finally:
            if is_ready:
                loop = asyncio.get_running_loop()
                self._idle[child] = loop.call_later(self._idle_seconds, self._dismiss, child)
            else:
                await child.kill()

    def _dismiss(self, child: _Child) -> None:
        """Let a child go that waits for an attempt, if it does."""
        timer = self._idle.pop(child, None)
        if timer is not None:
            timer.cancel()
            leaving = asyncio.get_running_loop().create_task(child.leave())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)


class _Child:
    """A process that runs attempts, one at a time: `begin`, `outcome`, `is_ready`; then that again, or `kill`."""

    def __init__(self, process: Process, connection: socket.socket) -> None:
        self.process_id = process.pid
        self._connection = connection
        self.ended = asyncio.create_task(process.wait())
        # A process that the child has started may hold the other end open; then nobody else says that it is over.
        self.ended.add_done_callback(lambda _: self._shut(socket.SHUT_RD))

    async def begin(self, assignment: bytes, limit_seconds: float) -> None:
        """Assign an attempt, and wait until it begins. Raises `_Lost`."""
        try:
            async with asyncio.timeout(limit_seconds):
                with suppress(ConnectionError):
                    await asyncio.get_running_loop().sock_sendall(self._connection, assignment)
                await self._expect((BEGUN,), 0, has_begun=False)
        except TimeoutError:
            reason = f"the process that was to run it did not begin within {limit_seconds:g} s"
            raise _Lost(AttemptError("worker_failed", reason, True)) from None

    async def outcome(self, max_output_bytes: int) -> tuple[bytes | None, AttemptError | None]:
        """Wait for the attempt's outcome. Raises `_Lost`."""
        kind, body = await self._expect((OUTPUT, ERROR), max_output_bytes, has_begun=True)
        if kind == OUTPUT:
            return body, None
        try:
            return None, _ERROR.validate_json(body)
        except ValidationError:
            raise _Lost(_NO_OUTCOME) from None

    async def is_ready(self) -> bool:
        """Whether another attempt may be assigned: nothing is left of the one before. If not, it had time to end."""
        with suppress(TimeoutError, EOFError, ConnectionError, _Nonsense):
            async with asyncio.timeout(READY_SECONDS):
                kind, _ = await self._receive(0)
                if kind == READY:
                    return True
        await asyncio.wait([self.ended], timeout=LAST_WORDS_SECONDS)
        return False

    async def leave(self) -> None:
        """Let it end by itself, as nothing runs there; it is gone when this returns."""
        try:
            self._shut(socket.SHUT_WR)
            await asyncio.wait([self.ended], timeout=LAST_WORDS_SECONDS)
        finally:
            await self.kill()

    async def kill(self) -> None:
        """Kill it and its process group, whose id is nobody else's while anything of it is left."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process_id, signal.SIGKILL)
        try:
            await asyncio.wait([self.ended])
        finally:
            self._connection.close()

    async def _expect(self, kinds: Sequence[bytes], max_output_bytes: int, *, has_begun: bool) -> tuple[bytes, bytes]:
        try:
            kind, body = await self._receive(max_output_bytes)
            if kind in kinds:
                return kind, body
        except (EOFError, ConnectionError):
            await asyncio.wait([self.ended], timeout=LAST_WORDS_SECONDS)
            code = self.ended.result() if self.ended.done() else None
            raise _Lost(_death(code, has_begun)) from None
        except _Nonsense:
            pass
        raise _Lost(_NO_OUTCOME)

    async def _receive(self, max_output_bytes: int) -> tuple[bytes, bytes]:
        """The kind and the body of the next frame. Raises `_Nonsense`, `EOFError` and `ConnectionError`."""
        kind, length, checksum = HEADER.unpack(await self._read(HEADER.size))
        if length > {BEGUN: 0, READY: 0, OUTPUT: max_output_bytes, ERROR: MAX_ERROR_BYTES}.get(kind, -1):
            raise _Nonsense
        body = await self._read(length)
        if zlib.crc32(body) != checksum:
            raise _Nonsense
        return kind, body

    async def _read(self, count: int) -> bytes:
        loop = asyncio.get_running_loop()
        found = bytearray()
        while len(found) < count:
            read = await loop.sock_recv(self._connection, min(count - len(found), READ_BYTES))
            if not read:
                raise EOFError
            found += read
        return bytes(found)

    def _shut(self, direction: int) -> None:
        """Let whoever reads at an end find the end, behind what has been sent so far."""
        with suppress(OSError):
            self._connection.shutdown(direction)


async def _start() -> _Child:
    ours, theirs = socket.socketpair()
    try:
        ours.setblocking(False)
        with theirs:
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
        ours.close()
        raise
    return _Child(process, ours)


def _python() -> Sequence[str]:
    """What starts the Python of this process once more. In a binary it takes `-m` alone, and sees to the rest."""
    if getattr(sys, "frozen", False):
        return (sys.executable,)
    # The path is sent; what is printed is seen although the process may die; a dying one leaves its trace.
    options = ("-P", "-u", "-X", "faulthandler", *(f"-W{option}" for option in sys.warnoptions))
    return (sys.executable, *options)


def _death(code: int | None, has_begun: bool) -> AttemptError:
    """The error of a child that ended with `code` (None: it did not) and gave no answer."""
    if code is None:
        how = "closed its connection to the engine"
    elif code < 0:
        how = f"was ended by signal {_signal_name(-code)}"
    else:
        how = f"ended with exit code {code}"
    if has_begun:
        when = " before the handler returned" if code is None or code >= 0 else ""
        return AttemptError("worker_crashed", f"the process that ran it {how}{when}", False)
    return AttemptError("worker_failed", f"the process that was to run it {how} before it began; see the log", True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
