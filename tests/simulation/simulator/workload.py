"""What the simulated users ask for, drawn from the seed: DAGs, and handlers that behave in every way."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict

from simulator.disk import Disk
from simulator.loop import HOST
from simulator.world import SKEW_SECONDS, World
from workflow_engine.plugins import Handler, NodeContext, PermanentError, RateLimit, RetryAfter, handler
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.machine import AttemptError
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.core.state import NodeState
from workflow_engine.runtime.worker.attempt import begin, run_attempt
from workflow_engine.runtime.worker.tools import make_tools, no_secrets

LIMITED = "limited"
MAX_RUNNING = 3
RATE_COUNT, RATE_SECONDS = 10, 5.0


class Behaviour(BaseModel):
    """How a simulated node behaves; the attempt's number picks from `fails`."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = 0.0
    fails: list[str] = []
    swallows_cancellation: bool = False
    upstream: Any = None


def draw_definition(random: Random, name: str, *, crashing: bool = False, limited: bool = False) -> dict[str, Any]:
    """A random DAG of a handful of nodes, sometimes a wide one.

    `crashing`: sometimes with a deadly node. `limited`: half of the nodes are of a handler with limits.
    """
    document = _draw_graph(random, name, crashing)
    for node in document["dag"]["nodes"]:
        if limited and random.random() < 0.5:
            node["handler"] = LIMITED
    return document


def _draw_graph(random: Random, name: str, crashing: bool) -> dict[str, Any]:
    # Drawn in any case: without the deadly nodes, the rest of the workload stays what it was.
    deadly, position = random.random() < 0.1, random.random()
    if random.random() < 0.1:
        return _fan_out(random, name, random.randrange(10, 60))
    size = random.randrange(1, 10)
    nodes = []
    for index in range(size):
        earlier = list(range(index))
        needed = random.sample(earlier, min(len(earlier), random.randrange(0, 4)))
        nodes.append(_node(random, f"n{index}", [f"n{position}" for position in needed]))
    if crashing and deadly:
        nodes[int(position * size)]["config"]["fails"] = ["crash"]
    return {"name": name, "dag": {"nodes": nodes}}


def _fan_out(random: Random, name: str, width: int) -> dict[str, Any]:
    middle = [f"n{index}" for index in range(width)]
    nodes = [_node(random, "first", [])]
    nodes += [_node(random, node_id, ["first"], failing=0.03) for node_id in middle]
    nodes.append(_node(random, "last", middle))
    return {"name": name, "dag": {"nodes": nodes}}


def _node(random: Random, node_id: str, dependencies: list[str], failing: float = 0.12) -> dict[str, Any]:
    config: dict[str, Any] = {"seconds": random.choice([0.0, 0.0, 0.01, 0.5, 3.0])}
    if dependencies:
        config["upstream"] = f"{{{{ {random.choice(dependencies)}.output }}}}"
    if random.random() < failing:
        kinds = ["error", "error", "retry_after", "hang", "exit", "permanent"]
        config["fails"] = [random.choice(kinds) for _ in range(random.randrange(1, 4))]
        config["swallows_cancellation"] = random.random() < 0.3
    return {
        "id": node_id,
        "handler": "simulated",
        "dependencies": dependencies,
        "config": config,
        "timeout_seconds": 5,
        "retry_config": {"max_retries": random.randrange(0, 4), "initial_delay": random.choice([0.0, 0.5, 20.0])},
    }


def simulated_handlers(world: World, disk: Disk, permission_seconds: float) -> list[Handler]:
    """A handler that behaves as configured, and reports to the oracle outside the engine; one more with limits."""
    oracle = Oracle(world, disk, permission_seconds)

    async def simulated(config: Behaviour, context: NodeContext) -> Any:
        key = (context.execution_id, context.node_id, context.attempt, HOST.get())
        oracle.check_start(context, key)
        try:
            return await _behave(config, context, lambda: world.running.discard(key), lambda: _crash(world, key))
        finally:
            world.running.discard(key)

    async def limited(config: Behaviour, context: NodeContext) -> Any:
        oracle.check_limit(context)
        return await simulated(config, context)

    handlers = [handler("simulated", config=Behaviour)(simulated)]
    if world.topology == "limits":
        rate = RateLimit(RATE_COUNT, RATE_SECONDS)
        handlers.append(handler(LIMITED, config=Behaviour, max_running=MAX_RUNNING, rate_limit=rate)(limited))
    return handlers


async def _behave(
    config: Behaviour, context: NodeContext, on_cancel: Callable[[], None], crash: Callable[[], Awaitable[None]]
) -> Any:
    kind = config.fails[context.attempt - 1] if context.attempt <= len(config.fails) else ""
    try:
        await asyncio.sleep(60.0 if kind == "hang" else config.seconds)
    except asyncio.CancelledError:
        # From here on it only lingers: the engine has given it up.
        on_cancel()
        if not config.swallows_cancellation:
            raise
        await asyncio.sleep(20)
    if kind == "crash":
        await crash()
    if kind == "error":
        raise ConnectionError("simulated: the far side is gone")
    if kind == "retry_after":
        raise RetryAfter("simulated: later", seconds=7)
    if kind == "exit":
        raise SystemExit(3)
    if kind == "permanent":
        raise PermanentError("simulated: never")
    return {"node": context.node_id, "attempt": context.attempt}


ISOLATED: ContextVar[bool] = ContextVar("ISOLATED", default=False)


class ChildDied(BaseException):
    """What the process of its own came to in which an attempt ran."""


async def run_isolated(
    world: World,
    handlers: Callable[[], Mapping[str, Handler]],
    delivery: Delivery,
    max_output_bytes: int,
    begun: Callable[[], None],
) -> tuple[bytes | None, AttemptError | None]:
    """As a child process would: what kills it kills nobody else."""
    world.happened["isolated"] += 1
    begun()
    ISOLATED.set(True)
    try:
        name = delivery.execution.graph.handlers[delivery.node]
        tools = make_tools(http=_no_http, secret=no_secrets, clock=SystemClock(), max_output_bytes=max_output_bytes)
        output, error = await run_attempt(begin(delivery, handlers()[name], tools, math.inf), tools)
    finally:
        ISOLATED.set(False)
    if error is not None and error.type == ChildDied.__name__:
        return None, AttemptError("worker_crashed", "simulated: the child died", retryable=False)
    return output, error


def _no_http() -> Any:
    raise AssertionError("simulated handlers call nobody")


async def _crash(world: World, key: tuple[str, str, int, tuple[str, int]]) -> None:
    """Take the process along: nothing of it runs from here on."""
    if ISOLATED.get():
        raise ChildDied
    world.happened["crashed_by_a_handler"] += 1
    world.crashes[key[:3]] += 1
    world.running.discard(key)
    world.kill_host(HOST.get())
    await asyncio.sleep(0)


class Oracle:
    """What must hold whenever a handler starts, by what the store has at that moment.

    A worker that does not own the execution has read the store at most `permission_seconds` ago; an owner knows.
    """

    def __init__(self, world: World, disk: Disk, permission_seconds: float) -> None:
        self._world = world
        self._disk = disk
        self._permission_seconds = permission_seconds
        self._limited: set[tuple[str, str, int, tuple[str, int]]] = set()
        self._began_at: deque[float] = deque()

    def check_limit(self, context: NodeContext) -> None:
        """I20: no more of a handler with limits at a time, and in a time, than it declares.

        Where nothing goes wrong, that is: whoever is cut off from those who keep the permits goes on with what runs
        although its permits have ended, and a broker that was wiped knows of none.
        """
        world, now = self._world, self._world.loop.time()
        self._limited &= world.running
        self._limited.add((context.execution_id, context.node_id, context.attempt, HOST.get()))
        self._began_at.append(now)
        while self._began_at[0] < now - RATE_SECONDS:
            self._began_at.popleft()
        running = sum(not world.loop.is_dead(key[3]) for key in self._limited)
        world.happened["limit_reached"] += running == MAX_RUNNING
        if running > MAX_RUNNING or len(self._began_at) > 2 * RATE_COUNT:
            world.happened["limit_exceeded"] += 1
            if not world.rates:
                world.violated(f"I20 {running} of {LIMITED} at once, {len(self._began_at)} in {RATE_SECONDS:g} s")

    def check_start(self, context: NodeContext, key: tuple[str, str, int, tuple[str, int]]) -> None:
        world = self._world
        execution_id, node_id, attempt = key[:3]
        world.note(f"start {execution_id[-6:]} {node_id}#{attempt} on {key[3]}")
        self._check_rows(context)
        if attempt > 1:
            self._check_retry(execution_id, node_id, attempt)
        may_start = world.who_may_start(execution_id)
        if len(may_start) > 1:
            world.violated(f"I21 {may_start} all own the partition of {execution_id}")
        world.happened["handler_started"] += 1
        world.starts[key[:3]] += 1
        world.started_at.setdefault(key[:3], world.loop.time())
        if key in world.running:
            world.violated(f"I8 {node_id}#{attempt} of {execution_id} started while it runs in the same process")
        world.happened["attempt_overlapped"] += any(
            each[:3] == key[:3] and not world.loop.is_dead(each[3]) for each in world.running
        )
        world.running.add(key)

    def _check_rows(self, context: NodeContext) -> None:
        world, disk = self._world, self._disk
        execution_id, node_id, attempt = context.execution_id, context.node_id, context.attempt
        committed = disk.attempts.get(execution_id, {})
        completed = {row.node_id for row in committed.values() if row.state is NodeState.COMPLETED}
        for dependency in context.inputs:
            if dependency not in completed:
                world.violated(f"I7 {node_id} of {execution_id} started before {dependency} was committed")
        if (node_id, attempt) in committed and self._is_too_late(disk.committed_at[execution_id, node_id, attempt]):
            world.violated(f"I8 {node_id}#{attempt} of {execution_id} started although its outcome is committed")
        if execution_id in disk.ended_at and self._is_too_late(disk.ended_at[execution_id]):
            world.violated(f"I19 {node_id}#{attempt} of {execution_id} started although that has ended")

    def _is_too_late(self, committed_at: float) -> bool:
        return self._world.loop.time() - committed_at > self._permission_seconds

    def _check_retry(self, execution_id: str, node_id: str, attempt: int) -> None:
        world = self._world
        before = self._disk.attempts.get(execution_id, {}).get((node_id, attempt - 1))
        if before is None or before.retry_at is None:
            world.violated(
                f"I6 {node_id}#{attempt} of {execution_id} started before attempt {attempt - 1} was committed"
            )
            return
        began_at = world.started_at.get((execution_id, node_id, attempt - 1), 0.0)
        early = began_at + (before.retry_at - before.finished_at) / 1000 - world.loop.time()
        apart = 2 * SKEW_SECONDS if {"clock_skewed", "clock_stepped"} & world.rates.keys() else 0.0
        if early > apart + 0.01:
            world.violated(f"I15 {node_id}#{attempt} of {execution_id} started {early:.2f} s before it was due")
