"""Ten times more than can be served, and everything at once after a death: what is done meanwhile, and afterwards."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector
from commit_times import connected, count_running
from fleet import ALL, QUICK, Fleet
from stored import load_sound

pytestmark = [pytest.mark.chaos, pytest.mark.campaign, pytest.mark.timeout(600)]

CHAIN = {
    "name": "chain",
    "dag": {
        "nodes": [
            {"id": "a", "handler": "pause"},
            {"id": "b", "handler": "pause", "dependencies": ["a"]},
        ]
    },
}
SLOTS = 12
"""Requests that a process serves at the same time."""
USUAL_USERS = 16
USUAL_SECONDS = 8.0
OVERLOAD_SECONDS = 20.0
LEAST_OF_USUAL = 0.5
RECOVERY_SECONDS = 30.0
LONGEST_ANSWER_SECONDS = 10.0
WAITING = 3_000
DUE_SECONDS = 25
STORM_SECONDS = 60.0
MOST_MEGABYTES = 400


class Load:
    """Users who start an execution and wait for its end in one request, again and again; refused ones wait."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.answers: Counter[int] = Counter()
        self.seconds: list[float] = []
        """How long each took that was served."""
        self.strange: list[str] = []

    async def run(self, urls: list[str], users: int, seconds: float) -> float:
        """Be there for a while; returns how many executions ended each second."""
        before, until = len(self.ended), time.monotonic() + seconds
        async with ClientSession(connector=TCPConnector(limit=0)) as session, asyncio.TaskGroup() as tasks:
            for number in range(users):
                tasks.create_task(self._use(session, urls[number % len(urls)], until))
        return (len(self.ended) - before) / seconds

    async def _use(self, session: ClientSession, url: str, until: float) -> None:
        while time.monotonic() < until:
            began = time.monotonic()
            async with session.post(f"{url}/v1/definitions/chain/executions?wait=30") as response:
                body = await response.json(content_type=None)
            self.answers[response.status] += 1
            if response.status == 200:
                self.ended.append(body["id"])
                self.seconds.append(time.monotonic() - began)
            elif response.status == 503 and response.headers.get("Retry-After", "").isdigit():
                await asyncio.sleep(int(response.headers["Retry-After"]))
            else:
                self.strange.append(f"{response.status} {body}")


def megabytes(process: int) -> int:
    """The memory that a process has at the moment."""
    status = Path(f"/proc/{process}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) // 1024


async def define(client: ClientSession, document: dict[str, Any]) -> None:
    async with client.post("/v1/definitions", json=document) as response:
        assert response.status in (200, 201), await response.text()


async def test_ten_times_as_many_users_are_served_or_refused_and_it_is_over_when_they_go(
    fleet: Fleet,
) -> None:
    servers = await fleet.start(ALL, ALL, **QUICK, API_MAX_CONCURRENT_REQUESTS=str(SLOTS))
    await fleet.until_shared(2)
    await define(fleet.clients[0], CHAIN)
    urls = [server.url for server in servers]
    usual, crowd, afterwards = Load(), Load(), Load()
    await usual.run(urls, USUAL_USERS, 2.0)
    usual_rate = await usual.run(urls, USUAL_USERS, USUAL_SECONDS)
    before = [megabytes(server.process.pid) for server in servers]
    crowd_rate = await crowd.run(urls, 10 * USUAL_USERS, OVERLOAD_SECONDS)
    after = [megabytes(server.process.pid) for server in servers]
    over_at = time.monotonic()
    while await afterwards.run(urls, USUAL_USERS, 2.0) < LEAST_OF_USUAL * usual_rate:
        assert time.monotonic() - over_at < RECOVERY_SECONDS, "it is not over when they have gone"
    recovered_seconds = time.monotonic() - over_at

    slowest = sorted(crowd.seconds)[int(len(crowd.seconds) * 0.99)]
    print(  # noqa: T201
        f"{usual_rate:.0f} executions/s as usual, {crowd_rate:.0f} with ten times as many users, who were answered "
        f"{dict(crowd.answers)}; 99 % of those that were served within {slowest:.2f} s; as usual again "
        f"{recovered_seconds:.1f} s after they had gone; {before} MB before, {after} after"
    )
    assert usual.strange == crowd.strange == afterwards.strange == []
    assert crowd.answers[503] > 10 * USUAL_USERS
    assert crowd_rate > LEAST_OF_USUAL * usual_rate
    assert slowest < LONGEST_ANSWER_SECONDS
    assert max(after) < MOST_MEGABYTES
    assert await fleet.stop() == [0, 0]
    stored = await load_sound(fleet.variables, [*usual.ended, *crowd.ended, *afterwards.ended])
    assert Counter(each.record.state for each in stored.values()) == {"COMPLETED": len(stored)}


async def test_thousands_of_retries_that_are_due_when_everybody_starts_and_redis_is_empty(
    fleet: Fleet, durable_redis: Any
) -> None:
    retried = {
        "name": "retried",
        "dag": {
            "nodes": [
                {
                    "id": "a",
                    "handler": "pause",
                    "config": {"failures": 1},
                    "retry_config": {"initial_delay": DUE_SECONDS, "jitter": False},
                },
                {"id": "b", "handler": "pause", "dependencies": ["a"]},
            ]
        },
    }
    first = await fleet.start(ALL, ALL, **QUICK)
    await define(fleet.clients[0], retried)
    bulk = {"data": "{}\n" * WAITING, "headers": {"Content-Type": "application/x-ndjson"}}
    async with fleet.clients[0].post("/v1/definitions/retried/executions/bulk", **bulk) as response:
        ids = [json.loads(line)["execution_id"] for line in (await response.text()).splitlines()]
    assert len(ids) == WAITING
    await fleet.until(lambda: len(fleet.starts()) >= WAITING)
    for server in first:
        server.kill()
    killed_at = time.monotonic()
    begun = len(fleet.starts())
    durable_redis.ask("FLUSHALL")
    await asyncio.sleep(DUE_SECONDS)
    servers = await fleet.start(ALL, ALL, **QUICK)
    started_at = time.monotonic()
    most = 0
    async with asyncio.timeout(STORM_SECONDS), connected(fleet.variables) as connection:
        while await count_running(connection):
            most = max(most, *(megabytes(server.process.pid) for server in servers))
            await asyncio.sleep(0.1)
    seconds = time.monotonic() - started_at

    print(  # noqa: T201
        f"{WAITING} executions, killed with {begun} starts, all down for {started_at - killed_at:.0f} s, all due: "
        f"ended {seconds:.1f} s after the start, {WAITING / seconds:.0f}/s, at most {most} MB a process"
    )
    assert most < MOST_MEGABYTES
    assert await fleet.stop() == [0, 0]
    stored = await load_sound(fleet.variables, ids)
    assert Counter(each.record.state for each in stored.values()) == {"COMPLETED": WAITING}
    assert {len(each.attempts) for each in stored.values()} == {3}
