"""Replicas that reach each other, one of which does not reach the store: the others do its work."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from time import monotonic
from typing import Any

import pytest
from api_client import GATED, HELLO, Gate

from workflow_engine.config import load_settings
from workflow_engine.plugins import Handler, hookimpl
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.shares import partition_of
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.errors import StoreUnavailable
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.transport.memory import MemoryBroker

Start = Callable[..., Awaitable[Runtime]]

PARTITIONS = 4
LONG_SECONDS = 60.0
SETTINGS: dict[str, Any] = {
    "backend": "distributed",
    "worker_heartbeat_interval": 0.1,
    "worker_heartbeat_timeout": 1.0,
    "worker_stale_claim_interval": 0.3,
    "orchestrator_stale_claim_interval": 0.3,
    "orchestrator_stale_result_timeout": 1.0,
    "worker_graceful_shutdown_timeout": 0,
}


class Way:
    """The way of one replica to the store, until it is cut."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.is_cut = False
        self.refused: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """By verb: set when it was tried."""

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._store, name)
        if not callable(attribute):
            return attribute

        async def ask(*arguments: Any, **keywords: Any) -> Any:
            if self.is_cut:
                self.refused[name].set()
                raise StoreUnavailable("the way is cut")
            return await attribute(*arguments, **keywords)

        return ask


class Plugin:
    """A plugin with a handler."""

    def __init__(self, given: Handler) -> None:
        self._given = given

    @hookimpl
    def workflow_engine_handlers(self) -> Iterable[Handler]:
        return [self._given]


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(PARTITIONS, monotonic, shared=True)


@pytest.fixture
async def start(store: MemoryStore, gate: Gate) -> AsyncIterator[Start]:
    """`await start("worker", way=...)`: a runtime with these roles."""
    broker = MemoryBroker(SystemClock().now)
    running: list[Runtime] = []

    async def start(roles: str, way: Any = None) -> Runtime:
        settings = load_settings(SETTINGS | {"runtime_roles": roles})
        runtime = Runtime(settings, store=way or store, broker=broker, plugins=[Plugin(gate.handler)])
        running.append(runtime)
        await runtime.start()
        return runtime

    yield start
    for runtime in reversed(running):
        await runtime.stop()


async def begin(runtime: Runtime, document: Any) -> str:
    return await runtime.engine.trigger((await runtime.engine.submit(document)).execution_id)


async def test_a_worker_without_the_store_leaves_what_it_takes_to_others(store: MemoryStore, start: Start) -> None:
    way = Way(store)
    api = await start("api,orchestrator")
    await start("worker", way)
    way.is_cut = True
    ids = [await begin(api, HELLO) for _ in range(20)]
    await asyncio.wait_for(way.refused["read_definition"].wait(), LONG_SECONDS)
    await start("worker")
    ends = [await api.engine.results(each, LONG_SECONDS) for each in ids]
    assert {each.state for each in ends} == {WorkflowState.COMPLETED}
    way.is_cut = False


async def test_what_ends_where_the_store_is_away_goes_to_whoever_owns_it_then(
    store: MemoryStore, start: Start, gate: Gate
) -> None:
    """And nobody runs it again."""
    way = Way(store)
    first = await start("all", way)
    second = await start("api,orchestrator")
    while len(second.leases.versions) < PARTITIONS // 2:
        await asyncio.sleep(0.01)
    execution_id = await begin(first, GATED)
    while partition_of(execution_id, PARTITIONS) not in first.leases.versions:
        execution_id = await begin(first, GATED)
    await gate.started.wait()
    way.is_cut = True
    while len(second.leases.versions) < PARTITIONS:
        await asyncio.sleep(0.01)
    gate.open.set()
    ended = await second.engine.results(execution_id, LONG_SECONDS)
    assert ended.state is WorkflowState.COMPLETED
    [loaded] = await store.load([execution_id])
    assert loaded.suspicions == [], "it was believed to be lost"
    way.is_cut = False
