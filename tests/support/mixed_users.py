"""Users who start all kinds of executions of servers that fail, and what is to come of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any, NamedTuple

import aiohttp

FAN = 200
REQUEST_SECONDS = 12.0
WAIT_SECONDS = "5"
AGAIN_SECONDS = 0.3
SURGE_SECONDS = 2.0
TERMINAL = {"COMPLETED", "FAILED", "CANCELLED"}


class Kind(NamedTuple):
    """What some of the executions are. `total` is what its last node returns when it completes."""

    nodes: list[dict[str, Any]]
    weight: float
    total: int = 0
    state: str = "COMPLETED"


def _node(name: str, *dependencies: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "handler": "pause", "dependencies": list(dependencies), **more}


_A, _C = _node("a"), _node("c", "a")
_LAST = _node("d", "b", "c")
_RETRIED = {"config": {"failures": 2}, "retry_config": {"initial_delay": 0.05}}
_LONG = {"config": {"seconds": 1.0}}
_OVERDUE = {
    "config": {"seconds": 3600},
    "timeout_seconds": 0.3,
    "retry_config": {"max_retries": 1, "initial_delay": 0.01},
}
_MIDDLE = [f"m{number}" for number in range(FAN)]

KINDS = {
    "chain": Kind([_A, _node("b", "a"), _node("c", "b"), _node("d", "c")], 30, 4),
    "diamond": Kind([_A, _node("b", "a", config={"seconds": 0.05}), _C, _LAST], 30, 5),
    "retries": Kind([_A, _node("b", "a", **_RETRIED), _C, _LAST], 16, 5),
    "long": Kind([_node("a", **_LONG), _node("b", "a", **_LONG)], 4, 2),
    "timeouts": Kind([_A, _node("b", "a", **_OVERDUE), _node("c", "b")], 8, state="FAILED"),
    "cancelled": Kind([_A, _node("b", "a", **_LONG), _node("c", "b", **_LONG)], 10, 3),
    "fan": Kind([_A, *(_node(name, "a") for name in _MIDDLE), _node("z", *_MIDDLE)], 2, 2 * FAN + 1),
}
"""By name. A cancelled one may complete before its cancel arrives."""

DEPENDENCIES = {(name, node["id"]): node["dependencies"] for name, kind in KINDS.items() for node in kind.nodes}
"""By kind and node."""


class MixedUsers:
    """So many at a time, each with one execution after another, until so many were acknowledged and they may leave."""

    def __init__(self, urls: Sequence[str], *, count: int, seed: int) -> None:
        self.triggered: dict[str, str] = {}
        """The kind of each execution whose start was acknowledged."""
        self.ended: dict[str, str] = {}
        """The end of each execution that was shown to somebody."""
        self.answers: Counter[int] = Counter()
        self.surge_answers: Counter[int] = Counter()
        self.unanswered = 0
        self.repeated = 0
        self.wrong: list[str] = []
        """Everything that no user should ever see."""
        self._urls = urls
        self._count = count
        self._random = Random(seed)
        self._made = 0
        self._leaving = False

    async def run(self) -> None:
        """Be there until `leave`, and until what was begun is acknowledged."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            self._session = session
            for _ in range(self._count):
                tasks.create_task(self._use())

    def leave(self) -> None:
        """Start nothing more."""
        self._leaving = True

    async def define(self) -> None:
        """Store the definitions, at a server that is well."""
        async with aiohttp.ClientSession(self._urls[0]) as session:
            for name, kind in KINDS.items():
                async with session.post("/v1/definitions", json={"name": name, "dag": {"nodes": kind.nodes}}) as answer:
                    assert answer.status in (200, 201), await answer.text()

    async def surge(self) -> None:
        """Ten times as many want something at once as are there otherwise, without any patience."""
        async with asyncio.TaskGroup() as tasks:
            until = asyncio.get_running_loop().time() + SURGE_SECONDS
            for _ in range(10 * self._count):
                tasks.create_task(self._push(until))

    async def _push(self, until: float) -> None:
        while asyncio.get_running_loop().time() < until:
            path = self._random.choice(["/v1/workflows?limit=50", "/v1/definitions/chain/executions"])
            method = "GET" if "?" in path else "POST"
            status, body = await self._ask(method, path)
            self.surge_answers[status] += 1
            if status == 202:
                self.triggered[body["execution_id"]] = "chain"

    async def _use(self) -> None:
        names = list(KINDS)
        weights = [KINDS[name].weight for name in names]
        while not self._leaving:
            [name] = self._random.choices(names, weights)
            keyed = self._random.random() < 0.7
            execution_id = await (self._start_under_a_key(name) if keyed else self._submit_and_trigger(name))
            if execution_id is None:
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self.triggered[execution_id] = name
            if name == "cancelled":
                await self._ask("POST", f"/v1/workflows/{execution_id}/cancel")
            if self._random.random() < 0.8:
                await self._wait_for(execution_id)

    async def _start_under_a_key(self, name: str) -> str:
        """Again under the same key until it is acknowledged, and sometimes once more."""
        self._made += 1
        key = f"key-{self._made}"
        path = f"/v1/definitions/{name}/executions"
        while True:
            status, body = await self._ask("POST", path, {"Idempotency-Key": key})
            if status == 202:
                break
            await asyncio.sleep(AGAIN_SECONDS)
        if self._random.random() < 0.2:
            status, again = await self._ask("POST", path, {"Idempotency-Key": key})
            if status == 202:
                self.repeated += 1
                if again["execution_id"] != body["execution_id"]:
                    self.wrong.append(f"{key} has started {body['execution_id']} and {again['execution_id']}")
        execution_id: str = body["execution_id"]
        return execution_id

    async def _submit_and_trigger(self, name: str) -> str | None:
        """Without a key. What is not answered is not done again: it may have happened."""
        document = {"name": name, "dag": {"nodes": KINDS[name].nodes}}
        status, body = await self._ask("POST", "/v1/workflow", json=document)
        if status != 202:
            return None
        status, body = await self._ask("POST", f"/v1/workflow/trigger/{body['execution_id']}")
        return body["execution_id"] if status == 200 else None

    async def _wait_for(self, execution_id: str) -> None:
        """Until its end is shown, as far as anybody answers before it is time to leave."""
        while not self._leaving:
            status, body = await self._ask("GET", f"/v1/workflows/{execution_id}/results?wait={WAIT_SECONDS}")
            if status == 200 and body["state"] in TERMINAL:
                self.ended[execution_id] = body["state"]
                return
            if status != 200:
                await asyncio.sleep(AGAIN_SECONDS)

    async def _ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, json: Any = None
    ) -> tuple[int, Any]:
        """Status and body of an answer of any server; 0 when there is none."""
        url = self._random.choice(self._urls) + path
        with suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
            async with self._session.request(method, url, headers=headers, json=json) as response:
                body = await response.json(content_type=None)
                self.answers[response.status] += 1
                refused = response.status == 503 and "Retry-After" in response.headers
                conflict = response.status == 409 and path.endswith("/cancel")
                if response.status not in (200, 202) and not refused and not conflict:
                    self.wrong.append(f"{method} {path}: {response.status} {body}")
                return response.status, body
        self.unanswered += 1
        return 0, None


def check_ends(users: MixedUsers, executions: dict[str, Any]) -> list[str]:
    """What is not as it was to be: `executions` are those that are stored, by id."""
    wrong = []
    for execution_id, name in users.triggered.items():
        record, rows, *_ = executions[execution_id]
        kind = KINDS[name]
        allowed = {kind.state, "CANCELLED"} if name == "cancelled" else {kind.state}
        if record.state not in allowed:
            wrong.append(f"{execution_id} ({name}) is {record.state}: {record.error}")
        if users.ended.get(execution_id, record.state) != record.state:
            wrong.append(f"{execution_id} ({name}) was shown as {users.ended[execution_id]}, and is {record.state}")
        if record.state == "FAILED" and '"timeout"' not in record.error:
            wrong.append(f"{execution_id} ({name}) has failed of {record.error}")
        if record.state != "COMPLETED":
            continue
        succeeded = Counter(row.node_id for row in rows if row.state == "COMPLETED")
        last = next(row.output for row in rows if row.node_id == kind.nodes[-1]["id"] and row.state == "COMPLETED")
        if succeeded != Counter({node["id"]: 1 for node in kind.nodes}) or last != b'{"sum":%d}' % kind.total:
            wrong.append(f"{execution_id} ({name}) has come to {last!r} by {succeeded}")
    return wrong
