"""Two replicas, or four processes, under everything that may befall them and what they depend on, several at a time.

Faults, their order and the workload are drawn from `--chaos-seed`; how everything interleaves is the machine's.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from commit_times import connected, count_running, premature_starts
from fleet import ALL, API, WORKER, read_starts
from mayhem import Mayhem
from mixed_users import DEPENDENCIES, MixedUsers, check_ends
from places import Place
from postgres_server import PostgresServer
from redis_server import RedisServer
from stored import load_sound

pytestmark = [pytest.mark.chaos, pytest.mark.campaign]

USERS = 64
LEASE_SECONDS = 2.0
BOUND_SECONDS = 30.0
TIMES = {
    "ORCHESTRATOR_STALE_RESULT_TIMEOUT": f"{LEASE_SECONDS:g}",
    "WORKER_HEARTBEAT_INTERVAL": "0.5",
    "WORKER_HEARTBEAT_TIMEOUT": "3",
    "WORKER_STALE_CLAIM_INTERVAL": "1",
    "STALE_TIMEOUT_DEFAULT": "5",
    "REDIS_SOCKET_TIMEOUT": "1",
    "WORKER_CONCURRENCY": "50",
    "WORKER_GRACEFUL_SHUTDOWN_TIMEOUT": "3",
    "API_MAX_CONCURRENT_REQUESTS": "100",
}


class Scene:
    """A database, a Redis, and a file for what handlers say of themselves."""

    def __init__(
        self, log: Path, database: dict[str, str], *, redis: RedisServer, postgres: PostgresServer, seed: int
    ) -> None:
        self.log = log
        self.database = database
        self.redis = redis
        self.postgres = postgres
        self.seed = seed

    def place(self, start_server: Callable[..., Any], number: int, roles: str) -> Place:
        """One that is not started yet."""
        return Place(
            f"{roles} {number}",
            start_server,
            {
                **self.database,
                **TIMES,
                "BACKEND": "distributed",
                "REDIS_HOST": "127.0.0.1",
                "RUNTIME_ROLES": roles,
                "CHAOS_HANDLER_LOG": str(self.log),
            },
            ports={"REDIS": self.redis.port, "POSTGRES": self.postgres.port},
            seed=self.seed * 100 + number,
        )


@pytest.fixture
def scene(
    tmp_path: Path,
    durable_postgres: PostgresServer,
    durable_redis: RedisServer,
    database: dict[str, str],
    chaos_seed: int,
) -> Scene:
    """Nothing has happened yet."""
    durable_redis.ask("FLUSHALL")
    return Scene(tmp_path / "handlers.log", database, redis=durable_redis, postgres=durable_postgres, seed=chaos_seed)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("roles", [[ALL, ALL], [API, API, WORKER, WORKER]], ids=["all roles", "apart"])
async def test_whatever_happens_everything_acknowledged_ends_as_it_should(
    scene: Scene, start_server: Callable[..., Any], chaos_executions: int, roles: list[str]
) -> None:
    places = [scene.place(start_server, number, each) for number, each in enumerate(roles, 1)]
    async with AsyncExitStack() as stack:
        for place in places:
            await stack.enter_async_context(place)
            await place.running()
        users = MixedUsers([place.url for place in places if "API" in place.links], count=USERS, seed=scene.seed)
        await users.define()
        mayhem = Mayhem(
            places,
            redis=scene.redis,
            postgres=scene.postgres,
            surge=users.surge,
            lease_seconds=LEASE_SECONDS,
            seed=scene.seed,
        )
        began_at = time.monotonic()
        using = asyncio.create_task(users.run())
        troubling = asyncio.create_task(mayhem.run())
        while len(users.triggered) < chaos_executions or not mayhem.has_had_all:
            await asyncio.wait([using, troubling], timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            for task in (using, troubling):
                if task.done():
                    await task
        mayhem.stop()
        await troubling
        over_at = time.monotonic()
        users.leave()
        async with asyncio.timeout(2 * BOUND_SECONDS):
            await using
            async with connected(scene.database) as connection:
                while await count_running(connection):
                    await asyncio.sleep(0.1)
        settled_seconds = time.monotonic() - over_at
        codes = await asyncio.gather(*(place.leave() for place in places))

    starts = read_starts(scene.log)
    stored = await load_sound(scene.database, users.triggered)
    async with connected(scene.database) as connection:
        checked, early = await premature_starts(connection, starts, DEPENDENCIES)
    again = sum(count > 1 for count in Counter(start[:3] for start in starts).values())
    print(  # noqa: T201
        f"seed {scene.seed}, {over_at - began_at:.0f} s, {sum(mayhem.happened.values())} faults of "
        f"{len(mayhem.kinds)} kinds; {len(users.triggered)} executions, {len(starts)} starts of handlers, {again} "
        f"attempts began anew; answers {dict(users.answers)}, none to {users.unanswered}, in surges "
        f"{dict(users.surge_answers)}; {users.repeated} starts repeated; processes started "
        f"{[place.starts for place in places]}, not {[place.failed_starts for place in places]}, ended "
        f"{[dict(place.ends) for place in places]}; everything ended {settled_seconds:.1f} s after the last fault; "
        f"{checked} commits before starts"
    )
    assert mayhem.happened.keys() == mayhem.kinds
    assert users.surge_answers[503] > 0
    assert users.repeated > 0
    assert users.wrong == []
    assert check_ends(users, stored) == []
    assert checked > len(users.triggered)
    assert early == []
    assert settled_seconds < BOUND_SECONDS
    assert codes == [0] * len(roles)
    assert [line for place in places for line in place.log if "Traceback" in line or "it starts again" in line] == []
