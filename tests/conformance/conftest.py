"""The implementations that the conformance suites run against. A new one is a line in a table here.

What implementations may differ in is a capability of the table's line; no test asks for a name.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from brokers import BrokerUnderTest
from postgres_server import PostgresServer
from redis_server import RedisCluster, RedisServer

from workflow_engine.runtime.audit import Histories
from workflow_engine.runtime.broker import Broker
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.ports import Store, Transport
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.store.memory_histories import MemoryHistories
from workflow_engine.runtime.store.postgres import PostgresStore
from workflow_engine.runtime.store.postgres_histories import PostgresHistories
from workflow_engine.runtime.store.sqlite import SqliteStore
from workflow_engine.runtime.store.sqlite_histories import SqliteHistories
from workflow_engine.runtime.transport.local import LocalTransport
from workflow_engine.runtime.transport.memory import MemoryBroker
from workflow_engine.runtime.transport.redis import RedisBroker
from workflow_engine.runtime.transport.shared import SharedTransport

PARTITIONS = 8


@dataclass(frozen=True)
class StoreKind:
    """One implementation of the Store port.

    `factory` is given the test's fixtures; each call of what it returns makes a store, not yet open, over
    the same data. `contradiction` is what a write raises that the stored rows contradict.
    `refuses_when_closed`: a closed store can be told from an open one. `has_leases`: several processes may use it.
    """

    name: str
    factory: Callable[[pytest.FixtureRequest], Callable[[], Store]]
    contradiction: type[Exception]
    refuses_when_closed: bool
    has_leases: bool
    histories: Callable[[Any], Histories]
    """The same data as the audit reads them, beside the open store."""


@dataclass(frozen=True)
class TransportKind:
    """One implementation of the Transport port. `followed` says how many executions it remembers followers of."""

    name: str
    factory: Callable[[], Transport]
    followed: Callable[[Transport], int]


@dataclass(frozen=True)
class BrokerKind:
    """One implementation of the Broker port. `factory` is given the test's fixtures; the data are empty then."""

    name: str
    factory: Callable[[pytest.FixtureRequest], BrokerUnderTest]


def memory_stores(_request: pytest.FixtureRequest) -> Callable[[], Store]:
    """In memory the data are the object, so that is what is opened again."""
    store = MemoryStore(PARTITIONS, shared=True)
    return lambda: store


def sqlite_stores(request: pytest.FixtureRequest) -> Callable[[], Store]:
    folder: Path = request.getfixturevalue("tmp_path")
    return lambda: SqliteStore(folder / "engine.db", SystemClock())


def postgres_stores(request: pytest.FixtureRequest) -> Callable[[], Store]:
    return stores_of(request.getfixturevalue("postgres_server"))


def debian_postgres_stores(request: pytest.FixtureRequest) -> Callable[[], Store]:
    return stores_of(request.getfixturevalue("debian_postgres_server"))


def stores_of(server: PostgresServer) -> Callable[[], Store]:
    """Each test has a schema of its own in the one server of the run."""
    schema = server.create_schema()
    return lambda: PostgresStore(
        server.address,
        SystemClock(),
        pool_size=6,
        timeout_seconds=20.0,
        owner_timeout_seconds=20.0,
        partitions=PARTITIONS,
        schema=schema,
    )


def postgres_histories(store: PostgresStore) -> Histories:
    """The schema is that of the store's connections."""
    schema = store._api._settings["search_path"]
    return PostgresHistories(store._address, timeout_seconds=20.0, schema=schema)


def memory_brokers(_request: pytest.FixtureRequest) -> BrokerUnderTest:
    """Each look at the clock is a millisecond later than the one before."""
    moments = itertools.count(1_700_000_000_000)
    broker = MemoryBroker(lambda: next(moments))

    async def wipe() -> None:
        broker.wipe()

    return BrokerUnderTest(lambda: broker, wipe)


def redis_brokers(fixture: str, request: pytest.FixtureRequest) -> BrokerUnderTest:
    """Each test has the one server, or the one cluster, for itself."""
    server: RedisServer | RedisCluster = request.getfixturevalue(fixture)
    servers = server.servers if isinstance(server, RedisCluster) else [server]

    def make() -> Broker:
        cluster = isinstance(server, RedisCluster)
        return RedisBroker(server.address, cluster=cluster, max_connections=10, timeout_seconds=20.0, strict=True)

    async def wipe() -> None:
        for each in servers:
            each.ask("FLUSHALL")

    for each in servers:
        each.ask("FLUSHALL")
    return BrokerUnderTest(make, wipe)


def shared_transport() -> Transport:
    """That of a replica that owns every partition: what concerns it needs no broker."""
    transport = SharedTransport(MemoryBroker(lambda: 1_700_000_000_000), lambda _execution_id: 0)
    transport.serve({0})
    return transport


def locally_followed(transport: Transport) -> int:
    assert isinstance(transport, LocalTransport)
    return len(transport._followers)


STORES = (
    StoreKind(
        "memory",
        memory_stores,
        AssertionError,
        refuses_when_closed=False,
        has_leases=True,
        histories=MemoryHistories,
    ),
    StoreKind(
        "sqlite",
        sqlite_stores,
        sqlite3.IntegrityError,
        refuses_when_closed=True,
        has_leases=False,
        histories=lambda store: SqliteHistories(store._path),
    ),
    StoreKind(
        "postgres",
        postgres_stores,
        asyncpg.IntegrityConstraintViolationError,
        refuses_when_closed=True,
        has_leases=True,
        histories=postgres_histories,
    ),
    StoreKind(
        "postgres-of-debian",
        debian_postgres_stores,
        asyncpg.IntegrityConstraintViolationError,
        refuses_when_closed=True,
        has_leases=True,
        histories=postgres_histories,
    ),
)
TRANSPORTS = (
    TransportKind("local", LocalTransport, locally_followed),
    TransportKind("shared", shared_transport, locally_followed),
)
BROKERS = (
    BrokerKind("memory", memory_brokers),
    BrokerKind("valkey", partial(redis_brokers, "redis_server")),
    BrokerKind("redis", partial(redis_brokers, "system_redis_server")),
    BrokerKind("cluster", partial(redis_brokers, "redis_cluster")),
)


class OpenedStore:
    """A store under test, open, and the way to open the same data again."""

    def __init__(self, kind: StoreKind, request: pytest.FixtureRequest) -> None:
        self.kind = kind
        self.make = kind.factory(request)
        self.store = self.make()

    async def reopen(self) -> Store:
        """Close the store and open another over the same data."""
        await self.store.close()
        self.store = self.make()
        await self.store.open()
        return self.store


@pytest.fixture(params=STORES, ids=lambda kind: kind.name)
def store_kind(request: pytest.FixtureRequest) -> StoreKind:
    """Each implementation of the Store port in turn."""
    kind: StoreKind = request.param
    return kind


@pytest.fixture
async def opened(store_kind: StoreKind, request: pytest.FixtureRequest) -> AsyncIterator[OpenedStore]:
    """An open and empty store that can be opened again."""
    opened = OpenedStore(store_kind, request)
    await opened.store.open()
    yield opened
    await opened.store.close()


@pytest.fixture
def store(opened: OpenedStore) -> Store:
    """An open and empty store."""
    return opened.store


@pytest.fixture
def contradiction(store_kind: StoreKind) -> type[Exception]:
    """What the store raises for a write that the stored rows contradict."""
    return store_kind.contradiction


@pytest.fixture(params=TRANSPORTS, ids=lambda kind: kind.name)
def transport_kind(request: pytest.FixtureRequest) -> TransportKind:
    """Each implementation of the Transport port in turn."""
    kind: TransportKind = request.param
    return kind


@pytest.fixture
def transport(transport_kind: TransportKind) -> Transport:
    """A transport that nothing has gone through."""
    return transport_kind.factory()


@pytest.fixture(params=BROKERS, ids=lambda kind: kind.name)
def broker_under_test(request: pytest.FixtureRequest) -> BrokerUnderTest:
    """Each implementation of the Broker port in turn, empty."""
    kind: BrokerKind = request.param
    return kind.factory(request)


@pytest.fixture
async def broker(broker_under_test: BrokerUnderTest) -> AsyncIterator[Broker]:
    """An open and empty broker."""
    broker = broker_under_test.make()
    await broker.open()
    yield broker
    await broker.close()
