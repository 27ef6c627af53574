"""`python -m workflow_engine.runtime.worker.child DESCRIPTOR`: run one attempt for the engine, and say how it ended.

Started by `isolated.py`, which is at the other end of the descriptor, a socket.
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
from contextlib import suppress
from pathlib import Path

from ...observability.logs import configure_logging
from ...plugins.discovery import discover
from ...plugins.handler import Handler
from ..core.machine import AttemptError
from ..event_loop import run_to_end
from .assignment import BEGUN, ERROR, HEADER, OUTPUT, Assignment, frame, read_assignment
from .attempt import run_attempt
from .egress import SharedSession
from .failure import describe_failure

log = logging.getLogger(__name__)

MOST_EAGER_TO_BE_KILLED = "1000"


def main() -> int:
    """Run the attempt that comes over the descriptor; returns the exit code."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # A service manager sends these to every process of a service. What becomes of this one is the engine's affair.
        signal.signal(number, lambda _number, _frame: None)
    connection = socket.socket(fileno=int(sys.argv[1]))
    connection.set_inheritable(False)
    _offer_to_be_killed_first()
    assignment = _receive(connection)
    threading.Thread(target=_end_with_engine, args=(connection,), name="engine-watch", daemon=True).start()
    sys.path[:] = assignment.import_path
    configure_logging(assignment.settings.log_level, assignment.settings.log_format)
    execution, node, _ = assignment.delivery
    name = execution.graph.handlers[node]
    handler = discover(assignment.settings.plugin_settings).get(name)
    if handler is None:
        reason = f"a process of its own does not find the handler {name}: it is of no installed plugin"
        _send_outcome(connection, None, AttemptError("worker_failed", reason, True))
        return 0
    return run_to_end(_run(assignment, handler, connection))


async def _run(assignment: Assignment, handler: Handler, connection: socket.socket) -> int:
    own_id = os.getpid()
    http = SharedSession(allow_private=assignment.settings.allow_private_addresses)
    connection.sendall(frame(BEGUN))
    running = asyncio.create_task(
        run_attempt(assignment.delivery, handler, http.get, assignment.max_output_bytes), name="attempt"
    )
    await asyncio.wait([running])
    if os.getpid() != own_id:
        os._exit(0)  # a copy that the handler has made of this process: it is not asked
    output: bytes | None = None
    error: AttemptError | None
    try:
        output, error = running.result()
    except (asyncio.CancelledError, GeneratorExit) as raised:
        error = describe_failure(raised)
    _send_outcome(connection, output, error)
    await http.close()
    return 0


def _receive(connection: socket.socket) -> Assignment:
    with connection.makefile("rb") as stream:
        header = stream.read(HEADER.size)
        length = HEADER.unpack(header)[1] if len(header) == HEADER.size else 0
        body = stream.read(length)
    if not body or len(body) < length:
        sys.exit("the engine ended before it had said what to run")
    return read_assignment(body)


def _send_outcome(connection: socket.socket, output: bytes | None, error: AttemptError | None) -> None:
    if error is not None:
        connection.sendall(frame(ERROR, json.dumps(error, ensure_ascii=False).encode()))
    else:
        assert output is not None
        connection.sendall(frame(OUTPUT, output))


def _end_with_engine(connection: socket.socket) -> None:
    """Wait for the end of the engine, which has nothing more to say, and leave nothing behind then."""
    with suppress(OSError):
        connection.recv(1)
    with suppress(ProcessLookupError):
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _offer_to_be_killed_first() -> None:
    """Where memory runs out, let Linux end this process rather than the engine, which may be the larger one."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(MOST_EAGER_TO_BE_KILLED)


if __name__ == "__main__":
    sys.exit(main())
