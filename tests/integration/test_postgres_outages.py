"""PostgreSQL, or the network to it, misbehaves: nothing is lost or done twice, and the work goes on by itself."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from api_client import SUBMIT, Client, Gate, problem, results, submit, trigger
from audit import broken_invariants
from postgres_server import PostgresServer
from tcp_proxy import TcpProxy, Trap, Wanted

from workflow_engine.config import load_settings
from workflow_engine.plugins import Handler, NodeContext, handler
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.graph import compile_graph
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.errors import BackendError, StoreOutcomeUnknown
from workflow_engine.runtime.parts import build_store, node_defaults
from workflow_engine.runtime.ports import ExecutionFilter
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.postgres import OWNER_CONNECTIONS, PostgresStore
from workflow_engine.runtime.store.postgres_connections import PostgresAddress

Make = Callable[..., Awaitable[Any]]
EndOf = Callable[[Runtime, str], Awaitable[Any]]
Ask = Callable[..., Awaitable[Any]]

DIAMOND: dict[str, Any] = {
    "name": "diamond",
    "dag": {
        "nodes": [
            {"id": "first", "handler": "step"},
            *({"id": each, "handler": "step", "dependencies": ["first"]} for each in "bcd"),
            {"id": "last", "handler": "step", "dependencies": ["b", "c", "d"]},
        ]
    },
}
NODES = ["first", "b", "c", "d", "last"]
GATED: dict[str, Any] = {
    "name": "gated",
    "dag": {"nodes": [{"id": "gate", "handler": "gate"}, {"id": "last", "handler": "step", "dependencies": ["gate"]}]},
}

TIMEOUT_SECONDS = 2.0
"""Of a statement: short, since the tests wait for it to pass, but longer than anything takes that is to succeed."""

BIND = b"B"
"""The first byte of the message that runs a prepared statement."""


class Steps:
    """The handler "step": returns a parameter of its workflow, and counts how often it ran, by (marker, node)."""

    def __init__(self) -> None:
        self.ran: Counter[tuple[str, str]] = Counter()
        self.on_run: Callable[[], None] = lambda: None

        @handler("step")
        async def step(_config: dict[str, Any], context: NodeContext) -> Any:
            marker = context.parameters.get("marker", "")
            self.ran[marker, context.node_id] += 1
            self.on_run()
            return marker

        self.handler: Handler = step


@pytest.fixture
def steps() -> Steps:
    return Steps()


@pytest.fixture
def handlers(steps: Steps, gate: Gate) -> list[Handler]:
    return [steps.handler, gate.handler]


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    """An empty database of the test's own."""
    return postgres_server.create_database()


@pytest.fixture
async def proxy(postgres_server: PostgresServer) -> AsyncIterator[TcpProxy]:
    """What stands between the engine and the server."""
    async with TcpProxy(postgres_server.port, seed=1) as proxy:
        yield proxy


@pytest.fixture
def start_behind_proxy(
    proxy: TcpProxy, postgres_server: PostgresServer, database: str, start_runtime: Make, handlers: list[Handler]
) -> Make:
    """`await start_behind_proxy(timeout_seconds=1.0)`: a runtime whose way to its database leads through the proxy."""

    async def start(*, timeout_seconds: float = 10.0, pool_size: int = 6, **settings: Any) -> Runtime:
        address = PostgresAddress("127.0.0.1", proxy.port, settings.pop("user", "postgres"), "unused", database)
        store = PostgresStore(
            address,
            SystemClock(),
            pool_size=pool_size,
            timeout_seconds=timeout_seconds,
            owner_timeout_seconds=timeout_seconds,
        )
        given = postgres_server.settings(database) | {"postgres_port": proxy.port, "worker_concurrency": 20}
        runtime: Runtime = await start_runtime(store=store, handlers=handlers, **given | settings)
        return runtime

    return start


@pytest.fixture
def start_directly(
    postgres_server: PostgresServer, database: str, start_runtime: Make, handlers: list[Handler]
) -> Make:
    """`await start_directly()`: a runtime on the same database, past the proxy, as its settings say."""

    async def start(**settings: Any) -> Runtime:
        given = postgres_server.settings(database) | {"worker_concurrency": 20}
        runtime: Runtime = await start_runtime(handlers=handlers, **given | settings)
        return runtime

    return start


@pytest.fixture
async def ask_server(postgres_server: PostgresServer, database: str) -> AsyncIterator[Ask]:
    """`await ask_server("select 1")`: ask the server itself, past the proxy, in a session of the test's."""
    connection: Any = await asyncpg.connect(**postgres_server.address._replace(database=database).options())
    yield connection.fetch
    await connection.close()


async def audited(runtime: Runtime, execution_id: str) -> None:
    """What is stored of an execution breaks no invariant."""
    [loaded] = await insist(lambda: runtime.store.load([execution_id]))
    definition = await insist(lambda: runtime.store.read_definition(loaded.record.definition_id))
    assert definition is not None
    graph = compile_graph(decode(definition.body), node_defaults(runtime.settings))
    assert broken_invariants(loaded, graph) == []


async def insist(make: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until the store answers, as a client would."""
    while True:
        try:
            return await make()
        except BackendError:
            await asyncio.sleep(0)


async def stored_ids(runtime: Runtime) -> list[str]:
    listed = await insist(lambda: runtime.engine.list_executions(ExecutionFilter(), before=None, limit=1000))
    return [each.execution_id for each in listed]


def trap(proxy: TcpProxy, what: str, wanted: Wanted) -> Trap:
    """Drop the `answer` to the next such request, or the `request` itself."""
    return {"answer": proxy.drop_answer, "request": proxy.drop_request}[what](wanted)


def nth(number: int, wanted: Wanted) -> Wanted:
    """The request after `number` others that are wanted too."""
    seen = Counter[bool]()

    def check(data: bytes) -> bool:
        seen[wanted(data)] += 1
        return wanted(data) and seen[True] > number

    return check


def test_the_owner_gives_a_statement_up_well_before_its_lease_runs_out(postgres_server: PostgresServer) -> None:
    given = postgres_server.settings("any")
    for lease_seconds, owner_seconds in ((6.0, 2.0), (600.0, 10.0)):
        settings = load_settings(given | {"orchestrator_stale_result_timeout": lease_seconds})
        store = build_store(settings, SystemClock())
        assert isinstance(store, PostgresStore)
        assert (store._owner.timeout_seconds, store._api.timeout_seconds) == (owner_seconds, 10.0)


# --- a connection that is lost under way ------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["answer", "request"])
@pytest.mark.parametrize("definition", ["new", "known"])
async def test_a_submit_whose_end_is_unknown_is_done_once_when_it_is_repeated(
    start_behind_proxy: Make, make_api: Make, proxy: TcpProxy, lost: str, definition: str
) -> None:
    """A new definition is stored in a transaction, one that is known in a statement: COMMIT is lost, or all of it."""
    runtime = await start_behind_proxy()
    client: Client = await make_api(runtime)
    known = [] if definition == "new" else [await submit(client, DIAMOND)]
    wanted = b"COMMIT" if definition == "new" else b"a-key"
    sprung = trap(proxy, lost, lambda data: wanted in data and (definition == "new" or data[:1] == BIND))
    headers = {"Idempotency-Key": "a-key"}

    await problem(await client.post(SUBMIT, json=DIAMOND, headers=headers), 503, "store-outcome-unknown")
    assert sprung.sprung.is_set()
    assert len(await stored_ids(runtime)) == len(known) + (lost == "answer")
    async with client.post(SUBMIT, json=DIAMOND, headers=headers) as response:
        assert response.status == 202
        execution_id = (await response.json())["execution_id"]

    assert sorted(await stored_ids(runtime)) == sorted([*known, execution_id])
    await trigger(client, execution_id)
    assert (await results(client, execution_id))["state"] == "COMPLETED"


@pytest.mark.parametrize("lost", ["answer", "request"])
async def test_a_trigger_whose_end_is_unknown_is_done_once_when_it_is_repeated(
    start_behind_proxy: Make, make_api: Make, proxy: TcpProxy, steps: Steps, lost: str
) -> None:
    runtime = await start_behind_proxy()
    client: Client = await make_api(runtime)
    execution_id = await submit(client, DIAMOND)
    trap(proxy, lost, lambda data: b"a-key" in data and data[:1] == BIND)
    path, headers = f"/v1/workflow/trigger/{execution_id}", {"Idempotency-Key": "a-key"}

    await problem(await client.post(path, headers=headers), 503, "store-outcome-unknown")
    async with client.post(path, headers=headers) as response:
        assert (response.status, (await response.json())["execution_id"]) == (200, execution_id)
    assert (await results(client, execution_id))["state"] == "COMPLETED"

    assert await stored_ids(runtime) == [execution_id]
    assert steps.ran == Counter({("", node): 1 for node in NODES})


@pytest.mark.parametrize("commit", [(lost, number) for lost in ("answer", "request") for number in range(3)])
async def test_a_commit_of_the_owner_whose_end_is_unknown_happens_once(
    start_behind_proxy: Make, proxy: TcpProxy, steps: Steps, end_of: EndOf, commit: tuple[str, int]
) -> None:
    """Each of the three commits of a diamond: of its first node, of those in the middle, of its last one."""
    lost, number = commit
    runtime = await start_behind_proxy()
    sprung = trap(proxy, lost, nth(number, lambda data: b"a-marker" in data and b"COMPLETED" in data))
    submitted = await runtime.engine.submit(DIAMOND)
    await runtime.engine.trigger(submitted.execution_id, {"marker": "a-marker"})

    ended = await end_of(runtime, submitted.execution_id)
    assert sprung.sprung.is_set()
    assert (ended.state, ended.output) == ("COMPLETED", "a-marker")
    assert sorted(ended.summary) == sorted((node, 1, "COMPLETED") for node in NODES)
    assert steps.ran == Counter({("a-marker", node): 1 for node in NODES})
    await audited(runtime, submitted.execution_id)


async def test_connections_that_are_cut_again_and_again_lose_nothing(
    start_behind_proxy: Make, proxy: TcpProxy, steps: Steps, end_of: EndOf
) -> None:
    """All connections are reset after every fortieth run of a handler, on a network that takes its time."""
    runtime = await start_behind_proxy()
    engine = runtime.engine
    proxy.latency_seconds = 0.002
    cuts = 0

    def cut_sometimes() -> None:
        nonlocal cuts
        if steps.ran.total() % 40 == 0:
            cuts += 1
            proxy.cut()

    steps.on_run = cut_sometimes
    executions = []
    for number in range(50):
        submitted = await insist(lambda: engine.submit(DIAMOND))
        execution_id, marker = submitted.execution_id, f"marker-{number}"
        try:
            await engine.trigger(execution_id, {"marker": marker})
        except StoreOutcomeUnknown:
            if (await insist(lambda: engine.status(execution_id))).state == "PENDING":  # noqa: B023
                await insist(lambda: engine.trigger(execution_id, {"marker": marker}))  # noqa: B023
        executions.append((execution_id, marker))

    for execution_id, marker in executions:
        ended = await insist(lambda: end_of(runtime, execution_id))  # noqa: B023
        assert (ended.state, ended.output) == ("COMPLETED", marker)
        assert sorted(ended.summary) == sorted((node, 1, "COMPLETED") for node in NODES)
        await audited(runtime, execution_id)
    assert cuts >= 6
    assert steps.ran == Counter({(marker, node): 1 for _, marker in executions for node in NODES})


# --- nothing gets through -------------------------------------------------------------------------------------

OUTAGES: dict[str, Callable[[TcpProxy], None]] = {
    "blackhole": TcpProxy.blackhole,
    "refused": TcpProxy.refuse,
    "half-open": lambda proxy: (proxy.ignore_new(), proxy.cut())[0],
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_during_an_outage_requests_are_refused_in_time_and_then_all_completes(
    start_behind_proxy: Make, make_api: Make, proxy: TcpProxy, gate: Gate, outage: str
) -> None:
    runtime = await start_behind_proxy(timeout_seconds=TIMEOUT_SECONDS)
    client: Client = await make_api(runtime)
    waiting = [await submit(client, GATED) for _ in range(5)]
    running = [await trigger(client, await submit(client, GATED)) for _ in range(5)]
    await gate.started.wait()

    OUTAGES[outage](proxy)
    gate.open.set()
    requests = [
        client.get(f"/v1/workflows/{waiting[0]}/results"),
        client.get(f"/v1/workflows/{running[0]}/results"),
        client.get("/v1/workflows"),
        client.post(SUBMIT, json=DIAMOND | {"name": "another"}),
        client.post(SUBMIT, json=GATED),
        client.post(f"/v1/workflow/trigger/{waiting[0]}"),
        client.post(f"/v1/workflows/{running[0]}/cancel"),
    ]
    health, *refused = await asyncio.gather(client.get("/v1/health"), *requests)
    assert (health.status, (await health.json())["services"]["postgres"].split()[0]) == (503, "unhealthy")
    for response in refused[:3]:
        await problem(response, 503, "store-unavailable")
    for response in refused[3:]:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    async with client.get("/livez") as response:
        assert response.status == 200

    proxy.heal()
    for execution_id in running:
        assert (await insist_on_results(client, execution_id))["state"] in ("COMPLETED", "CANCELLED")
    for execution_id in await stored_ids(runtime):
        if (await runtime.engine.status(execution_id)).state == "PENDING":
            await trigger(client, execution_id)
        ended = await insist_on_results(client, execution_id)
        assert ended["state"] == ("COMPLETED" if execution_id != running[0] else ended["state"])
        await audited(runtime, execution_id)
    async with client.get("/v1/health") as response:
        assert response.status == 200


async def insist_on_results(client: Client, execution_id: str) -> Any:
    while True:
        async with client.get(f"/v1/workflows/{execution_id}/results", params={"wait": 60}) as response:
            if response.status == 200:
                return await response.json()
            assert response.status == 503


async def test_what_a_replica_that_is_cut_off_had_in_hand_is_done_by_another_and_it_does_no_harm_later(
    start_directly: Make, proxy: TcpProxy, gate: Gate, end_of: EndOf
) -> None:
    """Both run the gate: the one that was cut off hands in too late, and its outcomes change nothing."""
    quick = {"orchestrator_stale_result_timeout": 1.5, "orchestrator_stale_claim_interval": 0.2}
    cut_off = await start_directly(postgres_port=proxy.port, **quick)
    submitted = [(await cut_off.engine.submit(GATED)).execution_id for _ in range(8)]
    for execution_id in submitted:
        await cut_off.engine.trigger(execution_id)
    while cut_off.pool.running_count < len(submitted):
        await asyncio.sleep(0)

    proxy.blackhole()
    other = await start_directly(**quick)
    while len(other.owner.owned) < 16:
        await asyncio.sleep(0)
    while other.pool.running_count < len(submitted):
        await asyncio.sleep(0)
    gate.open.set()
    for execution_id in submitted:
        ended = await end_of(other, execution_id)
        assert ended.summary == [("gate", 1, "COMPLETED"), ("last", 1, "COMPLETED")]

    proxy.heal()
    while len(cut_off.owner.owned) != 8 or len(other.owner.owned) != 8:
        await asyncio.sleep(0)
    assert cut_off.pool.running_count == 0
    for execution_id in submitted:
        await audited(cut_off, execution_id)
        assert (await end_of(cut_off, execution_id)).summary == [("gate", 1, "COMPLETED"), ("last", 1, "COMPLETED")]
    assert (cut_off.owner.set_aside, other.owner.set_aside) == ({}, {})


async def test_a_runtime_stops_although_the_database_does_not_answer(
    start_behind_proxy: Make, proxy: TcpProxy, stop_runtime: Make
) -> None:
    runtime = await start_behind_proxy(timeout_seconds=TIMEOUT_SECONDS)
    submitted = await runtime.engine.submit(DIAMOND)
    proxy.blackhole_at(lambda data: b"COMPLETED" in data)
    await runtime.engine.trigger(submitted.execution_id)
    await stop_runtime(runtime)
    assert not runtime.is_healthy()


async def test_a_transaction_whose_client_is_cut_off_holds_up_nobody_for_long(
    start_behind_proxy: Make, proxy: TcpProxy, postgres_server: PostgresServer, database: str
) -> None:
    """A definition's number is locked until COMMIT, which does not arrive: the server gives the lock up by itself."""
    cut_off = await start_behind_proxy(timeout_seconds=TIMEOUT_SECONDS)
    store = PostgresStore(
        postgres_server.address._replace(database=database),
        SystemClock(),
        pool_size=3,
        timeout_seconds=10.0,
        owner_timeout_seconds=10.0,
    )
    held = proxy.blackhole_at(lambda data: b"COMMIT" in data)
    submitting = asyncio.create_task(cut_off.engine.submit(DIAMOND))
    await held.sprung.wait()
    await store.open()
    other = cut_off.engine.definitions
    checked = await other.check(DIAMOND | {"description": "the next version"})
    assert not isinstance(checked.reference, str)
    defined = await store.define(checked.reference, 1)
    assert defined.version == 1
    with pytest.raises(StoreOutcomeUnknown):
        await submitting
    proxy.heal()
    await store.close()


# --- the server refuses ------------------------------------------------------------------------------------------


async def until_somebody_waits_for_a_lock(ask_server: Ask) -> None:
    query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while not await ask_server(query):
        await asyncio.sleep(0)


async def test_a_statement_that_takes_too_long_is_refused_and_has_not_happened(
    start_behind_proxy: Make, make_api: Make, ask_server: Ask
) -> None:
    """The server's own limit passes first, so that it is known that nothing has been stored."""
    runtime = await start_behind_proxy(timeout_seconds=TIMEOUT_SECONDS)
    client: Client = await make_api(runtime)
    execution_id = await submit(client, DIAMOND)
    await ask_server("BEGIN")
    await ask_server("LOCK TABLE executions IN EXCLUSIVE MODE")

    body = await problem(await client.post(SUBMIT, json=DIAMOND), 503, "store-unavailable")
    assert "canceling statement due to statement timeout" in body["detail"]
    async with client.get(f"/v1/workflows/{execution_id}") as response:
        assert response.status == 200
    await ask_server("ROLLBACK")
    assert await stored_ids(runtime) == [execution_id]
    assert await trigger(client, execution_id)
    assert (await results(client, execution_id))["state"] == "COMPLETED"


async def test_when_every_connection_is_taken_requests_are_refused_and_later_served(
    start_behind_proxy: Make, make_api: Make, ask_server: Ask
) -> None:
    """One connection for the API: whoever waits for it too long is refused, and the owner's own are not touched."""
    runtime = await start_behind_proxy(timeout_seconds=TIMEOUT_SECONDS, pool_size=OWNER_CONNECTIONS + 1)
    client: Client = await make_api(runtime)
    execution_id = await trigger(client, await submit(client, DIAMOND))
    await results(client, execution_id)
    await ask_server("BEGIN")
    await ask_server("LOCK TABLE definitions, executions IN ACCESS EXCLUSIVE MODE")

    paths = [f"/v1/workflows?limit={limit}" for limit in range(1, 21)]
    refused = await asyncio.gather(*(client.get(path) for path in paths))
    for response in refused:
        await problem(response, 503, "store-unavailable")
    await ask_server("ROLLBACK")
    for response in await asyncio.gather(*(client.get(path) for path in paths)):
        assert response.status == 200
        response.close()


async def test_a_server_without_room_for_more_connections_is_waited_for(
    start_behind_proxy: Make, make_api: Make, ask_server: Ask, proxy: TcpProxy, database: str
) -> None:
    role = f"engine_of_{database}"
    await ask_server(f"CREATE ROLE {role} LOGIN")
    await ask_server(f"ALTER DATABASE {database} OWNER TO {role}")
    runtime = await start_behind_proxy(timeout_seconds=TIMEOUT_SECONDS, user=role)
    client: Client = await make_api(runtime)
    execution_id = await submit(client, DIAMOND)
    await ask_server(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    proxy.cut()

    body = await insist_on_refusal(client, execution_id)
    assert "too many connections for role" in body["detail"]
    await ask_server(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    await insist(lambda: runtime.engine.trigger(execution_id))
    assert (await insist_on_results(client, execution_id))["state"] == "COMPLETED"


async def insist_on_refusal(client: Client, execution_id: str) -> dict[str, Any]:
    """The problem that a read meets, past connections that have not noticed yet."""
    while True:
        response = await client.get(f"/v1/workflows/{execution_id}")
        if response.status == 503 and "connection to PostgreSQL was lost" not in await response.text():
            return await problem(response, 503, "store-unavailable")


async def test_a_session_that_holds_a_partition_holds_up_its_commits_only_while_it_does(
    start_behind_proxy: Make, make_api: Make, ask_server: Ask, steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = await start_behind_proxy(timeout_seconds=TIMEOUT_SECONDS)
    client: Client = await make_api(runtime)
    await ask_server("BEGIN")
    await ask_server("SELECT FROM partitions FOR UPDATE")
    started = [await trigger(client, await submit(client, DIAMOND)) for _ in range(5)]
    await until_somebody_waits_for_a_lock(ask_server)
    while "cannot commit, trying again" not in caplog.text:
        await asyncio.sleep(0)

    started.append(await trigger(client, await submit(client, DIAMOND)))
    async with client.get(f"/v1/workflows/{started[0]}") as response:
        assert (response.status, (await response.json())["state"]) == (200, "RUNNING")
    await ask_server("ROLLBACK")
    for execution_id in started:
        assert (await results(client, execution_id))["state"] == "COMPLETED"
        await audited(runtime, execution_id)
    assert set(steps.ran) == {("", node) for node in NODES}
    assert "canceling statement due to statement timeout" in caplog.text


async def test_a_database_that_only_reads_refuses_writes_says_so_and_goes_on_when_it_writes_again(
    start_behind_proxy: Make, make_api: Make, ask_server: Ask, database: str, gate: Gate
) -> None:
    runtime = await start_behind_proxy()
    client: Client = await make_api(runtime)
    running = await trigger(client, await submit(client, GATED))
    await gate.started.wait()
    others = (
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
    )
    await ask_server(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    await ask_server(others, database)

    gate.open.set()
    body = await insist_on_read_only(client)
    assert "cannot execute" in body["detail"]
    async with client.get("/v1/health") as response:
        services = (await response.json())["services"]
        assert (response.status, services["postgres"]) == (
            503,
            "unhealthy (the server only reads: it is a standby, is recovering, or was told so)",
        )
    async with client.get(f"/v1/workflows/{running}") as response:
        assert (response.status, (await response.json())["state"]) == (200, "RUNNING")

    await ask_server(f"ALTER DATABASE {database} RESET default_transaction_read_only")
    await ask_server(others, database)
    assert (await insist_on_results(client, running))["state"] == "COMPLETED"
    await audited(runtime, running)


async def insist_on_read_only(client: Client) -> dict[str, Any]:
    """The problem of a submit, past connections that have not noticed yet."""
    while True:
        response = await client.post(SUBMIT, json=GATED)
        assert response.status == 503
        if "lost" not in await response.text():
            return await problem(response, 503, "store-unavailable")
