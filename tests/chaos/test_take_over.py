"""What others do when a process dies, ends, or stands still, and how soon: by the variables, with a second to spare."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from fleet import (
    ALL,
    API,
    HEARTBEAT_TIMEOUT_SECONDS,
    LEASE_SECONDS,
    QUICK,
    WORKER,
    Fleet,
    get,
    owners,
    results_of_all,
    start_all,
)
from stored import count_running, load_sound
from users import User, check_outcomes, until_some_are_triggered

from workflow_engine.runtime.core.shares import partition_of

pytestmark = [pytest.mark.chaos, pytest.mark.campaign]

HAND_OVER_SECONDS = 1.0
SPARE_SECONDS = 1.0
STEPS = 40


def steps(count: int, seconds: float) -> dict[str, Any]:
    """A chain of nodes that each take so long."""
    nodes = [
        {
            "id": f"n{number}",
            "handler": "pause",
            "dependencies": [f"n{number - 1}"] if number else [],
            "config": {"seconds": seconds},
        }
        for number in range(count)
    ]
    return {"name": "steps", "dag": {"nodes": nodes}}


async def test_what_a_killed_orchestrator_had_goes_on_within_its_lease_and_a_second(fleet: Fleet) -> None:
    [victim] = await fleet.start(API, REPLICA_ID="victim", **QUICK)
    [survivor, _] = await fleet.start(API, WORKER, **QUICK)
    await fleet.until_shared(2)
    client = fleet.client(survivor)
    ids = await start_all([client], [(steps(STEPS, 0.1), {})] * 48)

    async def nodes_done(execution_id: str) -> int:
        states = (await get(client, f"/v1/workflows/{execution_id}"))["node_states"]
        return Counter(states.values())["COMPLETED"]

    for each in ids:
        await fleet.until(lambda each=each: nodes_done(each))
    lost = {partition for partition, owner in (await owners(client)).items() if owner == "victim"}
    behind = {each: 0 for each in ids if partition_of(each, 16) in lost}
    assert len(lost) == 8
    victim.kill()
    killed_at = time.monotonic()
    for each in behind:
        behind[each] = await nodes_done(each)
    async with asyncio.timeout(killed_at + LEASE_SECONDS + SPARE_SECONDS - time.monotonic()):
        for each, done in behind.items():
            await fleet.until(lambda each=each, done=done: _is_more(nodes_done(each), done))
    print(f"after a kill -9 everything went on within {time.monotonic() - killed_at:.2f} s")  # noqa: T201
    ends = await results_of_all([client], ids)
    assert Counter(end["state"] for end in ends) == {"COMPLETED": len(ids)}
    assert set(await fleet.stop()) == {0}
    await load_sound(fleet.variables, ids)


async def _is_more(found: Any, than: int) -> bool:
    return await found > than


async def test_what_ends_in_good_order_is_taken_over_within_a_second_and_nothing_runs_twice(fleet: Fleet) -> None:
    [leaver] = await fleet.start(ALL, REPLICA_ID="leaver", **QUICK)
    [heir] = await fleet.start(ALL, **QUICK)
    await fleet.until_shared(2)
    client = fleet.client(heir)
    ids = await start_all(fleet.clients, [(steps(2, 3), {})] * 32)
    await fleet.until(lambda: len(fleet.starts()) == len(ids))
    assert {start.process for start in fleet.starts()} == {leaver.process.pid, heir.process.pid}

    leaver.terminate()
    told_at = time.monotonic()
    async with asyncio.timeout(HAND_OVER_SECONDS):
        await fleet.until(lambda: _is_owned_without(client, "leaver"))
    print(f"after a SIGTERM everything was owned within {time.monotonic() - told_at:.2f} s")  # noqa: T201
    assert leaver.is_alive, "it still runs what it has begun"
    ends = await results_of_all([client], ids)
    assert Counter(end["state"] for end in ends) == {"COMPLETED": len(ids)}
    assert set(Counter(start[:3] for start in fleet.starts()).values()) == {1}, "a node has started twice"
    assert await asyncio.to_thread(leaver.wait) == 0
    assert await fleet.stop() == [0]
    await load_sound(fleet.variables, ids)
    assert (leaver.log, heir.log) == ("", "")


async def _is_owned_without(client: Any, leaver: str) -> bool:
    return not {None, leaver} & set((await owners(client)).values())


async def test_what_a_killed_worker_ran_starts_again_elsewhere_and_what_others_run_does_not(fleet: Fleet) -> None:
    quick = {**QUICK, "STALE_TIMEOUT_PAUSE": "2"}
    _, victim, survivor = await fleet.start(API, WORKER, WORKER, **quick)
    [client] = fleet.clients
    ids = await start_all([client], [(steps(1, 2 * HEARTBEAT_TIMEOUT_SECONDS + 2), {})] * 40)
    await fleet.until(lambda: len(fleet.starts()) == len(ids))
    ran = {
        server: {start[:3] for start in fleet.starts() if start.process == server.process.pid}
        for server in (victim, survivor)
    }
    assert min(map(len, ran.values())) > 0, "both have something to do"

    victim.kill()
    killed_at = time.monotonic()
    async with asyncio.timeout(HEARTBEAT_TIMEOUT_SECONDS + SPARE_SECONDS):
        await fleet.until(lambda: len(fleet.starts()) == len(ids) + len(ran[victim]))
    print(f"what a killed worker ran began anew within {time.monotonic() - killed_at:.2f} s")  # noqa: T201
    ends = await results_of_all([client], ids)
    assert Counter(end["state"] for end in ends) == {"COMPLETED": len(ids)}
    assert Counter(start[:3] for start in fleet.starts()) == {
        **dict.fromkeys(ran[victim], 2),
        **dict.fromkeys(ran[survivor], 1),
    }
    assert set(await fleet.stop()) == {0}
    await load_sound(fleet.variables, ids)


@pytest.mark.parametrize("role", [API, WORKER])
async def test_who_stands_still_past_the_timeouts_does_no_harm_afterwards(fleet: Fleet, role: str) -> None:
    first, second, *workers = await fleet.start(API, API, WORKER, WORKER, **QUICK)
    await fleet.until_shared(2)
    victim = first if role == API else workers[0]
    user = User()
    in_flight = []
    for _ in range(2):
        using = asyncio.gather(user.use(first.url, 100), user.use(second.url, 100))
        await until_some_are_triggered(user, len(user.triggered) + 50)
        victim.pause()
        in_flight.append(await count_running(fleet.variables))
        await user.wait_for_all(second.url)
        victim.resume()
        await using
        await fleet.until_shared(2)
    final = await user.wait_for_all(first.url)

    assert min(in_flight) > 0, "nothing ran when it happened: no test at all"
    assert final == {"COMPLETED": 400}
    assert set(await fleet.stop()) == {0}
    check_outcomes(await load_sound(fleet.variables, user.submitted), user.triggered)
