"""One replica of two cannot reach what it depends on, as it should: the other goes on, and it comes back by itself.

The replicas are whole runtimes in this process, on servers of the tests' own; a proxy is between one of them and the
server.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from crew import INTERVALS, Crew, Users, completed_between
from postgres_server import PostgresServer
from redis_server import RedisServer
from tcp_proxy import TcpProxy

pytestmark = [pytest.mark.chaos, pytest.mark.campaign]

StartCrew = Callable[..., Awaitable[Crew]]

TROUBLE_SECONDS = 6.0
"""More than it takes until a replica that does not speak counts as dead."""
PATIENCE_SECONDS = 10.0
LONGEST_STATEMENT_SECONDS = 10.0


class Slow:
    """Every piece of what is said takes up to 400 ms, each way: 200 on average."""

    def begin(self, proxy: TcpProxy) -> None:
        proxy.latency_seconds = 0.4

    def end(self, proxy: TcpProxy) -> None:
        proxy.latency_seconds = 0.0


class Cut:
    """Every connection is reset, several times a second."""

    def begin(self, proxy: TcpProxy) -> None:
        self._cutting = asyncio.create_task(self._cut(proxy))

    async def _cut(self, proxy: TcpProxy) -> None:
        while True:
            proxy.cut()
            await asyncio.sleep(0.3)

    def end(self, proxy: TcpProxy) -> None:
        self._cutting.cancel()


class Refused:
    """No connection can be made."""

    def begin(self, proxy: TcpProxy) -> None:
        proxy.refuse()

    def end(self, proxy: TcpProxy) -> None:
        proxy.heal()


class HalfOpen:
    """Connections are accepted, and nothing is ever answered."""

    def begin(self, proxy: TcpProxy) -> None:
        proxy.ignore_new()
        proxy.cut()

    def end(self, proxy: TcpProxy) -> None:
        proxy.heal()


class Blackhole:
    """What is said arrives when it is over."""

    def begin(self, proxy: TcpProxy) -> None:
        proxy.blackhole()

    def end(self, proxy: TcpProxy) -> None:
        proxy.heal()


SOFT = [Slow, Cut]
HARD = [Refused, HalfOpen, Blackhole]


def report(text: str) -> None:
    print(text)  # noqa: T201


@pytest.fixture
async def redis_proxy(durable_redis: RedisServer) -> AsyncIterator[TcpProxy]:
    durable_redis.ask("FLUSHALL")
    async with TcpProxy(durable_redis.port, seed=1) as proxy:
        yield proxy


@pytest.fixture
async def postgres_proxy(durable_postgres: PostgresServer) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(durable_postgres.port, seed=2) as proxy:
        yield proxy


@pytest.fixture
async def crew(start_crew: StartCrew, durable_redis: RedisServer) -> Crew:
    """Nobody yet."""
    durable_redis.ask("FLUSHALL")
    return await start_crew(redis_port=durable_redis.port)


@pytest.mark.parametrize("trouble", [*SOFT, *HARD])
async def test_one_replica_cannot_reach_redis(crew: Crew, redis_proxy: TcpProxy, trouble: Callable[[], Any]) -> None:
    """Both go on with what they own."""
    await crew.start()
    victim = await crew.start(redis_port=redis_proxy.port)
    await crew.until_shared()
    network = trouble()
    async with Users(crew.urls) as users:
        await users.until_acknowledged(50)
        network.begin(redis_proxy)
        began_at = time.time()
        await asyncio.sleep(TROUBLE_SECONDS)
        owned = set(victim.runtime.leases.versions)
        ended_at = time.time()
        network.end(redis_proxy)
        back_at = time.monotonic()
        await crew.until_shared()
        back_seconds = time.monotonic() - back_at
        await users.until_acknowledged(50)
        await users.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users)
    meanwhile = completed_between(executions, began_at + 1, ended_at)
    of_victim = completed_between(
        [each for each in executions if crew.partition_of(each) in owned], began_at + 1, ended_at
    )
    report(
        f"{trouble.__name__} to Redis: {len(executions)} executions, {meanwhile} completed meanwhile, {of_victim} "
        f"of them the victim's; known again after {back_seconds:.1f} s; everything {settled_seconds:.1f} s after the "
        f"last was started; slowest answer {users.slowest_seconds:.2f} s"
    )
    assert set(users.answers) == {200, 202}
    assert users.slowest_seconds < INTERVALS["redis_socket_timeout"] + PATIENCE_SECONDS
    assert of_victim > 20
    assert meanwhile - of_victim > 20
    bound = INTERVALS["worker_heartbeat_timeout"] + INTERVALS["worker_stale_claim_interval"]
    assert settled_seconds < bound + PATIENCE_SECONDS


@pytest.mark.parametrize("trouble", SOFT)
async def test_one_replica_hardly_reaches_postgres(
    crew: Crew, postgres_proxy: TcpProxy, trouble: Callable[[], Any]
) -> None:
    await crew.start()
    await crew.start(postgres_port=postgres_proxy.port)
    await crew.until_shared()
    network = trouble()
    async with Users(crew.urls) as users:
        await users.until_acknowledged(50)
        network.begin(postgres_proxy)
        began_at = time.time()
        await asyncio.sleep(TROUBLE_SECONDS)
        ended_at = time.time()
        network.end(postgres_proxy)
        await crew.until_shared()
        await users.until_acknowledged(50)
        await users.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users)
    meanwhile = completed_between(executions, began_at + 1, ended_at)
    report(
        f"{trouble.__name__} to PostgreSQL: {len(executions)} executions, {meanwhile} completed meanwhile, everything "
        f"{settled_seconds:.1f} s after the last was started; slowest answer {users.slowest_seconds:.2f} s, "
        f"{dict(users.answers)}"
    )
    assert users.bad_answers == []
    assert meanwhile > 20
    assert settled_seconds < INTERVALS["orchestrator_stale_result_timeout"] + PATIENCE_SECONDS


@pytest.mark.parametrize("trouble", HARD)
async def test_one_replica_cannot_reach_postgres(
    crew: Crew, postgres_proxy: TcpProxy, trouble: Callable[[], Any]
) -> None:
    """The other takes over what it owned, and gives it back."""
    healthy = await crew.start()
    victim = await crew.start(postgres_port=postgres_proxy.port)
    await crew.until_shared()
    network = trouble()
    async with Users([healthy.url]) as users, Users([victim.url], prefix="victim") as users_of_victim:
        await users.until_acknowledged(50)
        network.begin(postgres_proxy)
        began_at = time.monotonic()
        await crew.until_owned(healthy, crew.partitions)
        taken_seconds = time.monotonic() - began_at
        await users.until_acknowledged(50)
        await users.leave()
        await crew.until_ended(users.acknowledged.values())
        refused = users_of_victim.answers[503]
        network.end(postgres_proxy)
        back_at = time.monotonic()
        await crew.until_shared()
        back_seconds = time.monotonic() - back_at
        await users_of_victim.until_acknowledged(20)
        await users_of_victim.leave()
    settled_seconds = await crew.until_all_ended()
    executions = await crew.audit(users, users_of_victim)
    report(
        f"{trouble.__name__} to PostgreSQL: {len(executions)} executions; everything taken over after "
        f"{taken_seconds:.1f} s, and shared again {back_seconds:.1f} s after the end, {refused} refused; the last "
        f"ended after {settled_seconds:.1f} s; slowest answer {users_of_victim.slowest_seconds:.2f} s, of the other "
        f"{users.slowest_seconds:.2f} s"
    )
    assert users.bad_answers == users_of_victim.bad_answers == []
    assert 503 not in users.answers
    assert refused > 0
    assert taken_seconds < INTERVALS["orchestrator_stale_result_timeout"] + PATIENCE_SECONDS
    assert users_of_victim.slowest_seconds < LONGEST_STATEMENT_SECONDS + PATIENCE_SECONDS
