"""Counts what is sent to Redis or Valkey, by its MONITOR: INFO counts what scripts call as well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

LONGEST_LINE_BYTES = 64 * 1024 * 1024
BY_A_SCRIPT = b" lua] "
SOURCE_BYTES = 64
"""Within the first so many bytes of a line is said where a command came from."""


class CommandCounter:
    """The commands so far of all clients. It slows the server down: not for a run that is timed."""

    def __init__(self) -> None:
        self._commands = 0
        self._mark = b""
        self._marked = asyncio.Event()

    async def count(self, echo: Callable[[bytes], Any]) -> int:
        """How many there were. `echo` sends one that says what it is given: all before it are counted then."""
        self._mark = b"counted at %d" % self._commands
        self._marked.clear()
        echo(self._mark)
        await self._marked.wait()
        return self._commands

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            self._commands += BY_A_SCRIPT not in line[:SOURCE_BYTES]
            if self._mark and self._mark in line:
                self._marked.set()


@asynccontextmanager
async def counting_commands(host: str, port: int) -> AsyncIterator[CommandCounter]:
    """A counter of what is sent meanwhile."""
    reader, writer = await asyncio.open_connection(host, port, limit=LONGEST_LINE_BYTES)
    writer.write(b"MONITOR\r\n")
    assert await reader.readline() == b"+OK\r\n"
    counter = CommandCounter()
    watching = asyncio.get_running_loop().create_task(counter._watch(reader))
    try:
        yield counter
    finally:
        watching.cancel()
        writer.close()
