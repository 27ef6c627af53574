"""A client that costs little: prepared bytes over raw connections, no task and no parser for a request.

Server and driver share two cores, so what the driver spends, the server has not. A user is a generator
that yields the bytes of its next request and is sent the answer's status and body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

Address = tuple[str, int]

BULK_END = b"\r\n0\r\n\r\n"


class Answer(NamedTuple):
    """One response."""

    status: int
    body: bytes


User = Generator[bytes, Answer, None]

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


def request(method: str, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
    """The bytes of a request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if body is None:
        return f"{head}\r\n".encode()
    return f"{head}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


class _Connection(asyncio.Protocol):
    """One user on one connection that is kept alive."""

    def __init__(self, user: User, done: asyncio.Future[None]) -> None:
        self._user = user
        self._done = done
        self._received = bytearray()
        self._transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def start(self) -> None:
        """Send the first request."""
        self._transport.write(next(self._user))

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = _take_answer(self._received)
        if answer is None:
            return
        try:
            self._transport.write(self._user.send(answer))
        except StopIteration:
            self._end(None)
        except Exception as error:
            self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _end(self, error: Exception | None) -> None:
        if error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(error)
        self._transport.close()


def _take_answer(received: bytearray) -> Answer | None:
    head_end = received.find(_HEAD_END)
    if head_end < 0:
        return None
    head = bytes(received[: head_end + 2]).lower()
    at = head.index(_LENGTH) + len(_LENGTH)
    end = head_end + len(_HEAD_END) + int(head[at : head.index(b"\r", at)])
    if len(received) < end:
        return None
    answer = Answer(int(head[9:12]), bytes(received[head_end + len(_HEAD_END) : end]))
    del received[:end]
    return answer


async def drive(address: Address, users: Sequence[User]) -> float:
    """Let the users loose at the same time, a connection each; seconds until the last of them is done."""
    loop = asyncio.get_running_loop()
    connections, ends = [], []
    for user in users:
        ends.append(loop.create_future())
        _, connection = await loop.create_connection(lambda user=user: _Connection(user, ends[-1]), *address)
        connections.append(connection)
    began = loop.time()
    for connection in connections:
        connection.start()
    await asyncio.gather(*ends)
    return loop.time() - began


async def drive_bulk(address: Address, path: str, line: bytes, lines: int) -> float:
    """Send one request with that many lines, reading the answer meanwhile; seconds until its last line."""
    began = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request("POST", path, line * lines, "application/x-ndjson"))
    answered = 0
    tail = b""
    while not tail.endswith(BULK_END):
        data = await reader.read(65_536)
        assert data, (tail, answered)
        answered += data.count(b"}\n")
        tail = (tail + data)[-1000:]
    writer.close()
    assert answered == lines, (tail, answered)
    return asyncio.get_running_loop().time() - began
