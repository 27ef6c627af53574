"""A process without a handler takes definitions that name it, once another process on its database has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from api_client import Make, error_paths, problem, results
from pydantic import BaseModel

from workflow_engine.plugins import Handler, NodeContext, RetryDefaults, handler
from workflow_engine.runtime.known_handlers import KnownHandlers
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.transport.memory import MemoryBroker

StartRuntime = Callable[..., Awaitable[Runtime]]


class Config(BaseModel):
    """What "paint" takes."""

    colour: str


@handler("paint", config=Config)
async def paint(_config: Config, _context: NodeContext) -> None:
    """Paint."""


def painting(**config: Any) -> dict[str, Any]:
    return {"name": "painting", "dag": {"nodes": [{"id": "n", "handler": "paint", "config": config}]}}


async def names_of(runtime: Runtime) -> list[str]:
    """The handlers that a process has told its store of, once it has."""
    while not (records := await runtime.store.list_handlers(0)):
        await asyncio.sleep(0)
    return [record.name for record in records]


async def test_every_start_tells_the_store_of_the_handlers(start_runtime: StartRuntime) -> None:
    runtime = await start_runtime(handlers=[paint])
    assert await names_of(runtime) == sorted(runtime.catalogue)


async def test_a_process_checks_definitions_by_what_another_runs(
    start_postgres_runtime: StartRuntime, make_api: Make
) -> None:
    with_it = await start_postgres_runtime(handlers=[paint])
    assert "paint" in await names_of(with_it)
    without = await start_postgres_runtime()
    client = await make_api(without)
    refused = await problem(
        await client.post("/v1/definitions", json=painting(colour="red")), 422, "invalid-definition"
    )
    assert error_paths(refused) == ["dag.nodes[0].handler"], "its own nodes are run here alone"

    without.engine.definitions.handlers = KnownHandlers(
        here=without.catalogue.records,
        config_checks=without.catalogue.config_checks,
        store=without.store,
        clock=without.clock,
        run_elsewhere=True,
    )
    refused = await problem(await client.post("/v1/definitions", json=painting(colour=1)), 422, "invalid-definition")
    assert error_paths(refused) == ["dag.nodes[0].config.colour"]
    for colour in ("red", "{{ input.colour }}"):
        assert (await client.post("/v1/definitions", json=painting(colour=colour))).status == 201
    async with client.get("/v1/functions") as response:
        items = {item["name"]: item for item in (await response.json())["items"]}
    assert {*items} == {*without.catalogue, "paint"}
    assert items["paint"]["description"] == "Paint."
    assert items["paint"]["config_schema"] == Config.model_json_schema()


@handler("left")
async def left(_config: dict[str, Any], context: NodeContext) -> list[str]:
    """Say what ran."""
    return ["left", context.execution_id]


@handler("right")
async def right(config: dict[str, Any], context: NodeContext) -> list[Any]:
    """Say what ran, and with what."""
    return ["right", context.execution_id, config]


@pytest.fixture
def start_replica(start_runtime: StartRuntime) -> StartRuntime:
    """`await start_replica("a", left)`: a replica with these handlers, on the store and the broker of this test."""
    store = MemoryStore(4, time.monotonic, shared=True)
    broker = MemoryBroker(lambda: time.time_ns() // 1_000_000)

    async def start(name: str, *handlers: Handler) -> Runtime:
        shared = {"store": store, "broker": broker, "backend": "distributed"}
        return await start_runtime(replica_id=name, handlers=handlers, worker_heartbeat_interval=0.2, **shared)

    return start


async def test_each_node_runs_where_its_handler_is(start_replica: StartRuntime, make_api: Make) -> None:
    replicas = [await start_replica("a", left), await start_replica("b", right)]
    for replica in replicas:
        while len(await replica.store.list_handlers(0)) < len(replica.catalogue) + 1:
            await asyncio.sleep(0)
    nodes = [
        {"id": "l", "handler": "left"},
        {"id": "r", "handler": "right", "dependencies": ["l"], "config": {"before": "{{ l.output[0] }}"}},
    ]
    for replica in replicas:
        client = await make_api(replica)
        assert (await client.post("/v1/definitions", json={"name": "both", "dag": {"nodes": nodes}})).status < 300
        async with client.post("/v1/definitions/both/executions?wait=60") as response:
            ended = await response.json()
        assert ended["output_data"] == ["right", ended["id"], {"before": "left"}]
        for name, config in (("left", []), ("right", [{"n": "{{ 1 }}"}])):
            async with client.post(f"/v1/functions/{name}?wait=60", json={"n": "{{ 1 }}"}) as response:
                execution_id = response.headers["Location"].rpartition("/")[2]
                assert (response.status, await response.json()) == (200, [name, execution_id, *config])
        async with client.get("/v1/functions") as response:
            workers = {item["name"]: item["workers"] for item in (await response.json())["items"]}
        assert (workers["left"], workers["right"], workers["input"]) == (["a"], ["b"], ["a", "b"])


@handler("declares", timeout_seconds=5, stale_timeout_seconds=6, retry=RetryDefaults(max_retries=0))
async def declares(_config: dict[str, Any], _context: NodeContext) -> None:
    """Fail."""
    raise OSError("not today")


async def test_a_replica_without_a_handler_knows_what_it_declares(start_replica: StartRuntime, end_of: Make) -> None:
    without, with_it = await start_replica("a"), await start_replica("b", declares)
    while "declares" not in {record.name for record in await without.store.list_handlers(0)}:
        await asyncio.sleep(0)

    submitted = await without.engine.submit({"name": "w", "dag": {"nodes": [{"id": "n", "handler": "declares"}]}})
    execution_id = await without.engine.trigger(submitted.execution_id, {})
    ended = await end_of(without, execution_id)

    assert ended.summary == [("n", 1, "FAILED")], "it is not tried again"
    for replica in (without, with_it):
        [loaded] = await replica.store.load([execution_id])
        graph = await replica.graphs.get(loaded.record.definition_id)
        assert (graph.timeouts_seconds, graph.retry_policies[0].max_retries) == ((5.0,), 0)
        assert replica.known_handlers.declared_of("declares").stale_timeout_seconds == 6


async def test_what_nobody_has_any_more_waits_and_says_so(
    start_replica: StartRuntime, stop_runtime: Make, make_api: Make
) -> None:
    with_it = await start_replica("a", left, right)
    while "right" not in await names_of(with_it):
        await asyncio.sleep(0)
    await stop_runtime(with_it)

    client = await make_api(await start_replica("b", left))
    reason = "waits for a worker that has the handler 'right'; none is alive"
    key = {"Idempotency-Key": "the one call"}
    called: dict[str, Any] = {"waiting": None}
    while called["waiting"] is None:
        async with client.post("/v1/functions/right?wait=0.05", headers=key) as response:
            assert response.status == 202
            called = await response.json()
    assert called["waiting"] == reason
    async with client.get(f"/v1/workflows/{called['execution_id']}") as response:
        assert (await response.json())["waiting"] == {"call": reason}
    async with client.get(f"/v1/workflows/{called['execution_id']}/nodes/call") as response:
        assert (await response.json())["waiting"]["message"] == reason
    async with client.get("/v1/functions/right") as response:
        item = await response.json()
    assert (item["workers"], item["running"], item["queued"]) == ([], 0, 1)
    async with client.get("/v1/health") as response:
        assert "1 for right" in (await response.json())["services"]["workers"]

    await start_replica("c", right)
    ended = await results(client, called["execution_id"])
    assert ended["output_data"] == ["right", called["execution_id"], {}]
