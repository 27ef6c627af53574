"""Commands as processes of their own, and what they meet there."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any, NamedTuple

PATIENCE_SECONDS = 60.0

# Loaded by the processes under test through an entry point, as any installed plugin is.
PLUGIN = '''
import asyncio
import sys
import threading

from workflow_engine.plugins import handler, hookimpl


@handler("fail")
async def fail(config, context):
    raise ValueError("it went wrong")


@handler("hang")
async def hang(config, context):
    await asyncio.Event().wait()


@handler("swallow")
async def swallow(config, context):
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass


@handler("blocked_thread")
async def blocked_thread(config, context):
    await asyncio.to_thread(threading.Event().wait)


async def leave(how):
    raise how("a task of a handler")


@handler("exit_in_task")
async def exit_in_task(config, context):
    await asyncio.gather(leave({"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[config["how"]]))


@handler("meet")
async def meet(config, context):
    """Say that it has begun, and wait to be told how to go on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", config["port"])
    writer.write(b"begun\\n")
    answer = await reader.readline()
    writer.close()
    return answer.decode().strip()


@hookimpl
def workflow_engine_handlers():
    return [fail, hang, swallow, blocked_thread, exit_in_task, meet]
'''


class Done(NamedTuple):
    """What a command came to."""

    code: int
    output: str
    errors: str

    @property
    def document(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.output)

    @property
    def rows(self) -> list[list[str]]:
        """What it printed as a table, by words."""
        return [line.split() for line in self.output.splitlines()]


class Process:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stdout = b""
        self.stderr = b""

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def line(self, stream: str, containing: str) -> str:
        """Read on until a line contains that."""
        reader = getattr(self._process, stream)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line := await reader.readline():
                setattr(self, stream, getattr(self, stream) + line)
                if containing in line.decode():
                    return str(line.decode())
        raise AssertionError(f"{stream} ended without {containing!r}: {self.stdout!r} {self.stderr!r}")

    async def end(self) -> int:
        """Wait for the end; the exit code."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            stdout, stderr = await self._process.communicate()
            self.stdout += stdout
            self.stderr += stderr
            assert self._process.returncode is not None
            return self._process.returncode

    @property
    def errors(self) -> str:
        return self.stderr.decode()

    @property
    def output(self) -> str:
        return self.stdout.decode()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()


class Meeting:
    """Where the handler "meet" reports: a server in this process."""

    def __init__(self, port: int, arrivals: asyncio.Queue[asyncio.StreamWriter]) -> None:
        self.port = port
        self._arrivals = arrivals

    async def begun(self) -> asyncio.StreamWriter:
        """Wait until an attempt has begun; write a line to it to end it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._arrivals.get()
