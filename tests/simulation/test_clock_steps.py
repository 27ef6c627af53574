"""The wall clock is set back or on while executions wait for a retry, in memory and parked."""

from __future__ import annotations

from typing import Any

import pytest
from simulator.disk import Disk, SimulatedStore
from simulator.transport import SimulatedTransport
from simulator.world import Link, SimulatedClock, World

from workflow_engine.config import load_settings
from workflow_engine.plugins import NodeContext, RetryAfter, handler
from workflow_engine.plugins.discovery import Catalogue
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.process import Runtime

HOUR_MILLISECONDS = 3_600_000


@handler("later")
async def later(config: dict[str, Any], context: NodeContext) -> None:
    """Ask for another attempt after `seconds`, once."""
    if context.attempt == 1:
        raise RetryAfter("not now", seconds=config["seconds"])


@pytest.mark.parametrize("step_milliseconds", [-HOUR_MILLISECONDS, HOUR_MILLISECONDS])
@pytest.mark.parametrize("seconds", [2, 60])
def test_a_retry_waits_as_long_as_decided_whatever_the_wall_clock_says(seconds: int, step_milliseconds: int) -> None:
    world = World(1, with_faults=False)
    disk = Disk(world, 1)
    clock = SimulatedClock(world, "engine")

    async def run() -> tuple[WorkflowState, float]:
        runtime = Runtime(
            load_settings({"worker_graceful_shutdown_timeout": 0.0}),
            store=SimulatedStore(world, disk, Link()),
            transport=SimulatedTransport(world),
            clock=clock,
            catalogue=Catalogue([later]),
        )
        await runtime.start()
        node = {"id": "a", "handler": "later", "config": {"seconds": seconds}, "retry_config": {"jitter": False}}
        submitted = await runtime.engine.submit({"name": "later", "dag": {"nodes": [node]}})
        await runtime.engine.trigger(submitted.execution_id)
        await runtime.engine.results(submitted.execution_id, 1.0)
        assert disk.attempts[submitted.execution_id], "the first attempt has not failed yet"
        clock.step_milliseconds = step_milliseconds
        results = await runtime.engine.results(submitted.execution_id, 600.0)
        ended = world.loop.time()
        await runtime.stop()
        return results.state, ended

    state, ended = world.loop.run_until_complete(run(), deadline=10_000.0)
    world.loop.bury()

    assert state is WorkflowState.COMPLETED
    # Set on, a parked retry may come early, never by less than what the sweep notices; set back, never late.
    assert ended <= seconds + 12
    if step_milliseconds < 0 or seconds < 10:
        assert ended >= seconds
