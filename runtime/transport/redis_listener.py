"""The connection that hears the news, and notices when it hears nothing any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from .redis_connections import ERRORS, RedisConnections


async def subscribe(connections: RedisConnections, channel: str) -> AsyncGenerator[bytes | None, None]:
    """What is published from now on; None first, when all is heard. Raises `BrokerUnavailable`.

    A silent connection is asked for a sign of life, so that one whose other side has vanished is noticed within twice
    the time limit. It is never made again here: what was published meanwhile would be lost unseen.
    """
    connection: AbstractConnection | None = None
    try:
        async with asyncio.timeout(connections.timeout_seconds):
            connection = await connections.connect_apart()
            await connection.send_command("SUBSCRIBE", channel)
            await connection.read_response()
        yield None
        while True:
            yield await _next(connection, connections.timeout_seconds)
    except ERRORS as error:
        raise await connections.fail(error) from error
    finally:
        if connection is not None:
            await connections.disconnect_apart(connection)


async def _next(connection: AbstractConnection, timeout_seconds: float) -> bytes:
    is_asked = False
    while True:
        answer = await connection.read_response(timeout=timeout_seconds, disconnect_on_error=False)
        if isinstance(answer, list) and len(answer) == 3 and answer[0] == b"message" and isinstance(answer[2], bytes):
            return answer[2]
        if answer is not None:
            is_asked = False
        elif is_asked or not connection.is_connected:
            raise RedisConnectionError("the connection that listens is dead")
        else:
            await connection.send_command("PING")
            is_asked = True
