"""Replicas that come and go share the partitions anew at once: they tell each other, whatever their intervals are."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.transport.memory import MemoryBroker

HOUR = 3_600.0
PARTITIONS = 4

StartRuntime = Callable[..., Awaitable[Runtime]]


async def test_who_comes_gets_a_share_and_who_goes_leaves_it_at_once(
    start_runtime: StartRuntime, stop_runtime: Callable[[Runtime], Awaitable[None]]
) -> None:
    store = MemoryStore(PARTITIONS, time.monotonic, shared=True)
    broker = MemoryBroker(lambda: time.time_ns() // 1_000_000)
    settings: dict[str, Any] = {
        "backend": "distributed",
        "orchestrator_stale_claim_interval": HOUR,
        "orchestrator_stale_result_timeout": HOUR,
    }

    async def until_owned(**wanted: int) -> None:
        while Counter(record.owner for record in await store.read_partitions()) != wanted:
            await asyncio.sleep(0)

    await start_runtime(store=store, broker=broker, replica_id="a", **settings)
    await until_owned(a=4)
    second = await start_runtime(store=store, broker=broker, replica_id="b", **settings)
    await until_owned(a=2, b=2)
    await start_runtime(store=store, broker=broker, replica_id="c", runtime_roles=("orchestrator",), **settings)
    await until_owned(a=2, b=1, c=1)
    await stop_runtime(second)
    await until_owned(a=2, c=2)
