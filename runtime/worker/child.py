"""`python -m workflow_engine.runtime.worker.child DESCRIPTOR`: run attempts, one after another, and say how each ended.

Started by `isolated.py`, which is at the other end of the descriptor, a socket. One for suspects ends by itself after
an attempt that has left something behind, so that nothing runs here beside the next one; one of the lane `process`
keeps what its handlers have opened, and ends after many attempts, or one that ran out of memory.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ...observability.logs import configure_logging
from ...plugins.discovery import Catalogue, discover
from ..clock import SystemClock, block
from ..core.backoff import Backoff
from ..core.machine import AttemptError
from ..core.queue import Delivery
from ..event_loop import run_to_end
from ..plugin_hooks import Secrets
from .assignment import (
    ERROR,
    HEADER,
    OUTPUT,
    PROGRESS,
    READY,
    SetUp,
    frame,
    leave_seconds,
    read_assignment,
    read_set_up,
)
from .attempt import Tools, begin, run_attempt
from .egress import SharedSession
from .failure import describe_failure
from .forks import Original
from .surroundings import Surroundings, look_around
from .tools import make_tools

log = logging.getLogger(__name__)

MOST_EAGER_TO_BE_KILLED = "1000"
LOOKS = 7
LOOKS_SECONDS = (0.001, 0.05)
"""Between the looks at what an attempt has left behind."""
RECYCLED_AFTER = 5_000
"""Attempts in the lane `process`: then whatever they have left behind goes with the process."""
NICENESS = 5
"""So much less of a busy processor than the engine gets that waits for it."""


class _Engine:
    """The engine at the other end of the connection: what it sends, and that it has gone.

    Its end is noticed in a thread of its own, whatever a handler does.
    """

    def __init__(self, connection: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self.is_busy = False
        """Whether an attempt runs."""
        self.patience_seconds = 0.0

    async def receive(self) -> bytes:
        """The body of the next frame; empty when there will be no more."""
        try:
            _, length, _ = HEADER.unpack(await self._reader.readexactly(HEADER.size))
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    def say(self, kind: bytes, body: bytes = b"", *, is_ready: bool = False) -> None:
        """Send a frame, and behind it that another attempt may follow."""
        self._writer.write(frame(kind, body) + (frame(READY) if is_ready else b""))

    def say_no_more(self) -> None:
        """Let the engine find the end, behind what has been sent so far."""
        with suppress(OSError):
            self._writer.write_eof()

    def say_from_anywhere(self, kind: bytes, body: bytes) -> None:
        """The same from any thread, soon."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.say, kind, body)

    async def said(self) -> None:
        """Wait until everything is sent."""
        with suppress(ConnectionError):
            await self._writer.drain()

    def watch(self) -> None:
        """With the engine's end leave nothing behind; if nothing runs, end in order."""
        threading.Thread(target=self._watch, name="engine-watch", daemon=True).start()

    def _watch(self) -> None:
        end = select.poll()
        end.register(self._connection.fileno(), getattr(select, "POLLRDHUP", 0))
        end.poll()
        if not self.is_busy:
            block(self.patience_seconds)
        with suppress(ProcessLookupError):
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)


class _Station:
    """What attempts are run with here: for suspects anew for each of them, in the lane once."""

    def __init__(self, set_up: SetUp, catalogue: Catalogue) -> None:
        self._set_up = set_up
        self._http = SharedSession(allow_private=set_up.settings.allow_private_addresses)
        folder = set_up.settings.plugin_settings.get("secrets_dir")
        secrets = Secrets(catalogue.plugins, folder if isinstance(folder, Path) else None)
        self.tools: Tools = make_tools(
            http=self._http.get, secret=secrets.resolve, clock=SystemClock(), max_output_bytes=set_up.max_output_bytes
        )
        self._executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
        asyncio.get_running_loop().set_default_executor(self._executor)

    async def close(self) -> None:
        """Close what was opened."""
        self._executor.shutdown(wait=False)
        await self.tools.warm.close(leave_seconds(self._set_up))
        self.tools.threads.close()
        await self._http.close()


def main() -> int:
    """Run the attempts that come over the descriptor; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # A service manager sends these to every process of a service. What becomes of this one is the engine's affair.
        signal.signal(number, lambda _number, _frame: None)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    _offer_to_be_killed_first()
    return run_to_end(_serve(connection))


async def _serve(connection: socket.socket) -> int:
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    writer.transport.set_write_buffer_limits(0)
    engine = _Engine(connection, reader, writer)
    body = await engine.receive()
    if not body:
        return 0
    set_up = read_set_up(body)
    catalogue = _become(set_up)
    engine.patience_seconds = leave_seconds(set_up)
    engine.watch()
    await (_serve_suspects if set_up.is_for_suspects else _serve_lane)(set_up, catalogue, engine)
    await engine.said()
    writer.transport.abort()
    return 0


async def _serve_suspects(set_up: SetUp, catalogue: Catalogue, engine: _Engine) -> None:
    before = look_around()
    engine.say(READY)
    while body := await engine.receive():
        engine.is_busy = True
        station = _Station(set_up, catalogue)
        engine.say(*await _run(read_assignment(body), catalogue, station.tools, engine))
        await station.close()
        await engine.said()
        if not await _is_as_before(before):
            engine.say_no_more()
            return
        engine.is_busy = False
        engine.say(READY)


async def _serve_lane(set_up: SetUp, catalogue: Catalogue, engine: _Engine) -> None:
    station = _Station(set_up, catalogue)
    _limit_memory(set_up.memory_bytes)
    with suppress(OSError):
        os.nice(NICENESS)
    engine.say(READY)
    for number in range(1, RECYCLED_AFTER + 1):
        body = await engine.receive()
        if not body:
            break
        engine.is_busy = True
        kind, answer = await _run(read_assignment(body), catalogue, station.tools, engine)
        engine.is_busy = False
        # What is open may have tasks of its own.
        has_leaked = len(asyncio.all_tasks()) > 1 and not station.tools.warm.is_open
        is_out_of_memory = kind == ERROR and answer.startswith(b'["MemoryError"')
        may_go_on = not has_leaked and not is_out_of_memory and number < RECYCLED_AFTER
        engine.say(kind, answer, is_ready=may_go_on)
        if not may_go_on:
            break
    engine.say_no_more()
    await station.close()


def _become(set_up: SetUp) -> Catalogue:
    """Become as the engine's own process is."""
    sys.path[:] = set_up.import_path
    configure_logging(set_up.settings.log_level, set_up.settings.log_format)
    return discover(set_up.settings.plugin_settings)


async def _run(delivery: Delivery, catalogue: Catalogue, tools: Tools, engine: _Engine) -> tuple[bytes, bytes]:
    """Run an attempt; returns the frame that says how it ended."""
    name = delivery.execution.graph.handlers[delivery.node]
    handler = catalogue.get(name)
    if handler is None:
        reason = f"a process of its own does not find the handler {name}: it is of no installed plugin"
        return _answer(None, AttemptError("worker_failed", reason, True))
    original = Original()
    timeout_seconds = delivery.execution.graph.timeouts_seconds[delivery.node]
    attempt = begin(delivery, handler, tools, tools.services.monotonic() + timeout_seconds)
    attempt.context.on_progress = _teller(engine)
    running = asyncio.ensure_future(run_attempt(attempt, tools))
    await asyncio.wait([running])
    original.end_copies()
    output: bytes | None = None
    error: AttemptError | None
    try:
        output, error = running.result()
    except (asyncio.CancelledError, GeneratorExit) as raised:
        error = describe_failure(raised)
    return _answer(output, error)


def _teller(engine: _Engine) -> Callable[[float | str], None]:
    return lambda done: engine.say_from_anywhere(PROGRESS, json.dumps(done).encode())


def _answer(output: bytes | None, error: AttemptError | None) -> tuple[bytes, bytes]:
    if error is not None:
        return ERROR, json.dumps(error, ensure_ascii=False).encode()
    assert output is not None
    return OUTPUT, output


async def _is_as_before(before: Surroundings | None) -> bool:
    """Whether the attempt has left nothing behind; what is about to end gets a moment for it."""
    backoff = Backoff(*LOOKS_SECONDS)
    for _ in range(LOOKS):
        if before is not None and len(asyncio.all_tasks()) == 1 and look_around() == before:
            return True
        await asyncio.sleep(backoff.next_seconds())
    return False


def _limit_memory(memory_bytes: int | None) -> None:
    if memory_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _offer_to_be_killed_first() -> None:
    """Where memory runs out, let Linux end this process rather than the engine, which may be the larger one."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(MOST_EAGER_TO_BE_KILLED)


if __name__ == "__main__":
    sys.exit(main())
