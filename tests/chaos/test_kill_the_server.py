"""`kill -9` in the middle of 200 running executions, ten times in a row, on one database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from workflow_engine.runtime.core.state import WorkflowState

pytestmark = pytest.mark.chaos

ROUNDS = 10
EXECUTIONS = 200
WIDTH = 4
DEADLINE_SECONDS = 60


def _definition() -> dict[str, Any]:
    middle = [
        {
            "id": f"m{index}",
            "handler": "pause",
            "dependencies": ["first"],
            "config": {"seconds": 0.02 * index, "failures": 1 if index == 0 else 0},
            "retry_config": {"initial_delay": 0.05},
        }
        for index in range(WIDTH)
    ]
    first = {"id": "first", "handler": "pause"}
    last = {"id": "last", "handler": "pause", "dependencies": [node["id"] for node in middle]}
    return {"name": "fan", "dag": {"nodes": [first, *middle, last]}}


class User:
    """Submits and triggers until the server dies, and remembers what was acknowledged."""

    def __init__(self) -> None:
        self.submitted: set[str] = set()
        self.triggered: set[str] = set()

    async def use(self, url: str, count: int) -> None:
        """Start `count` executions, as far as the server lives."""
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=32)) as session:
            await asyncio.gather(*(self._start_one(session) for _ in range(count)))

    async def _start_one(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post("/v1/workflow", json=_definition()) as response:
                assert response.status == 202, await response.text()
                execution_id = (await response.json())["execution_id"]
            self.submitted.add(execution_id)
            async with session.post(f"/v1/workflow/trigger/{execution_id}") as response:
                assert response.status == 200, await response.text()
            self.triggered.add(execution_id)
        except aiohttp.ClientConnectionError:
            return

    async def wait_for_all(self, url: str) -> Counter[str]:
        """Every acknowledged trigger's final state."""
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=32)) as session:
            async with asyncio.timeout(DEADLINE_SECONDS):
                states = await asyncio.gather(*(self._final_state(session, one) for one in self.triggered))
        return Counter(states)

    async def _final_state(self, session: aiohttp.ClientSession, execution_id: str) -> str:
        async with session.get(f"/v1/workflows/{execution_id}/results", params={"wait": "60"}) as response:
            assert response.status == 200, await response.text()
            state: str = (await response.json())["state"]
            return state


async def test_killed_ten_times_everything_acknowledged_completes_once(
    tmp_path: Path, start_server: Callable[..., Any], audit_database: Callable[[Path], Any]
) -> None:
    database, log = tmp_path / "engine.db", tmp_path / "handlers.log"
    random, user = Random(1), User()
    in_flight_at_death = []
    for _ in range(ROUNDS):
        server = start_server(database, WORKER_CONCURRENCY="50", CHAOS_HANDLER_LOG=str(log))
        using = asyncio.create_task(user.use(server.url, EXECUTIONS))
        await _until_some_are_triggered(user, len(user.triggered) + random.randrange(20, EXECUTIONS // 2))
        server.kill()
        await using
        found = audit_database(database)
        assert found.broken == []
        assert found.integrity == "ok"
        states = Counter(item.record.state for item in found.executions.values())
        in_flight_at_death.append(states[WorkflowState.RUNNING])
    server = start_server(database, WORKER_CONCURRENCY="50", CHAOS_HANDLER_LOG=str(log))
    final = await user.wait_for_all(server.url)
    assert server.stop() == 0

    assert min(in_flight_at_death) > 0, "the server was killed while nothing ran: no test at all"
    assert final == {"COMPLETED": len(user.triggered)}
    assert len(user.triggered) >= ROUNDS * 20
    found = audit_database(database)
    assert found.broken == []
    assert user.submitted <= set(found.executions)
    _check_outcomes(found, user.triggered)
    print(f"{len(user.triggered)} executions, in flight when killed: {in_flight_at_death}")  # noqa: T201


async def _until_some_are_triggered(user: User, count: int) -> None:
    while len(user.triggered) < count:
        await asyncio.sleep(0.001)


def _check_outcomes(found: Any, triggered: set[str]) -> None:
    """Each node succeeded exactly once, and the join saw each of its inputs exactly once."""
    for execution_id in triggered:
        loaded = found.executions[execution_id]
        succeeded = Counter(row.node_id for row in loaded.attempts if row.state == "COMPLETED")
        assert set(succeeded.values()) == {1}
        assert len(succeeded) == WIDTH + 2
        last = next(row for row in loaded.attempts if row.node_id == "last")
        assert last.output == b'{"sum":%d}' % (WIDTH * 2 + 1)
