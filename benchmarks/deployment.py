"""PostgreSQL and Valkey as in production, started for the benchmark, and replicas on them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from command_counter import CommandCounter, counting_commands
from harness import BenchmarkRuntime
from plugin import noop_plugin
from servers import Server, engine_server

from workflow_engine.config import load_settings
from workflow_engine.runtime.clock import SystemClock, uuid7_floor
from workflow_engine.runtime.process import Runtime, running
from workflow_engine.runtime.store.postgres_migrations import migrate

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))
from postgres_server import PostgresServer
from redis_server import RedisServer

POLL_SECONDS = 0.02
ENGINE = "workflow-engine"
"""What the engine's connections to PostgreSQL call themselves."""

# Whatever the engine asks is one statement, and nearly always a transaction of its own: a round trip.
_COUNTS = """
SELECT (SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE dbid = pg_database.oid AND toplevel),
       (SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datid = pg_database.oid)
FROM pg_database WHERE datname = $1
"""
_FSYNCS = "SELECT wal_sync FROM pg_stat_wal"
_FSYNCS_FROM_18 = "SELECT coalesce(sum(fsyncs), 0) FROM pg_stat_io WHERE object = 'wal'"


class Counts(NamedTuple):
    """What the servers have done so far. Commands to Valkey are those that were sent: not what scripts call."""

    statements: int
    round_trips_to_postgres: int
    fsyncs: int
    commands: int
    round_trips_to_valkey: int

    def per_node(self, before: Counts, nodes: int) -> dict[str, float]:
        """What was done since, by node."""
        names = ("statements", "round trips to PostgreSQL", "fsyncs", "commands to Valkey", "round trips to Valkey")
        return {name: round((now - then) / nodes, 4) for name, now, then in zip(names, self, before, strict=True)}


class Deployment:
    """One PostgreSQL with `synchronous_commit=on`, one Valkey with its append-only file, any number of databases.

    One database is in use at a time: what replicas say to each other in Valkey does not tell them apart.
    """

    def __init__(self) -> None:
        self._postgres = PostgresServer(
            {
                "synchronous_commit": "on",
                "shared_buffers": "128MB",
                "shared_preload_libraries": "pg_stat_statements",
            }
        )
        self._redis = RedisServer({"appendonly": "yes", "appendfsync": "everysec"})
        self._commands: CommandCounter | None = None

    async def start(self) -> None:
        """Start both servers."""
        self._postgres.start()
        self._redis.start()
        async with self.connection("postgres") as connection:
            await connection.execute("CREATE EXTENSION pg_stat_statements")

    def close(self) -> None:
        """End both, and remove their data."""
        self._postgres.close()
        self._redis.close()

    async def create_database(self) -> str:
        """A database with the engine's schema; returns its name."""
        database = self._postgres.create_database()
        async with self.connection(database) as connection:
            await migrate(connection, SystemClock().now())
        return database

    def settings(self, backend: str, database: str) -> dict[str, Any]:
        """The settings of a replica on that database, otherwise the default ones."""
        redis = {"redis_host": "127.0.0.1", "redis_port": self._redis.port} if backend == "distributed" else {}
        return {**self._postgres.settings(database), "backend": backend, **redis}

    @contextmanager
    def serve(self, backend: str, database: str, **variables: str) -> Iterator[Server]:
        """A replica in a process of its own, which listens."""
        settings = {name.upper(): str(value) for name, value in self.settings(backend, database).items()}
        with engine_server(**settings, **variables) as server:
            yield server

    @asynccontextmanager
    async def open_runtime(self, backend: str, database: str, **settings: Any) -> AsyncIterator[BenchmarkRuntime]:
        """A replica in this process, on that database."""
        self.forget()
        loaded = load_settings({**self.settings(backend, database), **settings})
        since = uuid7_floor(SystemClock().now())
        query = "SELECT count(*) FROM executions WHERE state = 'COMPLETED' AND execution_id >= $1"
        async with self.connection(database) as connection:

            async def count_completed() -> int:
                return int(await connection.fetchval(query, since))

            async with running(lambda: Runtime(loaded, plugins=[noop_plugin])) as runtime:
                yield BenchmarkRuntime(runtime, count_completed)

    def forget(self) -> None:
        """Empty Valkey: replicas on another database come next."""
        self._redis.ask("FLUSHALL")

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[None]:
        """Meanwhile `counts` can be asked for; and everything is slower."""
        address = self._redis.address
        async with counting_commands(address.host, address.port) as self._commands:
            yield
        self._commands = None

    @property
    def is_counting(self) -> bool:
        """Whether `counts` can be asked for."""
        return self._commands is not None

    async def counts(self, database: str) -> Counts:
        """What was done so far. Servers count late what is done on a connection: waits until the engine's are gone."""
        assert self._commands is not None
        async with self.connection("postgres") as connection:
            while await connection.fetchval("SELECT 1 FROM pg_stat_activity WHERE application_name = $1", ENGINE):
                await asyncio.sleep(POLL_SECONDS)
            row = await connection.fetchrow(_COUNTS, database)
            is_new = connection.get_server_version().major >= 18
            fsyncs = await connection.fetchval(_FSYNCS_FROM_18 if is_new else _FSYNCS)
        commands = await self._commands.count(lambda mark: self._redis.ask("ECHO", mark))
        # What comes in one piece is read at once, unless it is longer than a buffer.
        reads = self._redis.ask("INFO", "stats")["total_reads_processed"]
        return Counts(*map(int, (*row, fsyncs, commands, reads)))

    @asynccontextmanager
    async def connection(self, database: str) -> AsyncIterator[Any]:
        """A connection of the benchmark's own."""
        address = self._postgres.address
        connection = await asyncpg.connect(**address._replace(database=database).options())
        try:
            yield connection
        finally:
            await connection.close()
