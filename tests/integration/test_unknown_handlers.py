"""Nodes whose handler no process has: they wait for one, are shown, and become dead letters in the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.api import models
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.ports import DeadLetterFilter

Make = Callable[..., Any]


@handler("here")
async def here(_config: dict[str, Any], _context: NodeContext) -> str:
    """Always there."""
    return "here"


@handler("rare")
async def rare(_config: dict[str, Any], _context: NodeContext) -> str:
    """Not always there."""
    return "rare"


NODES = [{"id": "a", "handler": "here"}, {"id": "b", "handler": "rare", "dependencies": ["a"]}]


async def submitted(start_runtime: Make, **settings: Any) -> str:
    """An execution that is submitted where both handlers are, and goes on where one is missing."""
    runtime = await start_runtime(handlers=[here, rare], **settings)
    execution_id: str = (await runtime.engine.submit({"name": "w", "dag": {"nodes": NODES}})).execution_id
    await runtime.stop()
    return execution_id


async def test_a_node_waits_for_its_handler_and_is_shown(start_runtime: Make, end_of: Make, make_api: Make) -> None:
    execution_id = await submitted(start_runtime)
    runtime = await start_runtime(handlers=[here])
    with runtime.transport.follow(execution_id) as follower:
        await runtime.engine.trigger(execution_id)
        while not runtime.deliveries.unserved:
            await follower.changed(0.05)
    assert runtime.deliveries.unserved == {"rare": 1}
    status = await runtime.engine.status(execution_id)
    assert (status.state, status.node_states["b"]) == (WorkflowState.RUNNING, NodeState.QUEUED)
    assert status.unserved == {"b": "rare"}
    client = await make_api(runtime)
    async with client.get(f"/v1/workflows/{execution_id}") as response:
        shown = await response.json()
    assert models.ExecutionStatus.model_validate(shown)
    assert shown["waiting"] == {"b": "waits for a worker that has the handler 'rare'; none is alive"}
    async with client.get(f"/v1/workflows/{execution_id}/nodes/b") as response:
        waiting = (await response.json())["waiting"]
    assert (waiting["for"], waiting["message"]) == ("handler", shown["waiting"]["b"])
    await runtime.stop()

    runtime = await start_runtime(handlers=[here, rare])
    ended = await end_of(runtime, execution_id)
    assert (ended.state, ended.output) == ("COMPLETED", "rare")
    assert (await runtime.engine.status(execution_id)).unserved == {}


async def test_what_waits_too_long_for_its_handler_becomes_a_dead_letter(start_runtime: Make, end_of: Make) -> None:
    execution_id = await submitted(start_runtime)
    runtime = await start_runtime(handlers=[here], unknown_handler_timeout=0.05)
    await runtime.engine.trigger(execution_id)
    ended = await end_of(runtime, execution_id)
    assert ended.state == "FAILED"
    [letter] = await runtime.store.list_dead_letters(DeadLetterFilter(error_type="handler_unknown"), None, 10)
    assert letter.execution_id == execution_id
    error = json.loads(letter.error)
    assert (error["node_id"], error["attempt"]) == ("b", 1)
    assert error["message"] == "no process has had the handler 'rare' for 0.05 seconds"
    await runtime.stop()

    runtime = await start_runtime(handlers=[here, rare])
    requeued = await runtime.engine.dead_letters.requeue(execution_id)
    again = await end_of(runtime, requeued)
    assert (again.state, again.output) == ("COMPLETED", "rare")


async def test_others_are_not_held_up_by_nodes_that_wait(start_runtime: Make, run_workflow: Make) -> None:
    execution_id = await submitted(start_runtime)
    runtime = await start_runtime(handlers=[here])
    await runtime.engine.trigger(execution_id)
    async with asyncio.timeout(60):
        ended = await run_workflow(runtime, [{"id": "only", "handler": "here"}])
    assert ended.state == "COMPLETED"
