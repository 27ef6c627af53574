"""Retries: what is tried again, when, how often, and that a wait for a retry survives a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from workflow_engine.plugins import Handler, NodeContext, PermanentError, RetryAfter, handler
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.process import Runtime

Make = Callable[..., Awaitable[Any]]

QUICK = {"initial_delay": 0.001, "jitter": False}


class FastForwardClock(SystemClock):
    """The system's clock, with a wall clock that a test can put forward."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_milliseconds = 0

    def now(self) -> int:
        return super().now() + self.ahead_milliseconds


def failing(times: int, error: Exception, seen: list[NodeContext] | None = None) -> Handler:
    """A handler "flaky" that raises `error` at its first attempts and then returns the attempt's number."""

    @handler("flaky")
    async def flaky(_config: dict[str, Any], context: NodeContext) -> Any:
        if seen is not None:
            seen.append(context)
        if context.attempt <= times:
            raise error
        return context.attempt

    return flaky


def flaky_node(**retry: Any) -> list[dict[str, Any]]:
    return [{"id": "flaky", "handler": "flaky", "retry_config": {**QUICK, **retry}}]


async def test_a_retry_that_succeeds_completes_the_workflow(start_runtime: Make, run_workflow: Make) -> None:
    seen: list[NodeContext] = []
    runtime = await start_runtime(handlers=[failing(2, OSError("not yet"), seen)])
    after = {"id": "after", "handler": "output", "dependencies": ["flaky"]}
    ended = await run_workflow(runtime, [*flaky_node(max_retries=3), after])
    assert (ended.state, ended.error) == ("COMPLETED", None)
    assert ended.output == {"flaky": 3}
    states = [("flaky", 1, "FAILED"), ("flaky", 2, "FAILED"), ("flaky", 3, "COMPLETED"), ("after", 1, "COMPLETED")]
    assert ended.summary == states
    assert [failure["message"] for failure in ended.failures] == ["not yet", "not yet"]
    delays = [row.retry_at - row.finished_at if row.retry_at is not None else None for row in ended.attempts]
    assert delays == [1, 2, None, None]
    assert len({context.idempotency_key for context in seen}) == 3


async def test_exhausted_retries_fail_the_workflow_and_say_why(start_runtime: Make, run_workflow: Make) -> None:
    runtime = await start_runtime(handlers=[failing(99, OSError("still down"))])
    ended = await run_workflow(runtime, flaky_node(max_retries=2))
    assert (ended.state, ended.output) == ("FAILED", None)
    assert ended.error == {"node_id": "flaky", "type": "OSError", "message": "still down", "attempt": 3}
    assert ended.summary == [("flaky", number, "FAILED") for number in (1, 2, 3)]
    status = await runtime.engine.status(ended.execution_id)
    assert (status.node_states, status.error) == ({"flaky": "FAILED"}, ended.error)


async def test_the_settings_say_how_often_where_the_definition_is_silent(
    start_runtime: Make, run_workflow: Make
) -> None:
    runtime = await start_runtime(
        handlers=[failing(99, OSError("down"))],
        retry_max_retries=4,
        retry_initial_delay=0.001,
        retry_max_delay=0.003,
        retry_exponential_base=3,
        retry_jitter=False,
    )
    ended = await run_workflow(runtime, [{"id": "flaky", "handler": "flaky"}])
    delays = [row.retry_at - row.finished_at if row.retry_at is not None else None for row in ended.attempts]
    assert delays == [1, 3, 3, 3, None]
    default = {"max_retries": 1, "initial_delay": 0, "jitter": False}
    ended = await run_workflow(runtime, [{"id": "flaky", "handler": "flaky"}], default_retry_config=default)
    assert len(ended.attempts) == 2


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("wrong"), "ValueError"),
        (KeyError("missing"), "KeyError"),
        (NotImplementedError("later"), "NotImplementedError"),
        (PermanentError("never"), "PermanentError"),
        (PermanentError("never", error_type="payment_refused"), "payment_refused"),
    ],
)
async def test_what_trying_again_cannot_help_is_not_tried_again(
    start_runtime: Make, run_workflow: Make, error: Exception, kind: str
) -> None:
    runtime = await start_runtime(handlers=[failing(99, error)])
    ended = await run_workflow(runtime, flaky_node(max_retries=5))
    assert ended.error == {"node_id": "flaky", "type": kind, "message": str(error), "attempt": 1}
    assert ended.summary == [("flaky", 1, "FAILED")]
    assert ended.attempts[0].retry_at is None


@pytest.fixture
def parked() -> Make:
    """`await parked(runtime, execution_id)`: wait until it only waits for a far retry; the stored row of that."""

    async def wait(runtime: Runtime, execution_id: str) -> Any:
        with runtime.transport.follow(execution_id) as follower:
            while True:
                [loaded] = await runtime.store.load([execution_id])
                if loaded.record.parked_until is not None:
                    return loaded
                await follower.changed(60)

    return wait


@pytest.mark.parametrize(
    ("seconds", "waited"), [(120.0, 120_000), (30, 30_000), (1e9, 86_400_000), (None, 20_000), (5, 20_000)]
)
async def test_what_the_far_side_asks_for_is_waited_for(
    start_runtime: Make, start_workflow: Make, parked: Make, seconds: float | None, waited: int
) -> None:
    runtime = await start_runtime(handlers=[failing(1, RetryAfter("busy", seconds=seconds, error_type="busy"))])
    execution_id = await start_workflow(runtime, flaky_node(initial_delay=20))
    loaded = await parked(runtime, execution_id)
    [row] = loaded.attempts
    assert row.retry_at - row.finished_at == waited
    assert loaded.record.parked_until == row.retry_at
    status = await runtime.engine.status(execution_id)
    assert (status.state, status.node_states, status.error) == ("RUNNING", {"flaky": "PENDING"}, None)


async def test_a_wait_for_a_retry_survives_a_restart(
    start_runtime: Make, stop_runtime: Make, start_workflow: Make, parked: Make, end_of: Make
) -> None:
    clock = FastForwardClock()
    flaky = failing(1, OSError("down"))
    runtime = await start_runtime(handlers=[flaky], clock=clock)
    execution_id = await start_workflow(runtime, flaky_node(initial_delay=3600, max_delay=3600))
    before = await parked(runtime, execution_id)
    await stop_runtime(runtime)

    runtime = await start_runtime(handlers=[flaky], clock=clock)
    assert await parked(runtime, execution_id) == before
    assert (await runtime.engine.results(execution_id)).state == "RUNNING"
    assert runtime.owner.loaded_count == 0, "what waits for long is not kept in memory"
    clock.ahead_milliseconds = 3_599_000
    assert (await runtime.engine.status(execution_id)).node_states == {"flaky": "PENDING"}
    clock.ahead_milliseconds = 3_601_000
    runtime.transport.nudge()
    ended = await end_of(runtime, execution_id)
    assert (ended.state, ended.output) == ("COMPLETED", 2)
    assert list(ended.attempts[:1]) == list(before.attempts), "what was stored has not changed"


async def test_a_retry_that_was_due_while_nobody_ran_starts_at_once(
    start_runtime: Make, stop_runtime: Make, start_workflow: Make, parked: Make, end_of: Make
) -> None:
    clock = FastForwardClock()
    flaky = failing(1, OSError("down"))
    runtime = await start_runtime(handlers=[flaky], clock=clock)
    execution_id = await start_workflow(runtime, flaky_node(initial_delay=60))
    await parked(runtime, execution_id)
    await stop_runtime(runtime)
    clock.ahead_milliseconds = 600_000
    ended = await end_of(await start_runtime(handlers=[flaky], clock=clock), execution_id)
    assert ended.summary == [("flaky", 1, "FAILED"), ("flaky", 2, "COMPLETED")]


async def test_a_parked_execution_can_be_cancelled(
    start_runtime: Make, start_workflow: Make, parked: Make, end_of: Make
) -> None:
    runtime = await start_runtime(handlers=[failing(1, OSError("down"))])
    execution_id = await start_workflow(runtime, flaky_node(initial_delay=60))
    await parked(runtime, execution_id)
    assert await runtime.engine.cancel(execution_id) == "RUNNING"
    ended = await end_of(runtime, execution_id)
    assert (ended.state, ended.summary) == ("CANCELLED", [("flaky", 1, "FAILED")])
    assert (await runtime.engine.status(execution_id)).node_states == {"flaky": "CANCELLED"}


async def test_other_branches_go_on_while_one_waits_for_its_retry(
    start_runtime: Make, start_workflow: Make, parked: Make
) -> None:
    runtime = await start_runtime(handlers=[failing(1, OSError("down"))])
    nodes = [
        *flaky_node(initial_delay=60),
        {"id": "other", "handler": "input"},
        {"id": "next", "handler": "output", "dependencies": ["other"]},
        {"id": "join", "handler": "output", "dependencies": ["flaky", "next"]},
    ]
    execution_id = await start_workflow(runtime, nodes)
    await parked(runtime, execution_id)
    states = (await runtime.engine.status(execution_id)).node_states
    assert states == {"flaky": "PENDING", "other": "COMPLETED", "next": "COMPLETED", "join": "PENDING"}


class Siblings:
    """A handler "sibling" that runs until it is stopped."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.runs = asyncio.Event()
        self.stopped = asyncio.Event()

        @handler("sibling")
        async def sibling(_config: dict[str, Any], context: NodeContext) -> Any:
            self.ran.append(context.node_id)
            self.runs.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.stopped.set()

        self.handler = sibling


async def test_a_failure_stops_what_runs_and_starts_nothing_that_waits(start_runtime: Make, run_workflow: Make) -> None:
    siblings = Siblings()

    @handler("fail")
    async def fail(_config: dict[str, Any], _context: NodeContext) -> Any:
        await siblings.runs.wait()
        raise ValueError("enough")

    runtime = await start_runtime(handlers=[siblings.handler, fail])
    nodes = [
        {"id": "fail", "handler": "fail"},
        {"id": "runs", "handler": "sibling"},
        {"id": "waits", "handler": "sibling", "dependencies": ["runs"]},
        {"id": "after", "handler": "sibling", "dependencies": ["fail"]},
    ]
    ended = await run_workflow(runtime, nodes)
    await siblings.stopped.wait()
    assert ended.error == {"node_id": "fail", "type": "ValueError", "message": "enough", "attempt": 1}
    assert ended.summary == [("fail", 1, "FAILED"), ("runs", 1, "CANCELLED")]
    states = (await runtime.engine.status(ended.execution_id)).node_states
    assert states == {"fail": "FAILED", "runs": "CANCELLED", "waits": "CANCELLED", "after": "CANCELLED"}
    assert siblings.ran == ["runs"]


async def test_a_cancel_stops_what_runs_and_starts_nothing_that_is_queued(
    start_runtime: Make, start_workflow: Make, run_workflow: Make, end_of: Make
) -> None:
    siblings = Siblings()
    runtime = await start_runtime(handlers=[siblings.handler], worker_concurrency=1)
    nodes = [
        {"id": "runs", "handler": "sibling"},
        {"id": "queued", "handler": "sibling"},
        {"id": "waits", "handler": "sibling", "dependencies": ["runs"]},
    ]
    execution_id = await start_workflow(runtime, nodes)
    await siblings.runs.wait()
    states = (await runtime.engine.status(execution_id)).node_states
    assert states == {"runs": "RUNNING", "queued": "QUEUED", "waits": "PENDING"}
    await runtime.engine.cancel(execution_id)
    ended = await end_of(runtime, execution_id)
    await siblings.stopped.wait()
    assert (ended.state, ended.error, ended.summary) == ("CANCELLED", None, [("runs", 1, "CANCELLED")])
    # What comes later comes after everything that was in the queue.
    assert (await run_workflow(runtime, [{"id": "a", "handler": "input"}])).state == "COMPLETED"
    assert siblings.ran == ["runs"]


async def test_a_failure_drops_the_retry_that_another_node_waits_for(start_runtime: Make, run_workflow: Make) -> None:
    flaky_failed = asyncio.Event()
    attempts: list[int] = []

    @handler("flaky")
    async def flaky(_config: dict[str, Any], context: NodeContext) -> Any:
        attempts.append(context.attempt)
        flaky_failed.set()
        raise OSError("down")

    @handler("fail")
    async def fail(_config: dict[str, Any], _context: NodeContext) -> Any:
        await flaky_failed.wait()
        await asyncio.sleep(0)
        raise ValueError("enough")

    runtime = await start_runtime(handlers=[flaky, fail])
    ended = await run_workflow(runtime, [*flaky_node(initial_delay=5), {"id": "fail", "handler": "fail"}])
    assert ended.state == "FAILED"
    assert ended.error["node_id"] == "fail"
    assert attempts == [1]
    states = (await runtime.engine.status(ended.execution_id)).node_states
    assert states == {"flaky": "CANCELLED", "fail": "FAILED"}
