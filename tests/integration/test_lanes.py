"""Where handlers run and how many at once: limits, threads, warm state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from workflow_engine.plugins import NodeContext, handler

Make = Callable[..., Awaitable[Any]]


@handler("free")
async def free(_config: dict[str, Any], _context: NodeContext) -> str:
    """Run at once."""
    return "free"


class Meter:
    """A handler that waits until it is released, and how many of it have run at once."""

    def __init__(self, limit: int) -> None:
        self.running = self.most = 0
        self.full = asyncio.Event()
        self.release = asyncio.Event()

        @handler("limited", max_running_per_process=limit)
        async def limited(_config: dict[str, Any], _context: NodeContext) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running == limit:
                self.full.set()
            try:
                await self.release.wait()
            finally:
                self.running -= 1

        self.handler = limited


async def test_a_limited_handler_holds_up_nobody_else(
    start_runtime: Make, start_workflow: Make, run_workflow: Make, end_of: Make
) -> None:
    meter = Meter(2)
    runtime = await start_runtime(handlers=[meter.handler, free], worker_concurrency=4)
    wide = await start_workflow(runtime, [{"id": f"n{index}", "handler": "limited"} for index in range(7)])
    await meter.full.wait()

    assert (await run_workflow(runtime, [{"id": "n", "handler": "free"}])).output == "free"
    assert (runtime.pool.running_count, runtime.pool.queued_count, runtime.pool.ready_count) == (2, 5, 0)
    assert runtime.describe().free_slots == 2
    meter.release.set()
    assert (await end_of(runtime, wide)).state == "COMPLETED"
    assert meter.most == 2


async def test_what_is_stopped_makes_room_for_the_next(
    start_runtime: Make, start_workflow: Make, run_workflow: Make
) -> None:
    meter = Meter(1)
    runtime = await start_runtime(handlers=[meter.handler, free], worker_concurrency=2)
    first = await start_workflow(runtime, [{"id": "n", "handler": "limited"}])
    await meter.full.wait()
    meter.full.clear()

    await runtime.engine.cancel(first)
    overdue = {"timeout_seconds": 0.01, "retry_config": {"max_retries": 0}}
    ended = await run_workflow(runtime, [{"id": "n", "handler": "limited", **overdue}])

    assert meter.full.is_set()
    assert ended.failures[0]["type"] == "timeout"
    meter.release.set()
    assert (await run_workflow(runtime, [{"id": "n", "handler": "limited"}])).state == "COMPLETED"
    assert meter.most == 1
