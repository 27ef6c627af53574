"""A TCP proxy whose network misbehaves when it is told to, to stand between the engine and what it depends on.

It runs in the test's own event loop. What it does is decided by what the test says and by a seed.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from random import Random
from types import TracebackType
from typing import Self

READ_BYTES = 64 * 1024

Wanted = Callable[[bytes], bool]


class Trap:
    """Something that is to happen at a request. `sprung` is set when it has."""

    def __init__(self, wanted: Wanted, spring: Callable[[_Connection, Trap], bool]) -> None:
        """`spring` says whether the request is passed on."""
        self.wanted = wanted
        self.spring = spring
        self.sprung = asyncio.Event()


class TcpProxy:
    """Passes connections to `port` on until told otherwise.

    ```
    async with TcpProxy(server.port, seed=1) as proxy:
        ...  # connect to 127.0.0.1, proxy.port
        proxy.blackhole()
        proxy.heal()
    ```
    """

    def __init__(self, port: int, *, host: str = "127.0.0.1", seed: int = 0) -> None:
        """`port` and `host` are where the connections are passed on to."""
        self._target = (host, port)
        self._random = Random(seed)
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._traps: list[Trap] = []
        self._requests_pass = asyncio.Event()
        self._answers_pass = asyncio.Event()
        self._requests_pass.set()
        self._answers_pass.set()
        self._refusing = False
        self._answering = True
        self.latency_seconds = 0.0
        """Each piece is held back for up to this long, in each direction: a draw from the seed. The order stays."""
        self.accepted_count = 0
        """How many connections have been accepted so far."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        tasks = [each.task for each in self._connections]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def lead_to(self, port: int) -> None:
        """Pass new connections on to another port of the same host."""
        self._target = (self._target[0], port)

    @property
    def open_count(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    def cut(self) -> None:
        """Reset every connection; new ones are passed on as before."""
        for each in list(self._connections):
            each.cut()

    def refuse(self) -> None:
        """Reset every connection, and each new one as soon as it is made, until `heal`."""
        self._refusing = True
        self.cut()

    def ignore_new(self) -> None:
        """Half-open: new connections are accepted and never answered, until `heal`, which resets them. Others go on."""
        self._answering = False

    def blackhole(self) -> None:
        """Let nothing pass in either direction, of connections old and new, until `heal`.

        What is sent meanwhile is not lost: it arrives then, as over TCP when a network is whole again.
        """
        self.hold_requests()
        self.hold_answers()

    def hold_requests(self) -> None:
        """The same, of what clients send alone: one way."""
        self._requests_pass.clear()

    def hold_answers(self) -> None:
        """The same, of what comes back alone: what was asked for is done meanwhile."""
        self._answers_pass.clear()

    def heal(self) -> None:
        """Be a proxy again."""
        self._refusing = False
        self._answering = True
        self._requests_pass.set()
        self._answers_pass.set()
        for each in list(self._connections):
            if each.ignored:
                each.cut()

    def calm(self) -> None:
        """`heal`, at full speed, and what was to happen at a request does not."""
        self.latency_seconds = 0.0
        self._traps.clear()
        self.heal()

    def drop_answer(self, wanted: Wanted) -> Trap:
        """Pass the next request that is `wanted` on, then reset its connection instead of passing the answer back.

        The answer is awaited first: what was asked for has been done by then.
        """

        def spring(connection: _Connection, trap: Trap) -> bool:
            connection.answer_dropped_by = trap
            return True

        return self._set(Trap(wanted, spring))

    def drop_request(self, wanted: Wanted) -> Trap:
        """Reset the connection of the next request that is `wanted`, instead of passing it on."""

        def spring(_connection: _Connection, trap: Trap) -> bool:
            trap.sprung.set()
            return False

        return self._set(Trap(wanted, spring))

    def blackhole_at(self, wanted: Wanted) -> Trap:
        """`blackhole` at the next request that is `wanted`, which is held too."""

        def spring(_connection: _Connection, trap: Trap) -> bool:
            self.blackhole()
            trap.sprung.set()
            return True

        return self._set(Trap(wanted, spring))

    def _set(self, trap: Trap) -> Trap:
        self._traps.append(trap)
        return trap

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted_count += 1
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(self, task, reader, writer, Random(self._random.random()))
        self._connections.add(connection)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await connection.run(self._target)
        finally:
            self._connections.discard(connection)
            connection.reset()


class _Connection:
    """A client's connection and the one that was made for it."""

    def __init__(
        self,
        proxy: TcpProxy,
        task: asyncio.Task[None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        random: Random,
    ) -> None:
        self.task = task
        self.ignored = not proxy._answering
        self._proxy = proxy
        self._client = (reader, writer)
        self._writers = [writer]
        self._random = random
        self.answer_dropped_by: Trap | None = None

    def cut(self) -> None:
        """Reset both sides, and end what passes between them."""
        self.reset()
        self.task.cancel()

    def reset(self) -> None:
        """Reset both sides."""
        for writer in self._writers:
            if not writer.is_closing():
                connection = writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def run(self, target: tuple[str, int]) -> None:
        """Pass on what comes, until both sides have said all or one is reset."""
        if self._proxy._refusing:
            return
        reader, writer = self._client
        if self.ignored:
            await _read_out(reader)
            return
        await self._proxy._requests_pass.wait()
        upstream_reader, upstream = await asyncio.open_connection(*target)
        self._writers.append(upstream)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._pass(reader, upstream, self._take_request, self._proxy._requests_pass))
            both.create_task(self._pass(upstream_reader, writer, self._take_answer, self._proxy._answers_pass))

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        take: Callable[[bytes], bool],
        passing: asyncio.Event,
    ) -> None:
        """Pass on what comes from one side. A reset of one is a reset of the other."""
        try:
            while data := await reader.read(READ_BYTES):
                if not take(data):
                    self.cut()
                    return
                await passing.wait()
                if self._proxy.latency_seconds:
                    await asyncio.sleep(self._random.uniform(0, self._proxy.latency_seconds))
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            self.cut()

    def _take_request(self, data: bytes) -> bool:
        """Whether what a client sends is to be passed on."""
        for trap in self._proxy._traps:
            if trap.wanted(data):
                self._proxy._traps.remove(trap)
                return trap.spring(self, trap)
        return True

    def _take_answer(self, _data: bytes) -> bool:
        """Whether what comes back is to be passed on."""
        if self.answer_dropped_by is None:
            return True
        self.answer_dropped_by.sprung.set()
        return False


async def _read_out(reader: asyncio.StreamReader) -> None:
    while await reader.read(READ_BYTES):
        pass
