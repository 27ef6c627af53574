"""Connections to PostgreSQL: pools with time limits, and the errors of each statement in the port's words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import asyncpg

from ..errors import StoreUnavailable
from .postgres_errors import CANNOT_CONNECT, describe, is_broken, retry_at_once, translate

MOST_ATTEMPTS = 5
SERVER_SHARE = 0.8
"""How much of a statement's time the server gets; the rest is for the way there and back."""


class PostgresAddress(NamedTuple):
    """Where a database is, and how to get in. `dsn` adds what the parts do not say, such as `sslmode`."""

    host: str
    port: int
    user: str
    password: str
    database: str
    dsn: str | None = None

    def options(self) -> dict[str, Any]:
        """As asyncpg takes it."""
        return self._asdict()

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


class Connections:
    """One pool. Safe to use concurrently; `size` statements at a time, the others wait."""

    def __init__(
        self, address: PostgresAddress, *, size: int, timeout_seconds: float, settings: Mapping[str, str]
    ) -> None:
        """`timeout_seconds` bounds the wait for a connection, and each statement, on both sides."""
        self._address = address
        self._size = size
        self.timeout_seconds = timeout_seconds
        self._settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._closed = False

    async def open(self) -> None:
        """Make ready; connections are made when they are wanted, so that one that is lost costs no more than itself."""
        self._pool = await asyncpg.create_pool(
            min_size=0,
            max_size=self._size,
            max_inactive_connection_lifetime=300.0,
            reset=_leave_as_it_is,
            **self._options(),
        )
        self._closed = False

    async def connect_apart(self) -> asyncpg.Connection[asyncpg.Record]:
        """A connection that is not of the pool; the caller closes it. Raises what asyncpg raises."""
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(**self._options())
        return connection

    def _options(self) -> dict[str, Any]:
        # The server gives up first, and says so: a statement that it has given up has not happened.
        milliseconds = str(max(1, round(self.timeout_seconds * SERVER_SHARE * 1000)))
        return {
            **self._address.options(),
            "timeout": self.timeout_seconds,
            "command_timeout": self.timeout_seconds,
            "server_settings": {
                "statement_timeout": milliseconds,
                "idle_in_transaction_session_timeout": milliseconds,
                **self._settings,
            },
        }

    async def close(self) -> None:
        """Let what is under way finish, for a moment; then close."""
        self._closed = True
        if self._pool is not None:
            try:
                await asyncio.wait_for(self._pool.close(), self.timeout_seconds)
            except TimeoutError:
                self._pool.terminate()

    async def read(self, query: str, *values: Any) -> Sequence[asyncpg.Record]:
        """The rows of a query that changes nothing. Raises `StoreUnavailable`.

        A text with a NUL is in no row, since PostgreSQL takes none: whoever asks for one finds nothing.
        """
        if any(isinstance(value, str) and "\0" in value for value in values):
            return ()
        kept = [_without_nul(value) if isinstance(value, list) else value for value in values]
        return await self._run(query, kept, writing=False)

    async def write(self, query: str, *values: Any) -> Sequence[asyncpg.Record]:
        """The rows of one statement, which is a transaction by itself.

        Raises `StoreUnavailable` when it has not happened, `StoreOutcomeUnknown` when that cannot be known,
        and asyncpg's own error for data that cannot be stored.
        """
        return await self._run(query, values, writing=True)

    async def acquire(self) -> asyncpg.pool.PoolConnectionProxy[asyncpg.Record]:
        """A connection of one's own for a while; give it back with `release`. Raises `StoreUnavailable`."""
        if self._pool is None or self._closed:
            raise StoreUnavailable("the store is closed")
        try:
            return await self._pool.acquire(timeout=self.timeout_seconds)
        except CANNOT_CONNECT as error:
            raise StoreUnavailable(f"no connection to PostgreSQL at {self._address}: {describe(error)}") from error

    async def release(self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> None:
        """Give a connection back. One that breaks now is no failure: what was asked for has its answer."""
        assert self._pool is not None
        with suppress(*CANNOT_CONNECT):
            await self._pool.release(connection, timeout=self.timeout_seconds)

    async def _run(self, query: str, values: Sequence[Any], *, writing: bool) -> Sequence[asyncpg.Record]:
        for attempt in range(1, MOST_ATTEMPTS + 1):
            connection = await self.acquire()
            try:
                rows: Sequence[asyncpg.Record] = await connection.fetch(query, *values)
                return rows
            except Exception as error:
                if is_broken(error):
                    with suppress(asyncpg.InterfaceError):  # the pool may have noticed, and taken it back
                        connection.terminate()
                if retry_at_once(error) and attempt < MOST_ATTEMPTS:
                    continue
                raise translate(error, writing=writing) from error
            finally:
                await self.release(connection)
        raise AssertionError("the last attempt returns or raises")


async def _leave_as_it_is(_connection: object) -> None:
    """Nothing of a session is changed but by transactions, so that nothing has to be reset: a round trip less."""


def _without_nul(values: list[Any]) -> list[Any]:
    return [value for value in values if not (isinstance(value, str) and "\0" in value)]
