"""The specification's scenarios on its scaling scenarios: real processes, each role as often as it says."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from fleet import ALL, API, WORKER, Fleet, get, results_of_all, start_all
from stored import load_sound

pytestmark = pytest.mark.chaos

EACH = 100
# New processes are heard of soon; who is silent counts as dead after the times of the default.
OFTEN = {"WORKER_HEARTBEAT_INTERVAL": "0.5"}


def node(name: str, *dependencies: str, handler: str = "pause", seconds: Any = 0) -> dict[str, Any]:
    """A node of a definition."""
    return {"id": name, "handler": handler, "dependencies": list(dependencies), "config": {"seconds": seconds}}


def definition(name: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    """A definition of some nodes."""
    return {"name": name, "dag": {"nodes": list(nodes)}}


CHAIN = definition("chain", node("a"), node("b", "a"), node("c", "b"))
DIAMOND = definition(
    "diamond",
    node("a"),
    node("b", "a", seconds="{{ input.b }}"),
    node("c", "a", seconds="{{ input.c }}"),
    node("d", "b", "c"),
)
ROUTED = definition("routed", node("a"), node("b", "a", handler="rare"), node("c", "b"))


@pytest.mark.parametrize(
    "roles",
    [[API, WORKER], [API, WORKER] * 2, [API, WORKER] * 3, [ALL] * 3],
    ids=["1 orchestrator 1 worker", "2 orchestrators 2 workers", "3 orchestrators 3 workers", "3 of all roles"],
)
async def test_every_node_runs_once_and_every_api_tells_the_same(fleet: Fleet, roles: list[str]) -> None:
    await fleet.start(*roles, **OFTEN)
    await fleet.until_shared(len(fleet.clients))
    random = Random(1)
    chains = [(CHAIN, {})] * EACH
    waiting = [(DIAMOND, {"b": 0, "c": 0.05})] * EACH
    racing = [(DIAMOND, {"b": random.random() / 200, "c": random.random() / 200}) for _ in range(2 * EACH)]
    ids = await start_all(fleet.clients, chains + waiting + racing)
    ends = await results_of_all(fleet.clients, ids)

    assert Counter(end["state"] for end in ends) == {"COMPLETED": 4 * EACH}
    assert [end["output_data"]["sum"] for end in ends] == [3] * EACH + [5] * 3 * EACH
    for execution_id in ids[:: EACH // 5]:
        results = [await get(client, f"/v1/workflows/{execution_id}/results") for client in fleet.clients]
        statuses = [await get(client, f"/v1/workflows/{execution_id}") for client in fleet.clients]
        assert results == results[:1] * len(fleet.clients)
        assert statuses == statuses[:1] * len(fleet.clients)
        assert set(statuses[0]["node_states"].values()) == {"COMPLETED"}
    starts = fleet.starts()
    assert set(Counter(start[:3] for start in starts).values()) == {1}, "a node has started twice"
    assert len(starts) == 3 * EACH + 3 * 4 * EACH
    assert {start.process for start in starts} == {
        server.process.pid for server, role in zip(fleet.servers, roles, strict=True) if role != API
    }
    assert set(await fleet.stop()) == {0}
    stored = await load_sound(fleet.variables, ids)
    assert sum(len(each.attempts) for each in stored.values()) == len(starts)
    assert [server.log for server in fleet.servers] == [""] * len(roles), "nothing has happened that deserves a warning"


async def test_a_node_runs_where_its_handler_is_and_waits_while_it_is_nowhere(fleet: Fleet) -> None:
    await fleet.start(API, **OFTEN)
    [common] = await fleet.start(WORKER, WORKER_HANDLERS="pause", **OFTEN)
    [client] = fleet.clients
    routed = await start_all([client], [(ROUTED, {})] * 10)
    chains = await start_all([client], [(CHAIN, {})] * 10)
    assert {end["state"] for end in await results_of_all([client], chains)} == {"COMPLETED"}

    async def ten_wait() -> bool:
        health = await get(client, "/v1/health")
        return health["status"] == "degraded" and "10 for rare" in health["services"]["workers"]

    await fleet.until(ten_wait)
    assert {(await get(client, f"/v1/workflows/{each}"))["state"] for each in routed} == {"RUNNING"}
    assert {start.process for start in fleet.starts()} == {common.process.pid}

    [special] = await fleet.start(WORKER, WORKER_HANDLERS="rare", **OFTEN)
    assert {end["state"] for end in await results_of_all([client], routed)} == {"COMPLETED"}
    assert (await get(client, "/v1/health"))["status"] == "healthy"
    of_rare = {(start.execution_id, start.node_id) for start in fleet.starts() if start.process == special.process.pid}
    assert of_rare == {(each, "b") for each in routed}
    assert len(fleet.starts()) == 2 * 30
    assert set(await fleet.stop()) == {0}
    await load_sound(fleet.variables, [*routed, *chains])
