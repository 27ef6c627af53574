"""The slots of a worker and the processes of single attempts: how many at once, and when an attempt's time begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from commands import PATIENCE_SECONDS
from isolated import Result, Witness, an_attempt, is_there, until_gone

from workflow_engine.plugins.discovery import Catalogue
from workflow_engine.plugins.handler import Handler
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.machine import ISOLATED_FROM, Execution, Outcome
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.worker.isolated import Isolation
from workflow_engine.runtime.worker.pool import RunIsolated, WorkerPool
from workflow_engine.runtime.worker.tools import make_tools, no_secrets
from workflow_engine.runtime.worker.waiting import ISOLATED_AT_ONCE

Make = Callable[..., Awaitable[Any]]

SLOTS = 10


def nobody_calls(*_arguments: Any) -> Any:
    raise AssertionError("no handler here calls anybody")


@pytest.fixture
async def outcomes() -> asyncio.Queue[Outcome]:
    """What is handed in."""
    return asyncio.Queue()


@pytest.fixture
async def make_pool(outcomes: asyncio.Queue[Outcome]) -> AsyncIterator[Callable[..., WorkerPool]]:
    """`make_pool(handlers, run_isolated)`: a pool that runs; stopped at the end."""
    made: list[WorkerPool] = []

    def make(handlers: Mapping[str, Handler], run_isolated: RunIsolated) -> WorkerPool:
        pool = WorkerPool(
            concurrency=SLOTS,
            handlers=handlers,
            clock=SystemClock(),
            hand_in=outcomes.put_nowait,
            on_start=lambda _execution_id: None,
            may_start=lambda _execution: True,
            run_isolated=run_isolated,
            run_in_process=nobody_calls,
            tools=make_tools(http=nobody_calls, secret=no_secrets, clock=SystemClock(), max_output_bytes=1000),
        )
        pool.start()
        made.append(pool)
        return pool

    yield make
    for pool in made:
        await pool.stop(0)


def suspected(handler_name: str, config: Any = None, timeout_seconds: float = 30.0) -> tuple[Execution, int]:
    """The first attempt of a node that was in hand at as many crashes as it takes."""
    execution, node, _ = an_attempt(handler_name, config)
    graph = execution.graph
    execution.graph = replace(graph, timeouts_seconds=(timeout_seconds,) * graph.size)
    execution.suspicions[node, 1] = ISOLATED_FROM
    return execution, node


async def next_of(outcomes: asyncio.Queue[Outcome]) -> Outcome:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await outcomes.get()


async def test_ten_at_once_take_as_many_processes_as_may_be(
    catalogue: Catalogue,
    make_isolation: Callable[..., Isolation],
    make_pool: Callable[..., WorkerPool],
    outcomes: asyncio.Queue[Outcome],
) -> None:
    pool = make_pool(catalogue, make_isolation().run)
    pool.dispatch(suspected("leave", {"what": "nothing"}) for _ in range(SLOTS))
    ended = [await next_of(outcomes) for _ in range(SLOTS)]
    assert [outcome.error for outcome in ended] == [None] * SLOTS
    assert len({outcome.output for outcome in ended}) == ISOLATED_AT_ONCE == 4


async def test_a_crash_makes_room_for_the_next(
    catalogue: Catalogue,
    make_isolation: Callable[..., Isolation],
    make_pool: Callable[..., WorkerPool],
    outcomes: asyncio.Queue[Outcome],
) -> None:
    pool = make_pool(catalogue, make_isolation().run)
    pool.dispatch(suspected("die", {"how": "exit 3"}) for _ in range(ISOLATED_AT_ONCE))
    pool.dispatch([suspected("leave", {"what": "nothing"})])
    errors = [(await next_of(outcomes)).error for _ in range(ISOLATED_AT_ONCE + 1)]
    assert [error.type for error in errors if error] == ["worker_crashed"] * ISOLATED_AT_ONCE
    assert None in errors


async def test_an_overdue_attempt_takes_its_process_along(
    catalogue: Catalogue,
    make_isolation: Callable[..., Isolation],
    make_pool: Callable[..., WorkerPool],
    outcomes: asyncio.Queue[Outcome],
    no_child_is_left: Callable[[], None],
) -> None:
    pool = make_pool(catalogue, make_isolation().run)
    pool.dispatch([suspected("hang", timeout_seconds=0.0)])
    ended = await next_of(outcomes)
    assert ended.error is not None
    assert ended.error.type == "timeout"
    while pool.lingering:
        await asyncio.sleep(0)
    no_child_is_left()


async def test_the_time_of_an_attempt_begins_when_it_begins(
    catalogue: Catalogue, make_pool: Callable[..., WorkerPool], outcomes: asyncio.Queue[Outcome]
) -> None:
    waiting: asyncio.Queue[Callable[[], None]] = asyncio.Queue()

    async def wait(_delivery: Delivery, _max_output_bytes: int, begun: Callable[[], None]) -> Result:
        waiting.put_nowait(begun)
        await asyncio.Event().wait()
        raise AssertionError("it waits without end")

    pool = make_pool(catalogue, wait)
    pool.dispatch([suspected("leave", timeout_seconds=0.0)])
    begun = await waiting.get()
    for _ in range(100):
        await asyncio.sleep(0)
    assert pool.running_count == 1
    assert outcomes.empty()
    begun()
    ended = await next_of(outcomes)
    assert ended.error is not None
    assert ended.error.type == "timeout"


async def test_a_runtime_that_stops_ends_the_processes(
    start_runtime: Make, stop_runtime: Callable[[Runtime], Awaitable[None]], witness: Witness
) -> None:
    runtime = await start_runtime()
    runtime.pool.dispatch([suspected("stay", {"port": witness.port, "how": "wait"})])
    process_id, connection = await witness.begun()
    witness.release(process_id)
    await until_gone(connection)
    while runtime.pool.running_count:
        await asyncio.sleep(0)
    assert is_there(process_id)
    await stop_runtime(runtime)
    assert not is_there(process_id)
