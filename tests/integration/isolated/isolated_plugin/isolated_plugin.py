"""A plugin for the tests of attempts in processes of their own: handlers that behave, and that end their process."""

from __future__ import annotations

import _thread
import asyncio
import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from pydantic import BaseModel

from workflow_engine.plugins import Handler, NodeContext, PermanentError, RetryAfter, handler, hookimpl


@handler("tell")
async def tell(config: dict[str, Any], context: NodeContext) -> Any:
    """Return everything that an attempt is given."""
    return {
        "config": config,
        "parameters": context.parameters,
        "inputs": dict(context.inputs),
        "context": [
            context.execution_id,
            context.node_id,
            context.attempt,
            context.timeout_seconds,
            context.idempotency_key,
        ],
    }


@handler("give")
async def give(config: dict[str, Any], _context: NodeContext) -> Any:
    """Return `value`, or what JSON cannot hold."""
    return {"set": {1}, "nan": float("nan"), "surrogate": "\ud800"}.get(config["value"], config["value"])


@handler("repeat")
async def repeat(config: dict[str, Any], _context: NodeContext) -> Any:
    """Return a long text."""
    return "x" * int(config["count"])


class Impolite(BaseException):
    """Not an Exception."""


class Unprintable(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")


RAISED: dict[str, BaseException] = {
    "permanent": PermanentError("never: ✗", error_type="gone"),
    "later": RetryAfter("later", seconds=12.5, error_type="busy"),
    "later without seconds": RetryAfter("later"),
    "value": ValueError("bad value"),
    "os": OSError(2, "not there"),
    "long": OSError("\x00😀" * 10_000),
    "impolite": Impolite("rude"),
    "unprintable": Unprintable(),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt("me"),
    "cancelled": asyncio.CancelledError("me"),
    "generator exit": GeneratorExit("me"),
}


@handler("raise")
async def raise_(config: dict[str, Any], _context: NodeContext) -> Any:
    """Raise what is wanted."""
    await asyncio.sleep(0)
    raise RAISED[config["what"]]


class Strict(BaseModel):
    """A configuration."""

    count: int


@handler("strict", config=Strict)
async def strict(config: Strict, _context: NodeContext) -> Any:
    """Take a configuration with a model."""
    return config.count


@handler("cancel_itself")
async def cancel_itself(config: dict[str, Any], _context: NodeContext) -> Any:
    """Cancel the task that runs it; `return` before it notices, or not."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    if not config["return"]:
        await asyncio.sleep(0)
    return "returned"


async def _exit() -> None:
    raise SystemExit(3)


@handler("leave_things")
async def leave_things(_config: dict[str, Any], _context: NodeContext) -> Any:
    """Leave tasks and a thread behind that do not end."""

    async def swallow() -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    tasks = [asyncio.create_task(swallow()), asyncio.create_task(_exit())]
    threading.Thread(target=threading.Event().wait).start()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return len(tasks)


# --- ending the process --------------------------------------------------------------------------------


def _answer_descriptor() -> int:
    """The engine's connection: a handler can find it, if it wants to do harm."""
    return int(sys.argv[1])


def _write(data: bytes) -> None:
    os.write(_answer_descriptor(), data)


def _end_the_connection() -> None:
    socket.socket(fileno=os.dup(_answer_descriptor())).shutdown(socket.SHUT_WR)


def _segmentation_fault() -> None:
    ctypes.string_at(0)


DEATHS = {
    "exit 0": lambda: os._exit(0),
    "exit 3": lambda: os._exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "abort": os.abort,
    "segmentation fault": _segmentation_fault,
    "real-time signal": lambda: os.kill(os.getpid(), signal.SIGRTMIN + 5),
    "end the connection": _end_the_connection,
    "close the descriptor": lambda: os.close(_answer_descriptor()),
    "rubbish": lambda: _write(b"hello, this is not the answer that you want"),
    "no such kind": lambda: _write(b"X" + bytes(8)),
    "huge": lambda: _write(b"O" + b"\xff" * 8),
    "wrong checksum": lambda: _write(b"O" + (4).to_bytes(4) + bytes(4) + b"null"),
    "begun again": lambda: _write(b"B" + bytes(8)),
}


@handler("die")
async def die(config: dict[str, Any], _context: NodeContext) -> Any:
    """Do what cannot be survived; then wait, or `return`."""
    DEATHS[config["how"]]()
    if not config.get("return"):
        threading.Event().wait()


# --- not ending ----------------------------------------------------------------------------------------


def _connect(port: int) -> socket.socket:
    """Say that it has begun. The other end sees the connection end when the last process that holds it is gone."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(f"{os.getpid()}\n".encode())
    connection.set_inheritable(True)
    return connection


@handler("stay")
async def stay(config: dict[str, Any], _context: NodeContext) -> Any:
    """Connect to `port`, then do not end, in the way that is wanted; or return."""
    connection = _connect(config["port"])
    match config["how"]:
        case "hang":
            await asyncio.Event().wait()
        case "swallow":
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        case "block":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            threading.Event().wait()
        case "wait":
            connection.setblocking(False)
            await asyncio.get_running_loop().sock_recv(connection, 1)
        case "sigterm":
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0)
    return connection.fileno() > 0


@handler("hang")
async def hang(_config: dict[str, Any], _context: NodeContext) -> Any:
    """Do not end."""
    await asyncio.Event().wait()


@handler("fork")
async def fork(config: dict[str, Any], _context: NodeContext) -> Any:
    """Make two copies of the process, each of which makes one more; then `return`, `die` or `hang`.

    The copies hang, or return as the original does.
    """
    connection = _connect(config["port"])
    copies = [os.fork() for _ in range(2)]
    if 0 in copies and config["copies"] == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait()
    if 0 not in copies and config["original"] == "die":
        os._exit(3)
    if 0 not in copies and config["original"] == "hang":
        await asyncio.Event().wait()
    return [connection.fileno() > 0, min(copies) > 0]


@handler("run_program")
async def run_program(config: dict[str, Any], _context: NodeContext) -> Any:
    """Start a program that outlives the attempt."""
    connection = _connect(config["port"])
    await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import threading; threading.Event().wait()", pass_fds=(connection.fileno(),)
    )
    return "returned"


# --- one after another ---------------------------------------------------------------------------------

_kept: list[Any] = []


def _start_program() -> Any:
    return subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])


def _start_program_by_another() -> Any:
    return subprocess.run(["/bin/sh", "-c", "sleep 1000 &"], check=True)


TRACES = {
    "a task": lambda: asyncio.ensure_future(asyncio.Event().wait()),
    "a thread": lambda: threading.Thread(target=threading.Event().wait).start(),
    "a daemon thread": lambda: threading.Thread(target=threading.Event().wait, daemon=True).start(),
    "a nameless thread": lambda: _thread.start_new_thread(threading.Event().wait, ()),
    "a thread of the loop": lambda: asyncio.get_running_loop().run_in_executor(None, threading.Event().wait),
    "another folder": lambda: os.chdir("/"),
    "a descriptor": lambda: os.dup(0),
    "a program": _start_program,
    "a program of a program": _start_program_by_another,
    "nothing": lambda: None,
}


@handler("leave")
async def leave(config: dict[str, Any], _context: NodeContext) -> Any:
    """Leave `what` behind; return the id of the process."""
    _kept.append(TRACES[config["what"]]())
    return os.getpid()


@handler("use_threads")
async def use_threads(_config: dict[str, Any], _context: NodeContext) -> Any:
    """Do something in threads, that end; return the id of the process."""
    thread = threading.Thread(target=os.getpid)
    thread.start()
    thread.join()
    return await asyncio.to_thread(os.getpid)


@handler("set_trap")
async def set_trap(_config: dict[str, Any], _context: NodeContext) -> Any:
    """Break something, so that the next attempt ends the process."""
    _kept.append("a trap")
    return os.getpid()


@handler("step")
async def step(_config: dict[str, Any], _context: NodeContext) -> Any:
    """Do what is innocent."""
    if "a trap" in _kept:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@handler("say_goodbye")
async def say_goodbye(_config: dict[str, Any], _context: NodeContext) -> Any:
    """Have something said when the process ends in order."""
    atexit.register(sys.stderr.write, "ended in order\n")
    return os.getpid()


# --- surroundings --------------------------------------------------------------------------------------


@handler("fetch")
async def fetch(config: dict[str, Any], context: NodeContext) -> Any:
    """Get a URL; close the session, and do it again."""
    texts = []
    for _ in range(2):
        async with context.http.get(config["url"]) as response:
            texts.append(await response.text())
        await context.http.close()
    return texts


@handler("print")
async def print_(_config: dict[str, Any], _context: NodeContext) -> Any:
    """Write to both outputs, then die."""
    sys.stdout.write("printed before the end\n")
    sys.stderr.write("complained before the end\n")
    os.kill(os.getpid(), signal.SIGKILL)


_settings: dict[str, Any] = {}


@handler("show_settings")
async def show_settings(_config: dict[str, Any], _context: NodeContext) -> Any:
    """Return what the plugin was given."""
    return {name: str(value) for name, value in _settings.items()}


@hookimpl
def workflow_engine_handlers(settings: dict[str, Any]) -> list[Handler]:
    """The handlers of this plugin."""
    _settings.update(settings)
    return [each for each in globals().values() if isinstance(each, Handler)]
