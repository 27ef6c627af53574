"""The proxy of the outage tests does to connections what it says, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from tcp_proxy import TcpProxy

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[TcpProxy], Awaitable[Connection]]

PATIENCE_SECONDS = 30.0


class Echo:
    """A server that answers each line with itself, in upper case, and knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.asked.append(line)
                writer.write(line.upper())
                await writer.drain()
            writer.write(b"bye\n")
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1")
    async with server:
        echo.port = server.sockets[0].getsockname()[1]
        yield echo


@pytest.fixture
async def proxy(echo: Echo) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(echo.port, seed=1) as proxy:
        yield proxy


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`await connect(proxy)`: a client's connection, closed at the end."""
    made: list[Connection] = []

    async def connect(proxy: TcpProxy) -> Connection:
        made.append(await asyncio.open_connection("127.0.0.1", proxy.port))
        return made[-1]

    yield connect
    for _, writer in made:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ask(connection: Connection, line: bytes) -> bytes:
    """The answer to a line; what comes instead when the connection ends: nothing, or `ConnectionError`."""
    reader, writer = connection
    async with asyncio.timeout(PATIENCE_SECONDS):
        writer.write(line)
        await writer.drain()
        return await reader.readline()


async def assert_reset(connection: Connection) -> None:
    with pytest.raises(ConnectionError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await connection[0].read()


async def test_it_passes_on_what_is_said_until_the_end(proxy: TcpProxy, echo: Echo, connect: Connect) -> None:
    connections = [await connect(proxy) for _ in range(3)]
    assert [await ask(each, b"one\n") for each in connections] == [b"ONE\n"] * 3
    assert await ask(connections[0], b"two\n") == b"TWO\n"
    connections[2][1].write_eof()
    assert await connections[2][0].read() == b"bye\n"
    assert proxy.accepted_count == 3


async def test_what_is_large_arrives_whole_and_in_order_however_late(
    proxy: TcpProxy, echo: Echo, connect: Connect
) -> None:
    proxy.latency_seconds = 0.001
    connection = await connect(proxy)
    lines = b"".join(b"%d\n" % number for number in range(50_000))
    connection[1].write(lines)
    connection[1].write_eof()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await connection[0].read() == lines + b"bye\n"


async def test_the_latency_is_of_the_seed(echo: Echo, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    async def waits(seed: int) -> list[float]:
        found: list[float] = []

        async def note(seconds: float) -> None:
            found.append(seconds)

        async with TcpProxy(echo.port, seed=seed) as proxy:
            proxy.latency_seconds = 0.5
            connection = await connect(proxy)
            with monkeypatch.context() as patched:
                patched.setattr("tcp_proxy.asyncio.sleep", note)
                for _ in range(3):
                    await ask(connection, b"x\n")
        return found

    first = await waits(7)
    assert len(first) == 6
    assert all(0 <= each <= 0.5 for each in first)
    assert await waits(7) == first
    assert await waits(8) != first


async def test_cut_resets_what_is_open_and_takes_new_ones(proxy: TcpProxy, echo: Echo, connect: Connect) -> None:
    old = await connect(proxy)
    await ask(old, b"one\n")
    proxy.cut()
    await assert_reset(old)
    assert await ask(await connect(proxy), b"two\n") == b"TWO\n"


async def test_refuse_resets_everything_until_it_is_healed(proxy: TcpProxy, echo: Echo, connect: Connect) -> None:
    old = await connect(proxy)
    await ask(old, b"one\n")
    proxy.refuse()
    await assert_reset(old)
    await assert_reset(await connect(proxy))
    proxy.heal()
    assert await ask(await connect(proxy), b"two\n") == b"TWO\n"
    assert echo.asked == [b"one\n", b"two\n"]


async def test_half_open_connections_are_accepted_and_never_answered(
    proxy: TcpProxy, echo: Echo, connect: Connect
) -> None:
    old = await connect(proxy)
    await ask(old, b"one\n")
    proxy.ignore_new()
    ignored = await connect(proxy)
    ignored[1].write(b"two\n")
    assert await ask(old, b"three\n") == b"THREE\n"
    assert echo.asked == [b"one\n", b"three\n"]
    proxy.heal()
    await assert_reset(ignored)
    assert await ask(old, b"four\n") == b"FOUR\n"


async def test_a_blackhole_holds_everything_until_it_is_healed(proxy: TcpProxy, echo: Echo, connect: Connect) -> None:
    old = await connect(proxy)
    await ask(old, b"one\n")
    proxy.blackhole()
    new = await connect(proxy)
    answers = [asyncio.create_task(ask(each, b"two\n")) for each in (old, new)]
    while proxy.accepted_count < 2:
        await asyncio.sleep(0)
    assert echo.asked == [b"one\n"]
    assert not any(each.done() for each in answers)
    proxy.heal()
    assert await asyncio.gather(*answers) == [b"TWO\n", b"TWO\n"]
    assert echo.asked == [b"one\n", b"two\n", b"two\n"]


async def test_connections_of_a_blackhole_can_be_cut(proxy: TcpProxy, echo: Echo, connect: Connect) -> None:
    connection = await connect(proxy)
    proxy.blackhole()
    connection[1].write(b"one\n")
    while not proxy.open_count:
        await asyncio.sleep(0)
    proxy.cut()
    await assert_reset(connection)
    while proxy.open_count:
        await asyncio.sleep(0)
    proxy.heal()
    assert echo.asked == []


async def test_a_dropped_answer_is_of_a_request_that_was_done(proxy: TcpProxy, echo: Echo, connect: Connect) -> None:
    connections = [await connect(proxy) for _ in range(2)]
    trap = proxy.drop_answer(lambda data: b"two" in data)
    assert await ask(connections[0], b"one\n") == b"ONE\n"
    connections[1][1].write(b"two\n")
    await assert_reset(connections[1])
    assert trap.sprung.is_set()
    assert echo.asked == [b"one\n", b"two\n"]
    assert await ask(connections[0], b"two\n") == b"TWO\n"


async def test_a_dropped_request_was_not_done(proxy: TcpProxy, echo: Echo, connect: Connect) -> None:
    connections = [await connect(proxy) for _ in range(2)]
    trap = proxy.drop_request(lambda data: b"two" in data)
    connections[0][1].write(b"two\n")
    await assert_reset(connections[0])
    assert trap.sprung.is_set()
    assert await ask(connections[1], b"two\n") == b"TWO\n"
    assert echo.asked == [b"two\n"]


async def test_a_blackhole_can_begin_at_a_request(proxy: TcpProxy, echo: Echo, connect: Connect) -> None:
    connection = await connect(proxy)
    trap = proxy.blackhole_at(lambda data: b"two" in data)
    assert await ask(connection, b"one\n") == b"ONE\n"
    answer = asyncio.create_task(ask(connection, b"two\n"))
    await trap.sprung.wait()
    assert echo.asked == [b"one\n"]
    proxy.heal()
    assert await answer == b"TWO\n"


async def test_a_server_that_is_away_is_a_reset(connect: Connect, unused_tcp_port: int) -> None:
    async with TcpProxy(unused_tcp_port) as astray:
        connection = await connect(astray)
        await assert_reset(connection)


async def test_connections_end_with_the_proxy(echo: Echo, connect: Connect) -> None:
    async with TcpProxy(echo.port) as proxy:
        connections = [await connect(proxy) for _ in range(2)]
        await ask(connections[0], b"one\n")
        proxy.blackhole()
    for each in connections:
        await assert_reset(each)
    assert proxy.open_count == 0
