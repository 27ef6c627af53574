"""Users of servers that die: what they ask for, what was acknowledged to them, and what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import aiohttp

WIDTH = 4
DEADLINE_SECONDS = 60


def definition(seconds: float = 0.02) -> dict[str, Any]:
    """A fan-out and a join; each of its nodes takes so much longer than the one before, and one fails at first."""
    middle = [
        {
            "id": f"m{index}",
            "handler": "pause",
            "dependencies": ["first"],
            "config": {"seconds": seconds * index, "failures": 1 if index == 0 else 0},
            "retry_config": {"initial_delay": 0.05},
        }
        for index in range(WIDTH)
    ]
    first = {"id": "first", "handler": "pause"}
    last = {"id": "last", "handler": "pause", "dependencies": [node["id"] for node in middle]}
    return {"name": "fan", "dag": {"nodes": [first, *middle, last]}}


class User:
    """Submits and triggers until the server dies, and remembers what was acknowledged."""

    def __init__(self, seconds: float = 0.02) -> None:
        """`seconds`: how much longer each of the nodes takes that run at the same time."""
        self._definition = definition(seconds)
        self.submitted: set[str] = set()
        self.triggered: set[str] = set()

    async def use(self, url: str, count: int) -> None:
        """Start `count` executions, as far as the server lives."""
        async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=32)) as session:
            await asyncio.gather(*(self._start_one(session) for _ in range(count)))

    async def _start_one(self, session: aiohttp.ClientSession) -> None:
        try:
            async with session.post("/v1/workflow", json=self._definition) as response:
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


async def until_some_are_triggered(user: User, count: int) -> None:
    """Wait until so many triggers were acknowledged in all."""
    while len(user.triggered) < count:
        await asyncio.sleep(0.001)


def check_outcomes(executions: Mapping[str, Any], triggered: set[str]) -> None:
    """Each node succeeded exactly once, and the join saw each of its inputs exactly once."""
    for execution_id in triggered:
        loaded = executions[execution_id]
        succeeded = Counter(row.node_id for row in loaded.attempts if row.state == "COMPLETED")
        assert set(succeeded.values()) == {1}
        assert len(succeeded) == WIDTH + 2
        last = next(row for row in loaded.attempts if row.node_id == "last")
        assert last.output == b'{"sum":%d}' % (WIDTH * 2 + 1)
