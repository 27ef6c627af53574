"""Whole runtimes in virtual time: an hour passes when nothing else is left to do, and a host dies when a test says."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Any

from simulator.loop import HOST, SimulatedLoop

from workflow_engine.config import load_settings
from workflow_engine.plugins import Handler, hookimpl
from workflow_engine.runtime.clock import SystemClock, format_uuid7
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.transport.memory import MemoryBroker

EPOCH_MILLISECONDS = 1_790_000_000_000
PARTITIONS = 4
QUICK: dict[str, Any] = {
    "backend": "distributed",
    "orchestrator_stale_claim_interval": 1,
    "orchestrator_stale_result_timeout": 6,
    "worker_heartbeat_interval": 1,
    "worker_heartbeat_timeout": 3,
    "worker_graceful_shutdown_timeout": 0,
}


class VirtualClock(SystemClock):
    """The loop's time; identifiers and chance from the seed."""

    def __init__(self, loop: SimulatedLoop, random: Random) -> None:
        super().__init__()
        self._loop = loop
        self._random = random

    def now(self) -> int:
        return EPOCH_MILLISECONDS + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()

    def new_id(self) -> str:
        return format_uuid7(self.now(), self._random.getrandbits(80))


class VirtualWorld:
    """A loop, a store and a broker, and the runtimes that share them."""

    def __init__(self, seed: int = 1) -> None:
        self.loop = SimulatedLoop(Random(seed))
        self.clock = VirtualClock(self.loop, Random(f"{seed}/clock"))
        self.store = MemoryStore(PARTITIONS, self.loop.time, shared=True)
        self.broker = MemoryBroker(self.clock.now)
        self.runtimes: dict[str, Runtime] = {}

    def play(self, scene: Callable[[], Awaitable[None]]) -> None:
        """Run a scene to its end."""
        try:
            self.loop.run_until_complete(scene())
            assert not self.loop.errors
        finally:
            self.loop.bury()

    async def start(self, name: str, handlers: Iterable[Handler], **settings: Any) -> Runtime:
        """A replica of that name, on a host of its own; alone and on its own store with `backend="embedded"`."""
        plugin = HandlersPlugin(handlers)
        loaded = load_settings(QUICK | settings)
        embedded = loaded.backend == "embedded"

        async def build() -> Runtime:
            runtime = Runtime(
                loaded,
                store=MemoryStore(1) if embedded else self.store,
                broker=None if embedded else self.broker,
                clock=self.clock,
                plugins=[plugin],
            )
            await runtime.start()
            return runtime

        self.runtimes[name] = await self.loop.create_task_of((name, 0), build())
        return self.runtimes[name]

    def kill(self, name: str) -> None:
        """As `kill -9` would."""
        del self.runtimes[name]
        self.loop.kill((name, 0))

    async def stop(self) -> None:
        """Stop what runs."""
        for runtime in self.runtimes.values():
            await runtime.stop()

    async def trigger(self, name: str, nodes: Iterable[dict[str, Any]]) -> str:
        """Start an execution at a replica."""
        engine = self.runtimes[name].engine
        submitted = await engine.submit({"name": "a test", "dag": {"nodes": list(nodes)}})
        return await engine.trigger(submitted.execution_id)

    async def results(self, execution_id: str) -> Any:
        """What it has come to, asked for at any replica."""
        [engine, *_] = [runtime.engine for runtime in self.runtimes.values()]
        while (results := await engine.results(execution_id, 60)).state in ("PENDING", "RUNNING"):
            await asyncio.sleep(1)
        return results


class HandlersPlugin:
    """A plugin that registers the handlers it is given."""

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self._handlers = tuple(handlers)

    @hookimpl
    def workflow_engine_handlers(self) -> Iterable[Handler]:
        return self._handlers


def replica_here() -> str:
    """The replica that runs the code that asks."""
    return HOST.get()[0]
