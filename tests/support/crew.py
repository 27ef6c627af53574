"""Replicas in this process on real servers, the users of their API, and what came of what was asked for."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
from aiohttp import web
from stored import load_sound
from users import check_outcomes, definition

from workflow_engine.config import load_settings
from workflow_engine.runtime.cli.api import api_runner
from workflow_engine.runtime.core.deliveries import alive
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.core.shares import partition_of
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.errors import BrokerUnavailable
from workflow_engine.runtime.ports import ExecutionFilter, ExecutionSummary
from workflow_engine.runtime.process import Runtime

Cause = tuple[str, str]
"""Who logs, and what, without what differs from line to line."""

LIST_AT_ONCE = 1_000
LONG_SECONDS = 120.0
LOOK_SECONDS = 0.1
PAUSE_SECONDS = 0.15
REFUSED_PAUSE_SECONDS = 0.5
NAME = "fan"
JUST_UNDER_A_SECOND = 0.95

INTERVALS: Mapping[str, Any] = {
    "worker_heartbeat_interval": 1,
    "worker_heartbeat_timeout": 4,
    "worker_stale_claim_interval": 3,
    "orchestrator_stale_claim_interval": 2,
    "orchestrator_stale_result_timeout": 6,
    "redis_socket_timeout": 2,
}
"""Shorter than the defaults, which tell minutes from hours; everything else is as by default."""


class Replica:
    """A runtime and its API. `url` is empty without one."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Start, and serve the API, which knows the definition."""
        await self.runtime.start()
        if not self.runtime.has_role("api"):
            return
        await self.runtime.engine.define(definition())
        self._runner = api_runner(self.runtime)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """End in good order."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self.runtime.stop()


class Crew:
    """Replicas that share a database and what they talk through."""

    def __init__(self, database: Mapping[str, str], settings: Mapping[str, Any], plugins: Sequence[object]) -> None:
        """`database`: the variables that name one. `plugins` have the handler "pause"."""
        self._database = database
        self._settings = {**INTERVALS, **{name.lower(): value for name, value in database.items()}, **settings}
        self._plugins = plugins
        self.replicas: list[Replica] = []

    async def start(self, roles: str = "all", **settings: Any) -> Replica:
        """Start one more."""
        loaded = load_settings({**self._settings, "runtime_roles": roles, **settings})
        replica = Replica(Runtime(loaded, plugins=self._plugins))
        self.replicas.append(replica)
        await replica.start()
        return replica

    @property
    def urls(self) -> list[str]:
        """Of all APIs."""
        return [each.url for each in self.replicas if each.url]

    @property
    def partitions(self) -> int:
        """How many there are."""
        return self._store.partitions

    def partition_of(self, execution: ExecutionSummary) -> int:
        """Where an execution belongs."""
        return partition_of(execution.execution_id, self.partitions)

    async def until_shared(self) -> None:
        """Wait until every orchestrator has its share of the partitions, and everybody knows of everybody."""
        owners = [each for each in self.replicas if each.runtime.owner is not None]
        for each in owners:
            await self.until_owned(each, self.partitions // len(owners))
        async with asyncio.timeout(LONG_SECONDS):
            while await self._least_known() < len(self.replicas):
                await asyncio.sleep(LOOK_SECONDS)

    async def until_owned(self, replica: Replica, count: int) -> None:
        """Wait until a replica owns so many partitions, by the store's word."""
        name = replica.runtime.replica
        async with asyncio.timeout(LONG_SECONDS):
            while sum(each.is_owned and each.owner == name for each in await self._store.read_partitions()) < count:
                await asyncio.sleep(LOOK_SECONDS)

    async def _least_known(self) -> int:
        """How many live replicas the one knows of that knows of the fewest."""
        known = []
        for runtime in (each.runtime for each in self.replicas):
            assert runtime.heartbeats is not None
            try:
                seen = await runtime.heartbeats.replicas()
            except BrokerUnavailable:
                return 0
            known.append(len(alive(seen, round(runtime.settings.worker_heartbeat_timeout * 1000))))
        return min(known)

    async def stop(self) -> None:
        """End all in good order, at once."""
        replicas, self.replicas = self.replicas, []
        await asyncio.gather(*(each.stop() for each in replicas))

    async def executions(self) -> list[ExecutionSummary]:
        """All that are stored."""
        found: list[ExecutionSummary] = []
        while True:
            before = found[-1].execution_id if found else None
            page = await self._store.list_executions(ExecutionFilter(), before, LIST_AT_ONCE)
            found += page
            if len(page) < LIST_AT_ONCE:
                return found

    async def count_running(self) -> int:
        """How many have not ended."""
        running = ExecutionFilter(states=frozenset({WorkflowState.RUNNING}))
        return len(await self._store.list_executions(running, None, LIST_AT_ONCE))

    async def until_all_ended(self) -> float:
        """Wait until nothing runs any more; returns the seconds."""
        began = time.monotonic()
        async with asyncio.timeout(LONG_SECONDS):
            while await self.count_running():
                await asyncio.sleep(LOOK_SECONDS)
        return time.monotonic() - began

    async def until_ended(self, ids: Collection[str]) -> None:
        """Wait until these have ended."""
        async with asyncio.timeout(LONG_SECONDS):
            while not {each.execution_id for each in await self.executions() if each.completed_at}.issuperset(ids):
                await asyncio.sleep(LOOK_SECONDS)

    async def audit(self, *users: Users, but: Sequence[str] = ()) -> list[ExecutionSummary]:
        """Check everything that is stored, `but` these, against what was acknowledged, and rows against each other."""
        executions = [each for each in await self.executions() if each.execution_id not in but]
        acknowledged = {execution_id for each in users for execution_id in each.acknowledged.values()}
        assert {each.execution_id for each in executions} == acknowledged, "lost, or started twice"
        assert Counter(each.state for each in executions) == {WorkflowState.COMPLETED: len(acknowledged)}
        check_outcomes(await load_sound(self._database, acknowledged), acknowledged)
        assert [each.runtime.agent_faults for each in self.replicas] == [0] * len(self.replicas)
        return executions

    @property
    def _store(self) -> Any:
        return self.replicas[0].runtime.store


class Users:
    """So many at a time: each starts an execution, again under the same key until that is acknowledged, looks at it,
    and goes on to the next one."""

    def __init__(self, urls: Sequence[str], *, count: int = 8, prefix: str = "key") -> None:
        """`prefix`: of their keys."""
        self.acknowledged: dict[str, str] = {}
        """Execution ids by the keys that they were started under."""
        self.answers: Counter[int] = Counter()
        self.bad_answers: list[str] = []
        """Those of 500 and more that are no 503 with Retry-After."""
        self.slowest_seconds = 0.0
        self._urls = urls
        self._count = count
        self._prefix = prefix
        self._made = 0
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Users:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert self._task is not None
        if _error[0] is not None:
            self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def leave(self) -> None:
        """Start nothing more, and wait until everything that was asked for is acknowledged."""
        self._leaving.set()
        assert self._task is not None
        async with asyncio.timeout(LONG_SECONDS):
            await self._task

    async def until_acknowledged(self, more: int) -> None:
        """Wait until so many more executions were started."""
        wanted = len(self.acknowledged) + more
        async with asyncio.timeout(LONG_SECONDS):
            while len(self.acknowledged) < wanted:
                await asyncio.sleep(0.01)

    async def _run(self) -> None:
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
            for number in range(self._count):
                tasks.create_task(self._use(session, self._urls[number % len(self._urls)]))

    async def _use(self, session: aiohttp.ClientSession, url: str) -> None:
        while not self._leaving.is_set():
            self._made += 1
            key = f"{self._prefix}-{self._made}"
            begin = {"method": "POST", "url": f"{url}/v1/definitions/{NAME}/executions"}
            while (body := await self._ask(session, {**begin, "headers": {"Idempotency-Key": key}})) is None:
                await self._rest(REFUSED_PAUSE_SECONDS)
            self.acknowledged[key] = body["execution_id"]
            await self._ask(session, {"method": "GET", "url": f"{url}/v1/workflows/{body['execution_id']}"})
            await self._rest(PAUSE_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession, request: Mapping[str, Any]) -> Any:
        """The answer's body, or None for a 503."""
        began = time.monotonic()
        async with session.request(**request) as response:
            text = await response.text()
        self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
        self.answers[response.status] += 1
        if response.status in (200, 202):
            return decode(text.encode())
        if response.status != 503 or not response.headers.get("Retry-After", "").isdigit():
            self.bad_answers.append(f"{response.status} {text}")
        return None

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._leaving.wait()
        if self._leaving.is_set():
            await asyncio.sleep(0.1)


def most_in_a_second(records: Sequence[logging.LogRecord]) -> dict[Cause, int]:
    """By cause, how many lines of the engine there were within any one second at most; of warnings and worse.

    What a handler has failed with is no fault of the engine.
    """
    times: dict[Cause, list[float]] = {}
    for record in records:
        if record.levelno >= logging.WARNING and record.name != "workflow_engine.runtime.worker.attempt":
            times.setdefault(_cause(record), []).append(record.created)
    return {
        cause: max(sum(begin <= each < begin + JUST_UNDER_A_SECOND for each in created) for begin in created)
        for cause, created in times.items()
    }


def _cause(record: logging.LogRecord) -> Cause:
    """Numbers and what is in parentheses differ from line to line."""
    return record.name, re.sub(r"\d+|\(.*?\)", "", record.getMessage())[:60]


def completed_between(executions: Sequence[ExecutionSummary], begin: float, end: float) -> int:
    """How many ended between two moments, in epoch seconds."""
    return sum(begin * 1000 < (each.completed_at or 0) < end * 1000 for each in executions)
