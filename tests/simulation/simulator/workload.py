"""What the simulated users ask for, drawn from the seed: DAGs, and handlers that behave in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from random import Random
from typing import Any

from pydantic import BaseModel, ConfigDict

from simulator.disk import Disk
from simulator.loop import HOST
from simulator.world import World
from workflow_engine.plugins import Handler, NodeContext, PermanentError, RetryAfter, handler
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.machine import AttemptError
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.core.state import NodeState
from workflow_engine.runtime.worker.attempt import begin, run_attempt
from workflow_engine.runtime.worker.tools import make_tools, no_secrets

PERMISSION_SECONDS = 2.0


class Behaviour(BaseModel):
    """How a simulated node behaves; the attempt's number picks from `fails`."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = 0.0
    fails: list[str] = []
    swallows_cancellation: bool = False
    upstream: Any = None


def draw_definition(random: Random, name: str, *, crashing: bool = False) -> dict[str, Any]:
    """A random DAG of a handful of nodes, sometimes a wide one; when `crashing`, sometimes with a deadly node."""
    if random.random() < 0.1:
        return _fan_out(random, name, random.randrange(10, 60))
    size = random.randrange(1, 10)
    nodes = []
    for index in range(size):
        earlier = list(range(index))
        needed = random.sample(earlier, min(len(earlier), random.randrange(0, 4)))
        nodes.append(_node(random, f"n{index}", [f"n{position}" for position in needed]))
    if crashing and random.random() < 0.1:
        random.choice(nodes)["config"]["fails"] = ["crash"]
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


def simulated_handler(world: World, disk: Disk) -> Handler:
    """A handler that behaves as configured, and reports to the oracle outside the engine."""

    @handler("simulated", config=Behaviour)
    async def simulated(config: Behaviour, context: NodeContext) -> Any:
        key = (context.execution_id, context.node_id, context.attempt, HOST.get())
        _check_start(world, disk, context, key)
        try:
            return await _behave(config, context, lambda: world.running.discard(key), lambda: _crash(world, key))
        finally:
            world.running.discard(key)

    return simulated


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
        output, error = await run_attempt(begin(delivery, handlers()[name], tools), tools)
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


def _is_too_late(world: World, disk: Disk, context: NodeContext) -> bool:
    """Whether an outcome was committed before whoever starts its attempt may have looked.

    A worker that does not own the execution has looked at most a third of the lease ago.
    """
    age = world.loop.time() - disk.committed_at[context.execution_id, context.node_id, context.attempt]
    return world.topology != "distributed" or age > PERMISSION_SECONDS


def _check_start(world: World, disk: Disk, context: NodeContext, key: tuple[str, str, int, tuple[str, int]]) -> None:
    """I7: whatever a node waits for is committed when its handler starts. I5, I8: nothing starts twice."""
    execution_id, node_id, attempt = context.execution_id, context.node_id, context.attempt
    world.note(f"start {execution_id[-6:]} {node_id}#{attempt} on {HOST.get()}")
    committed = disk.attempts.get(execution_id, {})
    completed = {row.node_id for row in committed.values() if row.state is NodeState.COMPLETED}
    for dependency in context.inputs:
        if dependency not in completed:
            world.violated(f"I7 {node_id} of {execution_id} started before {dependency} was committed")
    if (node_id, attempt) in committed and _is_too_late(world, disk, context):
        world.violated(f"I8 {node_id}#{attempt} of {execution_id} started although its outcome is committed")
    if attempt > 1 and (node_id, attempt - 1) not in committed:
        world.violated(f"I6 {node_id}#{attempt} of {execution_id} started before attempt {attempt - 1} was committed")
    world.happened["handler_started"] += 1
    world.starts[execution_id, node_id, attempt] += 1
    if key in world.running:
        world.violated(f"I8 {node_id}#{attempt} of {execution_id} started while it runs in the same process")
    world.running.add(key)
