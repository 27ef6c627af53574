"""A process without a handler takes definitions that name it, once another process on its database has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from api_client import Make, error_paths, problem
from pydantic import BaseModel

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.known_handlers import KnownHandlers
from workflow_engine.runtime.process import Runtime

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
