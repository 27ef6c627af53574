"""Connections to Redis: time limits, scripts, and the errors of each call in the port's words."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any, NamedTuple
from weakref import WeakSet

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ...observability.rare_log import RareLog
from ..errors import BrokerUnavailable, SetupError
from ..grouping import Grouped

_log = logging.getLogger(__name__)


class RedisAddress(NamedTuple):
    """Where a Redis is, and how to get in. What `url` says stands instead of the other parts."""

    host: str
    port: int
    db: int = 0
    password: str | None = None
    url: str | None = None

    def options(self) -> dict[str, Any]:
        """As redis-py's connections take it. Raises `ValueError`."""
        parts = {"host": self.host, "port": self.port, "db": self.db, "password": self.password}
        return parts if self.url is None else {**parts, **parse_url(self.url)}

    def __str__(self) -> str:
        options = self.options()
        return f"{options['host']}:{options['port']}/{options['db']}"


class Script(NamedTuple):
    """A script with what all have in common; `digest` is what the server knows it by."""

    text: bytes
    digest: str


def load_scripts() -> Mapping[str, Script]:
    """The scripts by the names of their files."""
    folder = resources.files(__package__).joinpath("lua")
    texts = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith(".lua")}
    common = texts.pop("common.lua")
    scripts = {}
    for name, text in texts.items():
        whole = common + text
        # Redis names scripts by their SHA-1; it secures nothing.
        scripts[name.removesuffix(".lua")] = Script(whole, hashlib.sha1(whole, usedforsecurity=False).hexdigest())
    return scripts


class Server(NamedTuple):
    """What a server says of itself."""

    name: str
    version: tuple[int, ...]
    policy: str

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))}"


class RedisConnections:
    """The client of one server or one cluster. Safe to use concurrently.

    What is asked of one server at the same time goes out in one piece over one connection: most of what a call costs
    is its own way there and back. Of a cluster's nodes, so many calls at a time; the others wait.

    A call fails within the time limit, and nothing is tried twice: who calls knows whether that is wanted.
    """

    def __init__(self, address: RedisAddress, *, cluster: bool, max_connections: int, timeout_seconds: float) -> None:
        """`timeout_seconds` bounds each call: the wait for a connection, making it, and the answer."""
        self.address = address
        self.timeout_seconds = timeout_seconds
        self.log = RareLog(_log)
        self._cluster = cluster
        self._max_connections = max_connections
        self._free = asyncio.Semaphore(max_connections)
        self._scripts = load_scripts()
        self._options: dict[str, Any] = {}
        self._client: Redis | RedisCluster | None = None
        self._apart: set[AbstractConnection] = set()
        self._of_cluster: WeakSet[AbstractConnection] = WeakSet()
        self._next_node = 0
        self._is_away = False
        self._together: Grouped[Sequence[Any]] = Grouped(self._send_together)

    def open(self) -> None:
        """Make ready; connections are made when they are wanted. Raises `SetupError`."""
        try:
            options = self.address.options()
            self._options = {
                **options,
                # The limit of a whole call is here; redis-py's own would cost a task and a timer for each.
                "socket_timeout": None,
                "socket_connect_timeout": self.timeout_seconds,
                "socket_keepalive": True,
                "protocol": 2,
                "driver_info": None,
            }
            if self._cluster:
                self._client = self._make_cluster()
            else:
                pool = ConnectionPool(
                    max_connections=self._max_connections, retry=Retry(NoBackoff(), 0), **self._options
                )
                self._client = Redis(connection_pool=pool)
        except (ValueError, TypeError, RedisError, RedisClusterException) as error:
            # Not what it says itself: it could quote the URL.
            raise SetupError(f"the address of Redis cannot be used: {type(error).__name__}") from error

    def _make_cluster(self) -> RedisCluster:
        # A node that says nothing must be given up before the whole call is: only then are the others asked who has
        # taken its place.
        part_seconds = self.timeout_seconds / 3
        options = {**self._options, "socket_timeout": part_seconds, "socket_connect_timeout": part_seconds}
        if options.pop("db"):
            raise SetupError("a Redis Cluster has no database but 0: set REDIS_DB to 0")
        is_encrypted = options.pop("connection_class", Connection) is SSLConnection
        cluster = RedisCluster(
            ssl=is_encrypted, max_connections=self._max_connections, retry=Retry(NoBackoff(), 0), **options
        )
        # It forgets the connections of nodes that have left it, and with them to close them in the end.
        remembered = _remembered(SSLConnection if is_encrypted else Connection, self._of_cluster)
        cluster.connection_kwargs["connection_class"] = remembered
        for node in cluster.nodes_manager.startup_nodes.values():
            node.connection_class = remembered
        return cluster

    async def close(self) -> None:
        """Close every connection; who listens on one is told that it was lost."""
        client, self._client = self._client, None
        for connection in list(self._apart):
            await connection.disconnect(nowait=True)
        if client is not None:
            with suppress(RedisError):
                await client.aclose()
                if isinstance(client, Redis):
                    await client.connection_pool.disconnect()
        for connection in list(self._of_cluster):
            await connection.disconnect(nowait=True)
        await self._together.close()

    async def run(self, name: str, keys: Sequence[str], arguments: Iterable[str | bytes | int] = ()) -> Any:
        """What a script returns. Raises `BrokerUnavailable`."""
        return await self._within_limits(self._evaluate, self._scripts[name], len(keys), *keys, *arguments)

    async def command(self, *parts: str | bytes | int) -> Any:
        """What a command returns. Raises `BrokerUnavailable`."""
        return await self._within_limits(self._send, *parts)

    async def servers(self) -> Sequence[Server]:
        """What the server, or every primary of the cluster, says of itself. Raises `BrokerUnavailable`."""
        servers: Sequence[Server] = await self._within_limits(self._ask_servers)
        return servers

    async def connect_apart(self) -> AbstractConnection:
        """A connection to one node that is not of the client; the caller disconnects it.

        In a cluster another node each time: the one before may be the one that is away. Raises what redis-py raises,
        and `BrokerUnavailable` when closed.
        """
        if self._client is None:
            raise _closed()
        options = {"connection_class": Connection, **self._options}
        nodes = self._client.get_nodes() if isinstance(self._client, RedisCluster) else []
        if nodes:
            node = nodes[self._next_node % len(nodes)]
            self._next_node += 1
            options |= {"host": node.host, "port": node.port}
        connection: AbstractConnection = options.pop("connection_class")(retry=Retry(NoBackoff(), 0), **options)
        self._apart.add(connection)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await self.disconnect_apart(connection)
            raise
        return connection

    async def disconnect_apart(self, connection: AbstractConnection) -> None:
        """Close such a connection."""
        self._apart.discard(connection)
        await connection.disconnect(nowait=True)

    async def fail(self, error: Exception) -> BrokerUnavailable:
        """What has gone wrong, in the port's words; it is in the log then. Idle connections are made anew."""
        if self._client is None:
            return _closed()
        message = self._say(error)
        if not isinstance(error, ResponseError):
            self._is_away = True
        if isinstance(self._client, Redis) and not (
            isinstance(error, ResponseError) and not isinstance(error, ReadOnlyError)
        ):
            # They lead to the same server; after a failover another may have its name.
            with suppress(RedisError, OSError):
                await self._client.connection_pool.disconnect(inuse_connections=False)
        self.log.write(logging.WARNING, type(error).__name__, message)
        return BrokerUnavailable(message)

    async def _within_limits(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(self.timeout_seconds):
                answer = await call(*arguments)
        except ERRORS as error:
            raise await self.fail(error) from error
        if self._is_away:
            self._is_away = False
            self.log.write(logging.INFO, "answers", f"Redis at {self.address} answers again")
        return answer

    async def _evaluate(self, script: Script, *rest: Any) -> Any:
        try:
            return await self._send("EVALSHA", script.digest, *rest)
        except NoScriptError:
            # The server has forgotten it, or never had it; this makes it known too.
            return await self._send("EVAL", script.text, *rest)

    async def _send(self, *parts: Any) -> Any:
        if self._client is None:
            raise _closed()
        if isinstance(self._client, Redis):
            return await self._together.ask(parts)
        async with self._free:
            try:
                return await self._client.execute_command(*parts)
            except AttributeError as error:
                # What redis-py 8.1 stumbles over when it closes a connection that is being written to.
                raise RedisConnectionError("the connection was closed meanwhile") from error

    async def _send_together(self, commands: Sequence[Sequence[Any]]) -> Sequence[Any]:
        """The answers to commands of one piece: the error of one is among them, that of the connection is raised."""
        if not isinstance(self._client, Redis):
            raise _closed()
        async with asyncio.timeout(self.timeout_seconds), self._client.pipeline(transaction=False) as pipeline:
            for parts in commands:
                pipeline.execute_command(*parts)
            answers: Sequence[Any] = await pipeline.execute(raise_on_error=False)
            return answers

    async def _ask_servers(self) -> Sequence[Server]:
        try:
            if not isinstance(self._client, RedisCluster):
                return [_server(await self._send("INFO"))]
            await self._client.initialize()
            nodes = self._client.get_primaries()
            return [_server(await self._client.execute_command("INFO", target_nodes=node)) for node in nodes]
        except NoPermissionError:
            self.log.write(logging.WARNING, "INFO", f"Redis at {self.address} may not be asked for INFO")
            return []

    def _say(self, error: Exception) -> str:
        where = f"Redis at {self.address}"
        if isinstance(error, TimeoutError):
            return f"{where} did not answer within {self.timeout_seconds:g} seconds"
        text = str(error) or type(error).__name__
        if password := self._options.get("password"):
            # A server that does not know the command quotes its arguments.
            text = text.replace(password, "...")
        if isinstance(error, AuthenticationError):
            return f"{where} does not take the user or the password: {text}"
        if isinstance(error, ResponseError | BusyLoadingError):
            return f"{where} refuses: {text}"
        if isinstance(error, RedisTimeoutError):
            return f"{where} did not answer in time: {text}"
        return f"no connection to {where}: {text}"


ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
"""Whatever comes of talking to Redis."""


def _remembered(kind: type[Connection], those: WeakSet[AbstractConnection]) -> type[Connection]:
    """Connections of a kind that are among `those` from the beginning."""

    class Remembered(kind):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            those.add(self)

    return Remembered


def _closed() -> BrokerUnavailable:
    return BrokerUnavailable("the broker is closed")


def _server(information: Mapping[str, Any]) -> Server:
    """From the answer of INFO."""
    is_valkey = information.get("server_name") == "valkey"
    version = str(information.get("valkey_version" if is_valkey else "redis_version", ""))
    return Server(
        "Valkey" if is_valkey else "Redis",
        tuple(int(part) for part in version.split(".") if part.isdigit()),
        str(information.get("maxmemory_policy", "")),
    )
