"""One attempt in a process of its own, for an attempt that is suspected of ending the process that runs it.

The child runs the very `run_attempt` that would have run here. It leads a session and a process group of its
own; whatever is left of that group when the attempt is over, or given up, is killed.
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
from contextlib import suppress

from pydantic import TypeAdapter, ValidationError

from ..core.machine import AttemptError
from ..core.queue import Delivery
from .assignment import BEGUN, ERROR, HEADER, MAX_ERROR_BYTES, OUTPUT, ChildSettings, write_assignment

log = logging.getLogger(__name__)

MODULE = "workflow_engine.runtime.worker.child"
STANDARD_ERROR = 2
READ_BYTES = 256 * 1024
LAST_WORDS_SECONDS = 0.5
"""How long a child that has nothing more to say may take to end by itself."""

_ERROR = TypeAdapter(AttemptError)


class _Nonsense(Exception):
    """What stands where an answer belongs is none."""


async def run_isolated(
    delivery: Delivery, max_output_bytes: int, settings: ChildSettings
) -> tuple[bytes | None, AttemptError | None]:
    """As `run_attempt`, in a child; its handler is found there as it was here, so its plugin has to be installed.

    A child that dies of the attempt is the error `worker_crashed`, one that does not get that far `worker_failed`.
    Cancelled or not, the child and what is left of its process group are gone when this returns or raises.
    """
    try:
        child, connection = await _start()
    except (OSError, RuntimeError) as error:  # a RuntimeError: no thread can be started
        log.error("no process can be started for an attempt: %s", error)
        return None, AttemptError("worker_failed", f"no process can be started for it: {error}", True)
    log.info(
        "node %s of execution %s runs in process %d, apart from all else",
        delivery.execution.graph.node_ids[delivery.node],
        delivery.execution.execution_id,
        child.pid,
        extra={"execution_id": delivery.execution.execution_id, "attempt": delivery.attempt},
    )
    ended = asyncio.create_task(child.wait())
    # A process that the child has started may hold the other end open; then nobody else says that it is over.
    ended.add_done_callback(lambda _: _stop_reading(connection))
    try:
        outcome = await _converse(delivery, max_output_bytes, settings, connection, ended)
        await asyncio.wait([ended], timeout=LAST_WORDS_SECONDS)
        return outcome
    finally:
        _kill(child)
        try:
            await asyncio.wait([ended])
        finally:
            connection.close()


async def _start() -> tuple[Process, socket.socket]:
    ours, theirs = socket.socketpair()
    try:
        ours.setblocking(False)
        with theirs:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                # The path is sent; what is printed is seen although the process may die; a dying one leaves its trace.
                *("-P", "-u", "-X", "faulthandler"),
                *(f"-W{option}" for option in sys.warnoptions),
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
    return child, ours


async def _converse(
    delivery: Delivery,
    max_output_bytes: int,
    settings: ChildSettings,
    connection: socket.socket,
    ended: asyncio.Task[int],
) -> tuple[bytes | None, AttemptError | None]:
    """Assign the attempt and await its outcome; `ended` is the child's exit code, once it has one."""
    begun = False
    try:
        await asyncio.get_running_loop().sock_sendall(
            connection, write_assignment(delivery, max_output_bytes, list(sys.path), settings)
        )
        kind, body = await _receive(connection, max_output_bytes)
        if kind == BEGUN:
            begun = True
            kind, body = await _receive(connection, max_output_bytes)
        if kind == OUTPUT and begun:
            return body, None
        if kind == ERROR:
            return None, _ERROR.validate_json(body)
    except (EOFError, ConnectionError):
        await asyncio.wait([ended], timeout=LAST_WORDS_SECONDS)
        return None, _death(ended.result() if ended.done() else None, begun)
    except (_Nonsense, ValidationError):
        pass
    return None, AttemptError("worker_crashed", "the process that ran it wrote something else than an outcome", False)


async def _receive(connection: socket.socket, max_output_bytes: int) -> tuple[bytes, bytes]:
    """The kind and the body of the next frame. Raises `_Nonsense`, `EOFError` and `ConnectionError`."""
    kind, length, checksum = HEADER.unpack(await _read(connection, HEADER.size))
    if length > {BEGUN: 0, OUTPUT: max_output_bytes, ERROR: MAX_ERROR_BYTES}.get(kind, -1):
        raise _Nonsense
    body = await _read(connection, length)
    if zlib.crc32(body) != checksum:
        raise _Nonsense
    return kind, body


async def _read(connection: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    found = bytearray()
    while len(found) < count:
        read = await loop.sock_recv(connection, min(count - len(found), READ_BYTES))
        if not read:
            raise EOFError
        found += read
    return bytes(found)


def _death(code: int | None, begun: bool) -> AttemptError:
    """The error of a child that ended with `code` (None: it did not) and gave no answer."""
    if code is None:
        how = "closed its connection to the engine"
    elif code < 0:
        how = f"was ended by signal {_signal_name(-code)}"
    else:
        how = f"ended with exit code {code}"
    if begun:
        when = " before the handler returned" if code is None or code >= 0 else ""
        return AttemptError("worker_crashed", f"the process that ran it {how}{when}", False)
    return AttemptError("worker_failed", f"the process that was to run it {how} before it began; see the log", True)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _stop_reading(connection: socket.socket) -> None:
    """Let whoever reads find the end behind what has been sent so far."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RD)


def _kill(child: Process) -> None:
    """Kill the child's process group. Its id is nobody else's while anything of the group is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
