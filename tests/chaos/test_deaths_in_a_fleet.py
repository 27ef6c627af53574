"""Processes of a fleet that die in the middle of the work: of a poisonous node, and at random."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest
from fleet import API, QUICK, WORKER, Fleet, get, results_of_all, start_all
from stored import load_sound
from users import User, check_outcomes

from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, WorkflowState

pytestmark = [pytest.mark.chaos, pytest.mark.campaign]

POISON = {"name": "poison", "dag": {"nodes": [{"id": "thing", "handler": "poison"}]}}
NEIGHBOUR = {"name": "neighbour", "dag": {"nodes": [{"id": "thing", "handler": "pause", "config": {"seconds": 1}}]}}
MOST_DEATHS = 3
KILLS = 8
AT_ONCE = 40


async def test_a_poisonous_node_costs_a_few_processes_and_nobody_else(fleet: Fleet) -> None:
    _, *workers = await fleet.start(API, WORKER, WORKER, **QUICK)
    [client] = fleet.clients
    deaths: list[int] = []

    async def keep(worker: Any) -> None:
        """Start a worker anew whenever it has died, as its supervisor would."""
        while True:
            deaths.append(await asyncio.to_thread(worker.process.wait))
            [worker] = await fleet.start(WORKER, **QUICK)

    keeping = [asyncio.create_task(keep(worker)) for worker in workers]
    ids = await start_all([client], [(NEIGHBOUR, {})] * 20 + [(POISON, {})] + [(NEIGHBOUR, {})] * 20)
    poisonous = ids[20]
    ends = {end["id"]: end for end in await results_of_all([client], ids)}

    assert Counter(end["state"] for end in ends.values()) == {"COMPLETED": 40, "FAILED": 1}
    assert ends[poisonous]["error"]["type"] == "worker_crashed"
    assert [letter["id"] for letter in (await get(client, "/v1/dead-letters"))["items"]] == [poisonous]
    assert 0 < len(deaths) <= MOST_DEATHS
    print(f"a poisonous node has cost {len(deaths)} workers")  # noqa: T201
    for each in keeping:
        each.cancel()
    assert set(await fleet.stop()) == {0}
    stored = await load_sound(fleet.variables, ids)
    assert len(stored[poisonous].attempts) == 1


async def test_whoever_is_killed_whenever_everything_acknowledged_completes_once(fleet: Fleet) -> None:
    roles = [API, API, WORKER, WORKER]
    alive = await fleet.start(*roles, **QUICK)
    random, user = Random(5), User(seconds=0.2)
    for number in range(KILLS):
        served = [server for server in alive if server.url is not None]
        before = len(user.triggered)
        using = asyncio.gather(*(user.use(server.url, AT_ONCE) for server in served))
        await fleet.until(lambda before=before: len(user.triggered) - before > random.randrange(AT_ONCE))
        victim = number % 4 if number < 4 else random.randrange(4)
        alive[victim].kill()
        [alive[victim]], _ = await asyncio.gather(fleet.start(roles[victim], **QUICK), using)
    final = await user.wait_for_all(alive[0].url)

    assert final == {"COMPLETED": len(user.triggered)}
    assert len(user.triggered) > KILLS * AT_ONCE
    assert await fleet.stop() == [0] * len(roles)
    stored = await load_sound(fleet.variables, user.submitted)
    check_outcomes(stored, user.triggered)
    assert {each.record.state for each in stored.values()} <= {*TERMINAL_WORKFLOW_STATES, WorkflowState.PENDING}
    starts = Counter(start[:3] for start in fleet.starts())
    print(f"{len(user.triggered)} executions, {sum(count > 1 for count in starts.values())} attempts began anew")  # noqa: T201
