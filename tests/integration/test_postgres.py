"""Whole runtimes on a real PostgreSQL server: what only this backend can meet."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
from audit import broken_invariants
from postgres_server import PostgresServer

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.core.graph import compile_graph
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.errors import BackendError, StoreUnavailable, StoreUnusable
from workflow_engine.runtime.parts import node_defaults
from workflow_engine.runtime.ports import ExecutionFilter
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.postgres_connections import PostgresAddress
from workflow_engine.runtime.store.postgres_migrations import check_migrated, migrate
from workflow_engine.sql import load_migrations

StartRuntime = Callable[..., Awaitable[Runtime]]
EndOf = Callable[[Runtime, str], Awaitable[Any]]

DIAMOND = {
    "name": "diamond",
    "dag": {
        "nodes": [
            {"id": "input", "handler": "input"},
            *({"id": each, "handler": "step", "dependencies": ["input"]} for each in "bcd"),
            {"id": "output", "handler": "output", "dependencies": ["b", "c", "d"]},
        ]
    },
}


@handler("step")
async def step(_config: dict[str, Any], context: NodeContext) -> dict[str, Any]:
    return {"node": context.node_id}


ON_EACH_SERVER = pytest.mark.parametrize("postgres_server", ["package", "debian"], indirect=True)


@pytest.fixture
def postgres_server(request: pytest.FixtureRequest, postgres_server: PostgresServer) -> PostgresServer:
    """The server of the run; for a test that is marked so, Debian's older one too."""
    if getattr(request, "param", "package") == "package":
        return postgres_server
    debian: PostgresServer = request.getfixturevalue("debian_postgres_server")
    return debian


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server of the test's own, as durable as in production, to be killed."""
    server = PostgresServer(settings={})
    server.start()
    yield server
    server.close()


@ON_EACH_SERVER
async def test_a_workflow_runs_and_is_there_after_a_restart(
    start_postgres_runtime: StartRuntime, stop_runtime: Callable[[Runtime], Awaitable[None]], end_of: EndOf
) -> None:
    runtime = await start_postgres_runtime(handlers=[step])
    submitted = await runtime.engine.submit(DIAMOND)
    ended = await end_of(runtime, await runtime.engine.trigger(submitted.execution_id, {"n": 1}))
    await stop_runtime(runtime)
    again = await start_postgres_runtime(handlers=[step])

    assert ended.output == {each: {"node": each} for each in "bcd"}
    assert (await again.engine.results(submitted.execution_id)).state is WorkflowState.COMPLETED
    assert (await again.store.health()).detail.startswith("PostgreSQL ")


async def test_what_runs_goes_on_when_the_server_is_killed_and_comes_back(
    own_server: PostgresServer, start_runtime: StartRuntime
) -> None:
    """kill -9 of the server in the middle of executions: nothing acknowledged is lost, nothing is recorded twice."""
    runtime = await start_runtime(handlers=[step], **own_server.settings(own_server.create_database()))
    engine = runtime.engine
    accepted = [(await engine.submit(DIAMOND)).execution_id for _ in range(10)]
    refused = 0
    triggered = []

    async def trigger(execution_id: str) -> None:
        nonlocal refused
        try:
            triggered.append(await engine.trigger(execution_id))
        except BackendError:
            refused += 1

    await asyncio.gather(*map(trigger, accepted[:5]))
    own_server.kill()
    await asyncio.gather(*map(trigger, accepted[5:]))
    assert (len(triggered), refused) == (5, 5)
    assert not (await runtime.store.health()).ok
    with pytest.raises(StoreUnavailable):
        await engine.status(accepted[0])
    own_server.start()

    for execution_id in triggered:
        while True:
            try:
                results = await engine.results(execution_id, 60.0)
                break
            except StoreUnavailable:
                await asyncio.sleep(0)
        assert results.state is WorkflowState.COMPLETED
    listed = await engine.list_executions(ExecutionFilter(), before=None, limit=100)
    assert {each.execution_id for each in listed} == set(accepted)
    for loaded in await runtime.store.load(triggered):
        definition = await runtime.store.read_definition(loaded.record.definition_id)
        assert definition is not None
        graph = compile_graph(decode(definition.body), node_defaults(runtime.settings))
        assert broken_invariants(loaded, graph) == []


@ON_EACH_SERVER
async def test_two_processes_share_the_partitions_and_the_work(
    start_postgres_runtime: StartRuntime, stop_runtime: Callable[[Runtime], Awaitable[None]], end_of: EndOf
) -> None:
    """Without Redis they hear of each other's news at the sweep; the work is done all the same, each node once."""
    quick = {"orchestrator_stale_claim_interval": 0.2, "handlers": [step]}
    first = await start_postgres_runtime(**quick)
    assert len(first.owner.owned) == 16
    second = await start_postgres_runtime(**quick)
    while len(first.owner.owned) != 8 or len(second.owner.owned) != 8:
        await asyncio.sleep(0)

    ids = [(await first.engine.submit(DIAMOND)).execution_id for _ in range(20)]
    for execution_id in ids:
        await first.engine.trigger(execution_id)
    for execution_id in ids:
        ended = await end_of(second, execution_id)
        assert ended.state is WorkflowState.COMPLETED
        assert [number for _, number, _ in ended.summary] == [1] * 5

    await stop_runtime(first)
    while len(second.owner.owned) != 16:
        await asyncio.sleep(0)


async def test_the_number_of_partitions_is_fixed_by_the_first_start(
    start_postgres_runtime: StartRuntime, stop_runtime: Callable[[Runtime], Awaitable[None]]
) -> None:
    await stop_runtime(await start_postgres_runtime(partitions=4))
    with pytest.raises(StoreUnusable, match="the database has 4 partitions, and PARTITIONS is 16: set it to 4"):
        await start_postgres_runtime()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"postgres_port": 1}, "127.0.0.1:1"),
        ({"postgres_database": "absent"}, 'database "absent" does not exist'),
        ({"postgres_user": "absent"}, 'role "absent" does not exist'),
    ],
)
async def test_a_database_that_cannot_be_used_is_named_with_its_variables(
    start_postgres_runtime: StartRuntime, given: dict[str, Any], named: str
) -> None:
    with pytest.raises(StoreUnusable, match="POSTGRES_URL, or POSTGRES_HOST") as refused:
        await start_postgres_runtime(**given)
    assert named in str(refused.value)


@ON_EACH_SERVER
async def test_ten_that_migrate_at_once_apply_each_migration_once(
    postgres_server: PostgresServer, postgres_schema: str
) -> None:
    options: dict[str, Any] = {"server_settings": {"search_path": postgres_schema}}
    where = PostgresAddress(*postgres_server.address)
    connections = await asyncio.gather(
        *(
            asyncpg.connect(host=where.host, port=where.port, user=where.user, database=where.database, **options)
            for _ in range(10)
        )
    )
    names = [f"{migration.number:04}_{migration.name}" for migration in load_migrations("postgres")]
    with pytest.raises(StoreUnusable, match=f"lacks {', '.join(names)}, and SKIP_MIGRATIONS is set"):
        await check_migrated(connections[0])
    applied = await asyncio.gather(*(migrate(connection, 1) for connection in connections))
    await check_migrated(connections[0])

    assert sorted(applied) == [[]] * 9 + [names]
    for connection in connections:
        await connection.close()


async def test_health_tells_of_postgresql_and_the_partitions(
    start_postgres_runtime: StartRuntime, make_api: Callable[..., Awaitable[Any]], own_server: PostgresServer
) -> None:
    client = await make_api(await start_postgres_runtime(**own_server.settings(own_server.create_database())))
    async with client.get("/v1/health") as response:
        services = (await response.json())["services"]
    assert response.status == 200
    assert services["postgres"].startswith("healthy (PostgreSQL ")
    assert services["orchestrator"] == "healthy (16 of 16 partitions; 16 owned by anybody)"

    own_server.kill()
    async with client.get("/v1/health") as response:
        services = (await response.json())["services"]
    assert response.status == 503
    assert re.match(r"unhealthy \((no|the) connection to PostgreSQL ", services["postgres"])
