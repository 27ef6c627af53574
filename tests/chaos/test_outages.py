"""Redis or PostgreSQL goes away, loses its data or misbehaves, under load: nothing is lost or done twice.

The replicas are whole runtimes in this process, on servers of the tests' own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Any

import pytest
from crew import INTERVALS, Crew, Users, completed_between, most_in_a_second
from postgres_server import PostgresServer
from redis_server import RedisCluster, RedisServer

from workflow_engine.plugins import Handler, NodeContext, handler, hookimpl

pytestmark = [pytest.mark.chaos, pytest.mark.campaign]

StartCrew = Callable[..., Awaitable[Crew]]
Trouble = Callable[[RedisServer], Awaitable[None]]

ALL_ROLES = ("all", "all")
APART = ("api,orchestrator", "worker")
APART_TWO = ("api,orchestrator", "worker", "worker")
TROUBLE_SECONDS = 3.0
FLUSHING_SECONDS = 10.0
BOUND_SECONDS = INTERVALS["worker_heartbeat_timeout"] + INTERVALS["worker_stale_claim_interval"]
"""When everything that Redis has lost is found at the latest."""
PATIENCE_SECONDS = 10.0
"""What a busy machine may add to what takes its time."""


def report(text: str) -> None:
    print(text)  # noqa: T201


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """As it is recommended: what is lost with a crash is a second's."""
    server = RedisServer({"appendonly": "yes", "appendfsync": "everysec"})
    server.start()
    yield server
    server.close()


@pytest.fixture
def forgetful_redis() -> Iterator[RedisServer]:
    """One that keeps nothing, unless it is told to save."""
    server = RedisServer()
    server.start()
    yield server
    server.close()


# --- away ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [ALL_ROLES, APART], ids=["all roles", "apart"])
async def test_redis_is_away_for_a_while(
    start_crew: StartCrew,
    redis: RedisServer,
    outage_seconds: float,
    roles: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
) -> None:
    crew = await start_crew(*roles, redis_port=redis.port)
    async with Users(crew.urls) as users:
        await users.until_acknowledged(50)
        redis.kill()
        away_at = time.time()
        await asyncio.sleep(outage_seconds)
        back_at = time.time()
        await asyncio.to_thread(redis.start)
        await users.until_acknowledged(50)
        await users.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users)
    meanwhile = completed_between(executions, away_at + 1, back_at)
    report(
        f"Redis away for {outage_seconds:g} s: {len(executions)} executions, {meanwhile} completed meanwhile; "
        f"everything {settled_seconds:.1f} s after the last was started; slowest answer {users.slowest_seconds:.2f} s"
    )
    assert set(users.answers) == {200, 202}
    assert (meanwhile > 0) == (roles == ALL_ROLES)
    assert {cause: count for cause, count in most_in_a_second(caplog.records).items() if count > len(roles)} == {}


class Gate:
    """A plugin with the handler "gate", which waits until it is opened."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.open = asyncio.Event()
        self.passed = 0

    @hookimpl
    def workflow_engine_handlers(self) -> list[Handler]:
        @handler("gate")
        async def gate(_config: dict[str, Any], _context: NodeContext) -> None:
            """Wait."""
            self.started.set()
            await self.open.wait()
            self.passed += 1

        return [gate]


async def test_postgres_is_away_for_a_while(
    start_crew: StartCrew,
    durable_postgres: PostgresServer,
    redis: RedisServer,
    outage_seconds: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    crew = await start_crew(*ALL_ROLES, plugins=[gate], redis_port=redis.port)
    gated = {"name": "gated", "dag": {"nodes": [{"id": "gate", "handler": "gate"}]}}
    engine = crew.replicas[0].runtime.engine
    async with Users(crew.urls) as users:
        gated_id = await engine.trigger((await engine.submit(gated)).execution_id)
        await gate.started.wait()
        await users.until_acknowledged(50)
        durable_postgres.kill()
        answered = users.answers.copy()
        await asyncio.sleep(outage_seconds / 2)
        gate.open.set()
        await asyncio.sleep(outage_seconds / 2)
        refused = users.answers - answered
        passed = gate.passed
        await asyncio.to_thread(durable_postgres.start)
        back_at = time.monotonic()
        results = await engine.results(gated_id, 60)
        gated_seconds = time.monotonic() - back_at
        await users.until_acknowledged(50)
        await users.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users, but=[gated_id])
    report(
        f"PostgreSQL away for {outage_seconds:g} s: {len(executions)} executions, answers meanwhile {dict(refused)}; "
        f"what had ended meanwhile was stored {gated_seconds:.1f} s after its return, everything {settled_seconds:.1f} "
        f"s after the last was started; slowest answer {users.slowest_seconds:.2f} s"
    )
    assert users.bad_answers == []
    assert refused[503] > 0
    assert passed == 1
    assert results.state == "COMPLETED"
    assert gate.passed == 1, "what had ended while the store was away ran again"
    assert {cause: count for cause, count in most_in_a_second(caplog.records).items() if count > len(ALL_ROLES)} == {}


# --- wiped --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [ALL_ROLES, APART_TWO], ids=["all roles", "apart"])
async def test_redis_is_wiped_again_and_again(
    start_crew: StartCrew, forgetful_redis: RedisServer, roles: tuple[str, ...]
) -> None:
    crew = await start_crew(*roles, redis_port=forgetful_redis.port)
    random, wipes = Random(4), 0
    async with Users(crew.urls) as users:
        await users.until_acknowledged(20)
        began_at = time.time()
        while time.time() < began_at + FLUSHING_SECONDS:
            forgetful_redis.ask("FLUSHALL")
            wipes += 1
            await asyncio.sleep(random.uniform(0.05, 0.55))
        ended_at = time.time()
        await users.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users)
    meanwhile = completed_between(executions, began_at, ended_at)
    report(
        f"{wipes} wipes: {len(executions)} executions, {meanwhile} completed meanwhile, the last of all "
        f"{settled_seconds:.1f} s after the last wipe"
    )
    assert wipes > 20
    assert meanwhile > 0
    assert settled_seconds < BOUND_SECONDS + PATIENCE_SECONDS


# --- other troubles -----------------------------------------------------------------------------------


async def restarted_empty(redis: RedisServer) -> None:
    redis.kill()
    await asyncio.to_thread(redis.start)


async def restarted_with_what_it_had_long_ago(redis: RedisServer) -> None:
    redis.ask("SAVE")
    await asyncio.sleep(TROUBLE_SECONDS)
    redis.kill()
    await asyncio.to_thread(redis.start)


async def scripts_forgotten(redis: RedisServer) -> None:
    for _ in range(30):
        redis.ask("SCRIPT", "FLUSH")
        await asyncio.sleep(TROUBLE_SECONDS / 30)


async def read_only(redis: RedisServer) -> None:
    redis.ask("REPLICAOF", "127.0.0.1", 1)
    await asyncio.sleep(TROUBLE_SECONDS)
    redis.ask("REPLICAOF", "NO", "ONE")


async def out_of_memory(redis: RedisServer) -> None:
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    await asyncio.sleep(TROUBLE_SECONDS)
    redis.ask("CONFIG", "SET", "maxmemory", 0)


async def stands_still(redis: RedisServer) -> None:
    redis.pause()
    await asyncio.sleep(TROUBLE_SECONDS)
    redis.resume()


@pytest.mark.parametrize(
    "trouble",
    [
        restarted_empty,
        restarted_with_what_it_had_long_ago,
        scripts_forgotten,
        read_only,
        out_of_memory,
        stands_still,
    ],
)
async def test_redis_has_other_troubles(start_crew: StartCrew, forgetful_redis: RedisServer, trouble: Trouble) -> None:
    """Nothing runs without it: the owner has no workers of its own."""
    crew = await start_crew(*APART, redis_port=forgetful_redis.port)
    async with Users(crew.urls) as users:
        await users.until_acknowledged(50)
        await trouble(forgetful_redis)
        over_at = time.time()
        await users.until_acknowledged(50)
        await users.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users)
    afterwards = completed_between(executions, over_at, time.time())
    report(
        f"{trouble.__name__}: {len(executions)} executions, {afterwards} completed afterwards, {settled_seconds:.1f} s"
    )
    assert set(users.answers) == {200, 202}
    assert afterwards >= 50
    assert settled_seconds < BOUND_SECONDS + PATIENCE_SECONDS


# --- a cluster ----------------------------------------------------------------------------------------


@pytest.fixture(params=["yes", "no"], ids=["all or nothing", "in part"])
def cluster(request: pytest.FixtureRequest) -> Iterator[RedisCluster]:
    """Three nodes, which serve nothing while one of them is away, or what they have."""
    cluster = RedisCluster()
    try:
        cluster.start()
        cluster.ask_all("CONFIG", "SET", "cluster-require-full-coverage", request.param)
        yield cluster
    finally:
        cluster.close()


@pytest.mark.parametrize("roles", [ALL_ROLES, APART], ids=["all roles", "apart"])
async def test_a_node_of_the_cluster_dies_and_comes_back_empty(
    start_crew: StartCrew, cluster: RedisCluster, outage_seconds: float, roles: tuple[str, ...]
) -> None:
    crew = await start_crew(*roles, redis_cluster=True, redis_port=cluster.servers[0].port)
    victim = cluster.servers[1]
    async with Users(crew.urls) as users:
        await users.until_acknowledged(100)
        victim.kill()
        away_at = time.time()
        await asyncio.sleep(outage_seconds)
        back_at = time.time()
        await asyncio.to_thread(victim.start)
        await asyncio.to_thread(cluster.wait_until_whole)
        await users.until_acknowledged(100)
        await users.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users)
    meanwhile = completed_between(executions, away_at + 1, back_at)
    report(
        f"a node away for {outage_seconds:g} s: {len(executions)} executions, {meanwhile} completed meanwhile; "
        f"everything {settled_seconds:.1f} s after the last was started; slowest answer {users.slowest_seconds:.2f} s"
    )
    assert set(users.answers) == {200, 202}
    assert roles == APART or meanwhile > 20
    if roles == ALL_ROLES:  # one worker has a minute's work to do after an outage of a minute
        assert settled_seconds < BOUND_SECONDS + PATIENCE_SECONDS
