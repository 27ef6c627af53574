"""`python -m workflow_engine.runtime.worker.child DESCRIPTOR`: run attempts, one after another, and say how each ended.

Started by `isolated.py`, which is at the other end of the descriptor, a socket. Ends by itself after an attempt that
has left something behind, so that nothing runs here beside the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ...observability.logs import configure_logging
from ...plugins.discovery import Catalogue, discover
from ..clock import SystemClock, block
from ..core.backoff import Backoff
from ..core.machine import AttemptError
from ..event_loop import run_to_end
from ..plugin_hooks import Secrets
from .assignment import BEGUN, ERROR, HEADER, LAST_WORDS_SECONDS, OUTPUT, READY, Assignment, frame, read_assignment
from .attempt import begin, run_attempt
from .egress import SharedSession
from .failure import describe_failure
from .pool import CLOSE_SECONDS
from .surroundings import Surroundings, look_around
from .tools import make_tools

log = logging.getLogger(__name__)

MOST_EAGER_TO_BE_KILLED = "1000"
LOOKS = 7
LOOKS_SECONDS = (0.001, 0.05)
"""Between the looks at what an attempt has left behind."""


class _Engine:
    """The engine at the other end of the connection: what it assigns, and that it has gone.

    It is listened to in a thread of its own, so that its end is noticed whatever a handler does.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self._loop = asyncio.get_running_loop()
        self._assignments: asyncio.Queue[bytes] = asyncio.Queue()
        self._is_awaited = True
        threading.Thread(target=self._listen, name="engine-watch", daemon=True).start()

    async def next_assignment(self) -> Assignment | None:
        """Wait for it; None when there will be no more."""
        body = await self._assignments.get()
        return read_assignment(body) if body else None

    def say(self, kind: bytes, body: bytes = b"") -> None:
        """Send a frame."""
        if kind == READY:
            self._is_awaited = True
        self._connection.sendall(frame(kind, body))

    def _listen(self) -> None:
        """Pass on what is assigned. With the engine's end leave nothing behind; if nothing runs, end in order."""
        with suppress(OSError, RuntimeError):  # a RuntimeError: the loop is closed
            while body := self._receive():
                self._is_awaited = False
                self._loop.call_soon_threadsafe(self._assignments.put_nowait, body)
            if self._is_awaited:
                self._loop.call_soon_threadsafe(self._assignments.put_nowait, b"")
                block(LAST_WORDS_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    def _receive(self) -> bytes:
        """The body of the next frame; empty when there is none, or not all of it."""
        header = self._stream.read(HEADER.size)
        length = HEADER.unpack(header)[1] if len(header) == HEADER.size else 0
        body = self._stream.read(length)
        return body if len(body) == length else b""


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
    engine = _Engine(connection)
    assignment = await engine.next_assignment()
    if assignment is None:
        return 0
    catalogue = _set_up(assignment)
    before = look_around()
    while assignment is not None:
        await _run(assignment, catalogue, engine)
        if not await _is_as_before(before):
            connection.shutdown(socket.SHUT_WR)
            break
        engine.say(READY)
        assignment = await engine.next_assignment()
    return 0


def _set_up(assignment: Assignment) -> Catalogue:
    """Become as the engine's own process is; what it says of that is the same in each of its assignments."""
    sys.path[:] = assignment.import_path
    configure_logging(assignment.settings.log_level, assignment.settings.log_format)
    return discover(assignment.settings.plugin_settings)


async def _run(assignment: Assignment, catalogue: Catalogue, engine: _Engine) -> None:
    execution, node, _ = assignment.delivery
    name = execution.graph.handlers[node]
    handler = catalogue.get(name)
    engine.say(BEGUN)
    if handler is None:
        reason = f"a process of its own does not find the handler {name}: it is of no installed plugin"
        _send_outcome(engine, None, AttemptError("worker_failed", reason, True))
        return
    own_id = os.getpid()
    http = SharedSession(allow_private=assignment.settings.allow_private_addresses)
    threads = ThreadPoolExecutor(thread_name_prefix="asyncio")
    asyncio.get_running_loop().set_default_executor(threads)
    folder = assignment.settings.plugin_settings.get("secrets_dir")
    secrets = Secrets(catalogue.plugins, folder if isinstance(folder, Path) else None)
    tools = make_tools(
        http=http.get, secret=secrets.resolve, clock=SystemClock(), max_output_bytes=assignment.max_output_bytes
    )
    running = asyncio.ensure_future(run_attempt(begin(assignment.delivery, handler, tools), tools))
    await asyncio.wait([running])
    if os.getpid() != own_id:
        os._exit(0)  # a copy that the handler has made of this process: it is not asked
    output: bytes | None = None
    error: AttemptError | None
    try:
        output, error = running.result()
    except (asyncio.CancelledError, GeneratorExit) as raised:
        error = describe_failure(raised)
    _send_outcome(engine, output, error)
    threads.shutdown(wait=False)
    await tools.warm.close(CLOSE_SECONDS)
    tools.threads.close()
    await http.close()


def _send_outcome(engine: _Engine, output: bytes | None, error: AttemptError | None) -> None:
    if error is not None:
        engine.say(ERROR, json.dumps(error, ensure_ascii=False).encode())
    else:
        assert output is not None
        engine.say(OUTPUT, output)


async def _is_as_before(before: Surroundings | None) -> bool:
    """Whether the attempt has left nothing behind; what is about to end gets a moment for it."""
    backoff = Backoff(*LOOKS_SECONDS)
    for _ in range(LOOKS):
        if before is not None and len(asyncio.all_tasks()) == 1 and look_around() == before:
            return True
        await asyncio.sleep(backoff.next_seconds())
    return False


def _offer_to_be_killed_first() -> None:
    """Where memory runs out, let Linux end this process rather than the engine, which may be the larger one."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(MOST_EAGER_TO_BE_KILLED)


if __name__ == "__main__":
    sys.exit(main())
