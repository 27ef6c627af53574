"""One process at a time owns a database: an advisory lock that lives as long as a connection of its own.

The lock keeps two processes from taking the partition from each other for ever; it is not what keeps the data
sound. That is the partition's version, which fences a former owner whatever it still believes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from ...sql import load_queries
from ..errors import StoreUnavailable, StoreUnusable
from .postgres_errors import CANNOT_CONNECT, describe


class DatabaseLock:
    """The lock of this process. Lost with its connection, and asked for again by `ensure`."""

    def __init__(self, connect: Callable[[], Awaitable[Any]]) -> None:
        """`connect` opens a connection that is nobody else's."""
        self._connect = connect
        self._connection: Any = None
        self._asking = asyncio.Lock()

    async def acquire(self) -> None:
        """Lock the database. Raises `StoreUnusable` naming the holder when another process has it."""
        holder = await self._try()
        if holder is not None:
            raise StoreUnusable(
                f"another process uses this database ({holder}); stop it, or give this one a database of its own"
            )

    async def ensure(self) -> None:
        """Lock the database again if the connection was lost. Raises `StoreUnavailable` when that fails."""
        if self._connection is not None and not self._connection.is_closed():
            return
        try:
            holder = await self._try()
        except CANNOT_CONNECT as error:
            raise StoreUnavailable(f"no connection to PostgreSQL: {describe(error)}") from error
        if holder is not None:
            raise StoreUnavailable(f"another process has taken this database over ({holder})")

    async def release(self) -> None:
        """Give the lock up. Safe to call twice, and without `acquire`."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _try(self) -> str | None:
        """None when the lock is had; else who has it."""
        queries = load_queries("postgres")
        async with self._asking:
            if self._connection is not None and not self._connection.is_closed():
                return None
            connection = await self._connect()
            if await connection.fetchval(queries["try_lock_database"]):
                self._connection = connection
                return None
            try:
                found = await connection.fetch(queries["find_lock_holder"])
            finally:
                await connection.close()
        return ", ".join(f"{name} at {address or 'this host'}, backend {pid}" for name, address, pid in found) or "gone"
