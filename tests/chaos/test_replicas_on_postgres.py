"""Two real processes on one PostgreSQL: one dies, or stands still past its lease, in the middle of the work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from stored import count_running, load_sound
from users import User, check_outcomes, until_some_are_triggered

pytestmark = pytest.mark.chaos

ROUNDS = 4
EXECUTIONS = 100
LEASE_SECONDS = "2"
LOOK_SECONDS = "0.5"


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
            in_flight.append(await count_running(database))
            await user.wait_for_all(survivor.url)
            victim.resume()
            await using
        else:
            victim.kill()
            in_flight.append(await count_running(database))
            await using
            victim = start_server(**variables)
    final = await user.wait_for_all(survivor.url)
    assert (victim.stop(), survivor.stop()) == (0, 0)

    assert min(in_flight) > 0, "nothing ran when it happened: no test at all"
    assert final == {"COMPLETED": len(user.triggered)}
    assert len(user.triggered) >= ROUNDS * EXECUTIONS
    executions = await load_sound(database, user.submitted)
    check_outcomes(executions, user.triggered)
    print(f"{len(user.triggered)} executions, in flight when it happened: {in_flight}")  # noqa: T201
