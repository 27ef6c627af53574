"""What users and operators would notice: states that go back, memory that stays, damage that spreads."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

from workflow_engine.plugins import NodeContext, RetryAfter, handler
from workflow_engine.runtime.core.state import NodeState, WorkflowState

Make = Callable[..., Any]

RANK = {state: rank for rank, state in enumerate([NodeState.PENDING, NodeState.QUEUED, NodeState.RUNNING])}


@handler("turns")
async def turns(config: dict[str, Any], _context: NodeContext) -> None:
    """Take some turns of the event loop."""
    for _ in range(config.get("turns", 3)):
        await asyncio.sleep(0)


@handler("much_later")
async def much_later(_config: dict[str, Any], _context: NodeContext) -> None:
    """Ask for another attempt in an hour."""
    raise RetryAfter("in an hour", seconds=3_600)


async def test_the_states_that_users_see_never_go_back(start_runtime: Make, start_workflow: Make) -> None:
    runtime = await start_runtime(handlers=[turns])
    nodes = [{"id": f"n{index}", "handler": "turns", "config": {"turns": index * 3}} for index in range(6)]
    nodes.append({"id": "last", "handler": "turns", "dependencies": [f"n{index}" for index in range(6)]})
    looks = 0
    for _ in range(20):
        execution_id = await start_workflow(runtime, nodes)
        seen: dict[str, NodeState] = {}
        while True:
            status = await runtime.engine.status(execution_id)
            for node_id, state in status.node_states.items():
                before = seen.get(node_id, NodeState.PENDING)
                assert RANK.get(before, 9) <= RANK.get(state, 9), f"{node_id} went from {before} back to {state}"
                seen[node_id] = state
                looks += 1
            if status.state is WorkflowState.COMPLETED:
                break
    assert looks > 20 * len(nodes)


async def test_what_only_waits_for_a_far_retry_is_not_in_memory(start_runtime: Make, start_workflow: Make) -> None:
    runtime = await start_runtime(handlers=[much_later, turns])
    executions = [await start_workflow(runtime, [{"id": "a", "handler": "much_later"}]) for _ in range(20)]
    for execution_id in executions:
        with runtime.transport.follow(execution_id) as follower:
            while (await runtime.store.read_execution(execution_id)).parked_until is None:
                await follower.changed(1.0)

    assert runtime.owner.loaded_count == 0
    assert len(runtime.owner._timers) == 0


async def test_a_damaged_definition_stops_only_its_own_executions(
    start_runtime: Make, stop_runtime: Make, start_workflow: Make, end_of: Make, make_api: Make
) -> None:
    runtime = await start_runtime(handlers=[much_later, turns])
    damaged = await start_workflow(runtime, [{"id": "a", "handler": "much_later"}])
    record = await runtime.store.read_execution(damaged)
    path = runtime.settings.sqlite_path
    await stop_runtime(runtime)
    connection = sqlite3.connect(path, isolation_level=None)
    body = b'{"name":"x","dag":{"nodes":[{"id":"a","handler":1}]}}'
    changed = connection.execute(
        "UPDATE definitions SET body = ? WHERE definition_id = ?", (body, record.definition_id)
    ).rowcount
    connection.execute("UPDATE executions SET parked_until = NULL WHERE execution_id = ?", (damaged,))
    connection.close()
    assert changed == 1

    runtime = await start_runtime(handlers=[much_later, turns], sqlite_path=path)
    healthy = await start_workflow(runtime, [{"id": "b", "handler": "turns"}])
    ended = await end_of(runtime, healthy)

    assert ended.state is WorkflowState.COMPLETED
    assert list(runtime.owner.set_aside) == [damaged]
    health = await (await (await make_api(runtime)).get("/v1/health")).json()
    assert health["services"]["orchestrator"] == "healthy (1 executions set aside, the log says why)"


async def test_a_handler_that_closes_the_shared_session_harms_nobody_else(
    start_runtime: Make, run_workflow: Make
) -> None:
    @handler("closer")
    async def closer(_config: dict[str, Any], context: NodeContext) -> bool:
        async with context.http:
            return True

    @handler("user")
    async def user(_config: dict[str, Any], context: NodeContext) -> bool:
        return context.http.closed

    runtime = await start_runtime(handlers=[closer, user])
    nodes = [{"id": "a", "handler": "closer"}, {"id": "b", "handler": "user", "dependencies": ["a"]}]
    ended = await run_workflow(runtime, nodes)

    assert ended.output is False


async def test_inputs_that_are_too_large_together_fail_the_node_that_wants_them(
    start_runtime: Make, run_workflow: Make
) -> None:
    @handler("large")
    async def large(_config: dict[str, Any], _context: NodeContext) -> str:
        return "x" * 3_900_000

    @handler("reader")
    async def reader(_config: dict[str, Any], context: NodeContext) -> int:
        return len(context.inputs)

    runtime = await start_runtime(handlers=[large, reader])
    names = [f"n{index}" for index in range(5)]
    nodes: list[dict[str, Any]] = [{"id": name, "handler": "large"} for name in names]
    nodes.append({"id": "all", "handler": "reader", "dependencies": names})
    ended = await run_workflow(runtime, nodes)

    assert ended.state is WorkflowState.FAILED
    assert [failure["type"] for failure in ended.failures] == ["inputs_too_large"]
