"""What a node waits for, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from api_client import NO_SUCH_ID, Client, Gate, Make, problem, submit, trigger

from workflow_engine.plugins import NodeContext, RetryAfter, handler
from workflow_engine.runtime.api import models
from workflow_engine.runtime.core.shares import NOBODY
from workflow_engine.runtime.process import Runtime


@handler("later")
async def later(_config: dict[str, Any], context: NodeContext) -> None:
    """Fail once, for long."""
    if context.attempt == 1:
        raise RetryAfter("not yet", seconds=3000)


def flow(*nodes: tuple[str, str, list[str]]) -> dict[str, Any]:
    listed = [{"id": name, "handler": runs, "dependencies": needed} for name, runs, needed in nodes]
    return {"name": "flow", "dag": {"nodes": listed}}


async def node(client: Client, execution_id: str, node_id: str) -> Any:
    async with client.get(f"/v1/workflows/{execution_id}/nodes/{node_id}") as response:
        assert response.status == 200
        body = await response.json()
    assert models.NodeStatus.model_validate(body)
    return body


async def waits_for(client: Client, execution_id: str, node_id: str) -> Any:
    waiting = (await node(client, execution_id, node_id))["waiting"]
    return waiting and waiting["for"]


@pytest.fixture
async def runtime(start_runtime: Make, gate: Gate) -> Runtime:
    """A runtime with one slot."""
    started: Runtime = await start_runtime(
        handlers=[gate.handler, later], worker_concurrency=1, retry_max_retries=1, retry_max_delay=3600
    )
    return started


async def test_a_node_through_its_life(client: Client, gate: Gate) -> None:
    execution_id = await submit(client, flow(("a", "gate", []), ("b", "gate", ["a"]), ("c", "gate", [])))
    assert await waits_for(client, execution_id, "a") == "trigger"
    assert (await node(client, execution_id, "a"))["attempt"] == 0
    await trigger(client, execution_id)
    await gate.started.wait()
    while (shown := await node(client, execution_id, "a"))["state"] != "RUNNING":
        await asyncio.sleep(0)
    assert (shown["handler"], shown["attempt"], shown["waiting"]) == ("gate", 1, None)
    behind = await node(client, execution_id, "b")
    assert behind["waiting"] == {"for": "predecessors", "message": "waits for a", "nodes": ["a"], "until": None}
    assert await waits_for(client, execution_id, "c") == "slot"
    gate.open.set()
    while (shown := await node(client, execution_id, "b"))["state"] != "COMPLETED":
        await asyncio.sleep(0)
    assert shown["waiting"] is None


async def test_what_an_attempt_says_of_itself_is_shown_while_it_runs(start_runtime: Make, make_api: Make) -> None:
    says, may_go_on = asyncio.Event(), asyncio.Event()

    @handler("says")
    async def says_it(_config: dict[str, Any], context: NodeContext) -> None:
        context.progress(0.25)
        context.progress("half of it")
        says.set()
        await may_go_on.wait()

    client = await make_api(await start_runtime(handlers=[says_it]))
    execution_id = await submit(client, flow(("a", "says", []), ("b", "says", ["a"])))
    await trigger(client, execution_id)
    await says.wait()

    assert (await node(client, execution_id, "a"))["progress"] == "half of it"
    assert (await node(client, execution_id, "b"))["progress"] is None
    may_go_on.set()
    while (shown := await node(client, execution_id, "a"))["state"] != "COMPLETED":
        await asyncio.sleep(0)
    assert shown["progress"] is None


async def test_a_node_that_waits_for_its_retry(client: Client) -> None:
    execution_id = await submit(client, flow(("a", "later", [])))
    await trigger(client, execution_id)
    while await waits_for(client, execution_id, "a") != "retry":
        await asyncio.sleep(0)
    shown = await node(client, execution_id, "a")
    assert (shown["state"], shown["attempt"]) == ("PENDING", 1)
    assert shown["waiting"]["message"] == "attempt 1 failed; waits for the time of the next one"
    assert shown["waiting"]["until"] is not None


async def test_a_node_whose_retry_runs_is_shown_as_running(start_runtime: Make, make_api: Make) -> None:
    begun, opened = asyncio.Event(), asyncio.Event()

    @handler("twice")
    async def twice(_config: dict[str, Any], context: NodeContext) -> None:
        """Fail, then wait."""
        if context.attempt == 1:
            raise RetryAfter("again", seconds=0)
        begun.set()
        await opened.wait()

    client = await make_api(await start_runtime(handlers=[twice]))
    execution_id = await submit(client, flow(("a", "twice", [])))
    await trigger(client, execution_id)
    await begun.wait()
    shown = await node(client, execution_id, "a")
    assert (shown["state"], shown["attempt"], shown["waiting"]) == ("RUNNING", 2, None)
    opened.set()


async def test_a_node_that_waits_for_somebody_to_own_it(
    client: Client, runtime: Runtime, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution_id = await submit(client, flow(("a", "gate", []), ("b", "gate", [])))
    await trigger(client, execution_id)
    await gate.started.wait()
    read_partitions = runtime.store.read_partitions

    async def nobody() -> Any:
        return [record._replace(owner=NOBODY) for record in await read_partitions()]

    monkeypatch.setattr(runtime.store, "read_partitions", nobody)
    assert await waits_for(client, execution_id, "b") == "partition"
    gate.open.set()


async def test_a_node_that_waits_for_others_of_its_handler(start_runtime: Make, make_api: Make) -> None:
    begun, opened = asyncio.Event(), asyncio.Event()

    @handler("alone", max_running_per_process=1)
    async def alone(_config: dict[str, Any], _context: NodeContext) -> None:
        """Run alone."""
        begun.set()
        await opened.wait()

    client = await make_api(await start_runtime(handlers=[alone]))
    execution_id = await submit(client, flow(("a", "alone", []), ("b", "alone", [])))
    await trigger(client, execution_id)
    await begun.wait()
    waiting = (await node(client, execution_id, "b"))["waiting"]
    assert (waiting["for"], waiting["message"]) == (
        "limit",
        "waits for its turn: as many attempts of 'alone' run as may",
    )
    opened.set()


async def test_what_is_not_there(client: Client) -> None:
    execution_id = await submit(client, flow(("first", "gate", [])))
    missing = await client.get(f"/v1/workflows/{execution_id}/nodes/frist")
    refused = await problem(missing, 404, "node-not-found")
    assert refused["detail"] == "the execution has no node 'frist'; did you mean 'first'?; there are first"
    await problem(await client.get(f"/v1/workflows/{NO_SUCH_ID}/nodes/first"), 404, "execution-not-found")
