"""Two real processes on one PostgreSQL: one dies, or stands still past its lease, in the middle of the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from audit import broken_invariants
from postgres_server import PostgresServer
from users import User, check_outcomes, until_some_are_triggered

from workflow_engine.config import load_settings
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.graph import compile_graph
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.parts import build_store, node_defaults
from workflow_engine.runtime.ports import ExecutionFilter

pytestmark = pytest.mark.chaos

ROUNDS = 4
EXECUTIONS = 100
LEASE_SECONDS = "2"
LOOK_SECONDS = "0.5"


@pytest.fixture
def database() -> Iterator[dict[str, str]]:
    """The variables of a database on a server of the test's own, as durable as in production."""
    server = PostgresServer(settings={})
    server.start()
    yield {name.upper(): str(value) for name, value in server.settings(server.create_database()).items()}
    server.close()


async def test_whatever_befalls_one_of_two_replicas_everything_acknowledged_completes_once(
    database: dict[str, str], start_server: Callable[..., Any]
) -> None:
    variables = {
        **database,
        "ORCHESTRATOR_STALE_RESULT_TIMEOUT": LEASE_SECONDS,
        "ORCHESTRATOR_STALE_CLAIM_INTERVAL": LOOK_SECONDS,
        "WORKER_CONCURRENCY": "25",
    }
    random, user = Random(3), User()
    victim, survivor = start_server(**variables), start_server(**variables)
    in_flight = []
    for number in range(ROUNDS):
        using = asyncio.gather(user.use(victim.url, EXECUTIONS), user.use(survivor.url, EXECUTIONS))
        await until_some_are_triggered(user, len(user.triggered) + random.randrange(20, EXECUTIONS // 2))
        if number % 2:
            victim.pause()
            in_flight.append(await _count_running(database))
            await user.wait_for_all(survivor.url)
            victim.resume()
            await using
        else:
            victim.kill()
            in_flight.append(await _count_running(database))
            await using
            victim = start_server(**variables)
    final = await user.wait_for_all(survivor.url)
    assert (victim.stop(), survivor.stop()) == (0, 0)

    assert min(in_flight) > 0, "nothing ran when it happened: no test at all"
    assert final == {"COMPLETED": len(user.triggered)}
    assert len(user.triggered) >= ROUNDS * EXECUTIONS
    executions = await _audit(database, user.submitted)
    check_outcomes(executions, user.triggered)
    print(f"{len(user.triggered)} executions, in flight when it happened: {in_flight}")  # noqa: T201


async def _count_running(database: dict[str, str]) -> int:
    store = build_store(_settings(database), SystemClock())
    await store.open()
    try:
        running = ExecutionFilter(states=frozenset({WorkflowState.RUNNING}))
        return len(await store.list_executions(running, None, 1_000))
    finally:
        await store.close()


async def _audit(database: dict[str, str], ids: set[str]) -> dict[str, Any]:
    """Everything that is stored of these executions, recomputed from its rows."""
    store = build_store(_settings(database), SystemClock())
    await store.open()
    try:
        loaded = await store.load(sorted(ids))
        [definition_id] = {each.record.definition_id for each in loaded}
        definition = await store.read_definition(definition_id)
    finally:
        await store.close()
    assert definition is not None
    graph = compile_graph(decode(definition.body), node_defaults(load_settings()))
    assert [broken for each in loaded for broken in broken_invariants(each, graph)] == []
    assert {each.record.execution_id for each in loaded} == ids, "an acknowledged submit is lost"
    return {each.record.execution_id: each for each in loaded}


def _settings(database: dict[str, str]) -> Any:
    return load_settings({name.lower(): value for name, value in database.items()})
