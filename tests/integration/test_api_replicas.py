"""What the API tells of the replicas: who owns which partition, who is alive and what he runs, and how all that is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from api_client import GATED, NO_SUCH_ID, Client, Gate, Make, problem, submit, trigger

from workflow_engine.runtime.api import models
from workflow_engine.runtime.api.app import create_health_app
from workflow_engine.runtime.api.keys import Keys
from workflow_engine.runtime.api.options import ApiOptions, HealthSources
from workflow_engine.runtime.api.routing import Scope
from workflow_engine.runtime.broker import BrokerHealth
from workflow_engine.runtime.cli.api import health_sources
from workflow_engine.runtime.core.deliveries import DeliveryKey, Heartbeat, Replicas, SeenHeartbeat
from workflow_engine.runtime.errors import BrokerUnavailable, StoreUnavailable
from workflow_engine.runtime.ports import NewExecution, Store
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.memory import MemoryStore

NOW = 1_790_000_000_000


def beat(replica: str, age_seconds: float = 1.0, **values: Any) -> SeenHeartbeat:
    default: dict[str, Any] = {
        "replica": replica,
        "roles": ("worker",),
        "handlers": ("output", "input"),
        "slots": 10,
        "free_slots": 4,
        "partitions": 0,
        "host": "a.example.com",
        "version": "1.2.3",
        "started_at": NOW - 60_000,
        "attempts": (),
    }
    return SeenHeartbeat(NOW - round(age_seconds * 1000), Heartbeat(**default | values))


def replicas(*seen: SeenHeartbeat) -> Callable[[], Awaitable[Replicas]]:
    async def read() -> Replicas:
        return Replicas(NOW, NOW - 3_600_000, seen)

    return read


def broker(*, ok: bool, detail: str) -> Callable[[], Awaitable[BrokerHealth]]:
    async def health() -> BrokerHealth:
        return BrokerHealth(ok, detail)

    return health


async def unreachable() -> Any:
    raise BrokerUnavailable("no answer of redis:6379")


async def unreadable() -> Any:
    raise StoreUnavailable("the database is away")


@pytest.fixture
def ask(make_api: Make, runtime: Runtime) -> Callable[..., Awaitable[Any]]:
    """`await ask("/v1/health", broker_health=...)`: the status and the answer, with other sources."""

    async def ask(path: str, **sources: Any) -> tuple[int, Any]:
        client = await make_api(runtime, health=replace(health_sources(runtime), **sources))
        async with client.get(path) as response:
            return response.status, await response.json()

    return ask


@pytest.fixture
async def shared(runtime: Runtime) -> MemoryStore:
    """A store of four partitions that a replica "a" owns one of, "b" another whose lease ran out 8 s ago."""
    times = [100.0]
    store = MemoryStore(4, lambda: times[0], shared=True)
    await store.take_partition(0, "a", 0, 30.0)
    await store.take_partition(1, "b", 0, 22.0)
    times[0] = 130.0 - 1e-9
    return store


async def start(store: Store, partition: int, age_seconds: float, now: int) -> None:
    name = f"e{partition}-{age_seconds}"
    await store.create_execution("def", NewExecution(name, partition, b"{}", now - round(age_seconds * 1000)))


# --- partitions -----------------------------------------------------------------------------------------


async def test_the_one_partition_of_a_file_is_this_process_s(client: Client, runtime: Runtime) -> None:
    async with client.get("/v1/partitions") as response:
        assert response.status == 200
        body = await response.json()
    [item] = body["items"]
    assert models.PartitionList.model_validate(body)
    assert (item["partition"], item["owner"], item["expires_in_seconds"]) == (0, runtime.replica, None)
    assert item["version"] >= 1
    assert (item["unserved_seconds"], body["oldest_unserved_seconds"]) == (None, None)


async def test_partitions_that_nobody_serves(ask: Make, shared: MemoryStore, runtime: Runtime) -> None:
    now = runtime.clock.now()
    await start(shared, 0, 500, now)
    await start(shared, 1, 400, now)
    await start(shared, 2, 300, now)
    status, body = await ask("/v1/partitions", store=shared)
    assert status == 200
    assert models.PartitionList.model_validate(body)
    owners = [(each["partition"], each["owner"], each["version"], each["expires_in_seconds"]) for each in body["items"]]
    assert owners == [(0, "a", 1, 0.0), (1, "b", 1, -8.0), (2, None, 0, None), (3, None, 0, None)]
    unserved = [each["unserved_seconds"] for each in body["items"]]
    assert (unserved[0], unserved[3]) == (None, None), "owned, and nothing waits"
    assert unserved[1] == 8.0, "what it waited before was in its owner's hands"
    assert 300 <= unserved[2] < 400
    assert body["oldest_unserved_seconds"] == unserved[2]


# --- workers --------------------------------------------------------------------------------------------


async def test_a_process_without_a_broker_describes_itself(client: Client, runtime: Runtime, gate: Gate) -> None:
    execution_id = await submit(client, GATED)
    await trigger(client, execution_id)
    await gate.started.wait()
    async with client.get("/v1/workers") as response:
        assert response.status == 200
        body = await response.json()
    gate.open.set()
    [item] = body["items"]
    assert models.WorkerList.model_validate(body)
    assert body["source"] == "checkpoints"
    assert (item["id"], item["alive"], item["age_seconds"]) == (runtime.replica, True, 0.0)
    assert item["roles"] == ["api", "orchestrator", "worker"]
    assert (item["slots"], item["free_slots"], item["partitions"]) == (10, 9, 1)
    assert item["handlers"] == sorted(runtime.catalogue)
    assert item["attempts"] == [{"execution_id": execution_id, "node_id": "gate", "attempt": 1}]


async def test_workers_by_their_heartbeats(ask: Make) -> None:
    theirs = DeliveryKey(NO_SUCH_ID, 3, 2)
    sources = replicas(beat("b", 14.999, attempts=[theirs]), beat("a", 15), beat("c", -3, roles=("api",), slots=0))
    status, body = await ask("/v1/workers", read_heartbeats=sources, heartbeat_timeout_seconds=15.0)
    assert (status, body["source"]) == (200, "heartbeats")
    assert models.WorkerList.model_validate(body)
    told = [(each["id"], each["alive"], each["age_seconds"]) for each in body["items"]]
    assert told == [("a", False, 15.0), ("b", True, 14.999), ("c", True, 0.0)]
    assert body["items"][1]["attempts"] == [{"execution_id": NO_SUCH_ID, "node_id": None, "attempt": 2}]
    assert body["items"][1]["started_at"] == "2026-09-21T14:12:20.000Z"
    assert body["items"][0]["handlers"] == ["input", "output"]


async def test_workers_by_their_checkpoints_when_the_broker_is_away(ask: Make) -> None:
    checkpoints = replicas(beat("a", 29.999), beat("b", 30))
    status, body = await ask(
        "/v1/workers",
        read_heartbeats=unreachable,
        heartbeat_timeout_seconds=15.0,
        read_checkpoints=checkpoints,
        checkpoint_timeout_seconds=30.0,
    )
    assert (status, body["source"]) == (200, "checkpoints")
    assert models.WorkerList.model_validate(body)
    told = [(each["id"], each["alive"], each["age_seconds"]) for each in body["items"]]
    assert told == [("a", True, 29.999), ("b", False, 30.0)]


async def test_workers_when_neither_answers(make_api: Make, runtime: Runtime) -> None:
    sources = replace(health_sources(runtime), read_heartbeats=unreachable, read_checkpoints=unreadable)
    client = await make_api(runtime, health=sources)
    await problem(await client.get("/v1/workers"), 503, "store-unavailable")


async def test_processes_that_share_a_database_are_seen_by_each_other(
    start_postgres_runtime: Make, stop_runtime: Make, make_api: Make
) -> None:
    first, second = [await start_postgres_runtime(replica_id=each) for each in ("a", "b")]
    client = await make_api(first)

    async def seen() -> list[tuple[str, bool, list[str]]]:
        async with client.get("/v1/workers") as response:
            body = await response.json()
        assert body["source"] == "checkpoints"
        return [(each["id"], each["alive"], each["roles"]) for each in body["items"]]

    roles = ["api", "orchestrator", "worker"]
    while len(await seen()) < 2:
        await asyncio.sleep(0)
    assert await seen() == [("a", True, roles), ("b", True, roles)]
    async with client.get("/v1/health") as response:
        assert (await response.json())["services"]["workers"] == "healthy (2 alive, 20 slots, 20 free)"
    await stop_runtime(second)
    assert await seen() == [("a", True, roles)]


# --- health ---------------------------------------------------------------------------------------------


async def test_health_of_redis(ask: Make) -> None:
    status, body = await ask("/v1/health", broker_health=broker(ok=True, detail="Valkey 9.1.2"))
    assert (status, body["status"], body["services"]["redis"]) == (200, "healthy", "healthy (Valkey 9.1.2)")
    assert models.Health.model_validate(body)


async def test_without_redis_health_is_degraded_and_the_process_ready(ask: Make) -> None:
    away = {"broker_health": broker(ok=False, detail="no answer"), "read_heartbeats": unreachable}
    status, body = await ask("/v1/health", **away)
    assert (status, body["status"]) == (200, "degraded")
    assert models.Health.model_validate(body)
    services = body["services"]
    assert services["redis"] == "unhealthy (no answer)"
    assert services["workers"] == "healthy (1 alive, 10 slots, 10 free, by what they last wrote to the database)"
    assert services["orchestrator"] == "healthy"
    assert (await ask("/readyz", **away))[0] == 200


async def test_health_when_nothing_can_be_read_of_the_workers(ask: Make) -> None:
    status, body = await ask("/v1/health", read_checkpoints=unreadable)
    assert (status, body["status"]) == (200, "degraded")
    assert body["services"]["workers"] == (
        "degraded (what they say of themselves cannot be read: the database is away)"
    )


async def test_health_counts_the_live_workers(ask: Make) -> None:
    seen = replicas(beat("a", slots=8, free_slots=3), beat("b"), beat("dead", 20), beat("api", roles=("api",), slots=0))
    _, body = await ask("/v1/health", read_heartbeats=seen, heartbeat_timeout_seconds=15.0)
    assert (body["status"], body["services"]["workers"]) == ("healthy", "healthy (2 alive, 18 slots, 7 free)")


async def test_health_without_a_live_worker_is_degraded_while_executions_wait(
    ask: Make, shared: MemoryStore, runtime: Runtime
) -> None:
    dead = replicas(beat("a", 60), beat("api", roles=("api",)))
    sources = {"read_heartbeats": dead, "heartbeat_timeout_seconds": 15.0, "store": shared}
    _, body = await ask("/v1/health", **sources)
    assert (body["status"], body["services"]["workers"]) == ("healthy", "healthy (0 alive, 0 slots, 0 free)")
    await start(shared, 0, 5, runtime.clock.now())
    status, body = await ask("/v1/health", **sources)
    assert (status, body["status"]) == (200, "degraded")
    assert body["services"]["workers"] == "degraded (0 alive, 0 slots, 0 free; executions wait)"


async def test_health_tells_what_is_owned_and_what_nobody_serves(
    ask: Make, shared: MemoryStore, runtime: Runtime
) -> None:
    await start(shared, 1, 100, runtime.clock.now())
    _, body = await ask("/v1/health", store=shared, owned=lambda: 1, set_aside=lambda: 2)
    assert body["services"]["orchestrator"] == (
        "healthy (1 of 4 partitions; 1 owned by anybody; oldest unserved 8 s; 2 executions set aside, the log says why)"
    )


async def test_health_when_the_store_fails_between_two_questions(
    ask: Make, shared: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: Any) -> Any:
        raise StoreUnavailable("gone")

    monkeypatch.setattr(shared, "oldest_ready", fail)
    status, body = await ask("/v1/health", store=shared)
    assert (status, body["services"]["orchestrator"]) == (200, "healthy (1 of 4 partitions)")


async def test_health_names_handlers_that_nobody_has(ask: Make) -> None:
    status, body = await ask("/v1/health", unserved=lambda: {"mail": 3, "fax": 1})
    assert (status, body["status"]) == (200, "degraded")
    assert body["services"]["workers"].endswith("handlers that no live process has: 1 for fax, 3 for mail)")


async def test_health_does_not_wait_for_who_does_not_answer(ask: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang() -> Any:
        await asyncio.Event().wait()

    for module in ("health_routes", "sights"):
        monkeypatch.setattr(f"workflow_engine.runtime.api.{module}.ANSWER_SECONDS", 0.01)
    status, body = await ask("/v1/health", broker_health=hang, read_heartbeats=hang)
    assert (status, body["status"]) == (200, "degraded")
    assert body["services"]["redis"] == "unhealthy (no answer for 0.01 s)"
    assert body["services"]["workers"].startswith("healthy (1 alive, 10 slots, 10 free, by what they last wrote")


async def test_a_process_without_the_role_orchestrator(ask: Make) -> None:
    status, body = await ask("/v1/health", owner_works=None)
    assert (status, body["services"]["orchestrator"]) == (200, "not a role of this process")
    assert await ask("/readyz", owner_works=None) == (200, {"status": "ready", "reason": None})


# --- health alone -----------------------------------------------------------------------------------------


@pytest.fixture
def make_health(aiohttp_client: Callable[..., Any], runtime: Runtime) -> Callable[..., Awaitable[Client]]:
    """`await make_health(sources, keys_required=True)`: a client of the health routes alone."""

    async def make(sources: HealthSources, **options: Any) -> Client:
        app = create_health_app(sources, clock=runtime.clock, version="1.2.3", options=ApiOptions(**options))
        client: Client = await aiohttp_client(TestServer(app))
        return client

    return make


async def test_health_alone_has_these_three_routes(make_health: Make, runtime: Runtime) -> None:
    client = await make_health(replace(health_sources(runtime), owner_works=None))
    for path in ("/livez", "/readyz", "/v1/health"):
        async with client.get(path) as response:
            assert response.status == 200
            assert response.headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/v1/workers", "/docs", "/"):
        await problem(await client.get(path), 404, "not-found")


async def test_health_alone_asks_for_keys_as_the_api_does(make_health: Make, runtime: Runtime) -> None:
    client = await make_health(health_sources(runtime), keys_required=True)
    text, _ = await Keys(runtime.store, runtime.clock).create("probe", Scope.READ, None)
    assert (await client.get("/readyz")).status == 200
    await problem(await client.get("/v1/health"), 401, "unauthenticated")
    assert (await client.get("/v1/health", headers={"X-API-Key": text})).status == 200
