"""The PostgreSQL server of the settings, for commands that ask it something without a store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ...config import Settings
from ..clock import SystemClock
from ..parts import POSTGRES_TIMEOUT_SECONDS, postgres_address
from ..store.postgres_connections import Connections, PostgresAddress
from ..store.postgres_errors import CANNOT_CONNECT, describe, may_pass, unusable
from .errors import report

LONGEST_PAUSE_SECONDS = 1.0


@asynccontextmanager
async def connected(settings: Settings, wait_seconds: float) -> AsyncIterator[Any]:
    """A connection, after waiting at most `wait_seconds` for a server that does not take any yet.

    Raises `StoreUnusable` when there is none by then, or at once when waiting would not help.
    """
    address = postgres_address(settings)
    try:
        connection = await _connect(address, wait_seconds)
        try:
            yield connection
        finally:
            await connection.close()
    except CANNOT_CONNECT as error:
        raise unusable(address, error) from error


async def _connect(address: PostgresAddress, wait_seconds: float) -> Any:
    connections = Connections(address, size=1, timeout_seconds=POSTGRES_TIMEOUT_SECONDS, settings={})
    clock = SystemClock()
    deadline = clock.monotonic() + wait_seconds
    said = ""
    while True:
        # Replicas that start together do not ask together.
        pause = LONGEST_PAUSE_SECONDS * (0.5 + clock.chance() / 2)
        try:
            return await connections.connect_apart()
        except CANNOT_CONNECT as error:
            if not may_pass(error) or clock.monotonic() + pause > deadline:
                raise
            reason = describe(error)
        if reason != said:
            report(f"waiting for PostgreSQL at {address}, at most {wait_seconds:g} seconds: {reason}")
            said = reason
        await asyncio.sleep(pause)
