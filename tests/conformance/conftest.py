"""The implementations that the conformance suites run against. A new one is a line in a table here.

What implementations may differ in is a capability of the table's line; no test asks for a name.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.ports import Store, Transport
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.store.sqlite import SqliteStore
from workflow_engine.runtime.transport.local import LocalTransport


@dataclass(frozen=True)
class StoreKind:
    """One implementation of the Store port.

    `factory` is given an empty folder; each call of what it returns makes a store, not yet open, over
    the same data. `contradiction` is what a write raises that the stored rows contradict.
    `refuses_when_closed`: a closed store can be told from an open one.
    """

    name: str
    factory: Callable[[Path], Callable[[], Store]]
    contradiction: type[Exception]
    refuses_when_closed: bool


@dataclass(frozen=True)
class TransportKind:
    """One implementation of the Transport port. `followed` says how many executions it remembers followers of."""

    name: str
    factory: Callable[[], Transport]
    followed: Callable[[Transport], int]


def memory_stores(_folder: Path) -> Callable[[], Store]:
    """In memory the data are the object, so that is what is opened again."""
    store = MemoryStore()
    return lambda: store


def sqlite_stores(folder: Path) -> Callable[[], Store]:
    return lambda: SqliteStore(folder / "engine.db", SystemClock())


def locally_followed(transport: Transport) -> int:
    assert isinstance(transport, LocalTransport)
    return len(transport._followers)


STORES = (
    StoreKind("memory", memory_stores, AssertionError, refuses_when_closed=False),
    StoreKind("sqlite", sqlite_stores, sqlite3.IntegrityError, refuses_when_closed=True),
)
TRANSPORTS = (TransportKind("local", LocalTransport, locally_followed),)


class OpenedStore:
    """A store under test, open, and the way to open the same data again."""

    def __init__(self, kind: StoreKind, folder: Path) -> None:
        self.kind = kind
        self.make = kind.factory(folder)
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
async def opened(store_kind: StoreKind, tmp_path: Path) -> AsyncIterator[OpenedStore]:
    """An open and empty store that can be opened again."""
    opened = OpenedStore(store_kind, tmp_path)
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
