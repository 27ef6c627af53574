"""Where handlers run and how many at once: limits, threads, warm state."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel, Field

from workflow_engine.plugins import NodeContext, RetryDefaults, handler
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.worker.threads import MOST_LINGERING

Make = Callable[..., Awaitable[Any]]

LONG_SECONDS = 60.0


@handler("free")
async def free(_config: dict[str, Any], _context: NodeContext) -> str:
    """Run at once."""
    return "free"


class Meter:
    """A handler that waits until it is released, and how many of it have run at once."""

    def __init__(self, limit: int) -> None:
        self.running = self.most = 0
        self.full = asyncio.Event()
        self.release = asyncio.Event()

        @handler("limited", max_running_per_process=limit)
        async def limited(_config: dict[str, Any], _context: NodeContext) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            if self.running == limit:
                self.full.set()
            try:
                await self.release.wait()
            finally:
                self.running -= 1

        self.handler = limited


async def test_a_limited_handler_holds_up_nobody_else(
    start_runtime: Make, start_workflow: Make, run_workflow: Make, end_of: Make
) -> None:
    meter = Meter(2)
    runtime = await start_runtime(handlers=[meter.handler, free], worker_concurrency=4)
    wide = await start_workflow(runtime, [{"id": f"n{index}", "handler": "limited"} for index in range(7)])
    await meter.full.wait()

    assert (await run_workflow(runtime, [{"id": "n", "handler": "free"}])).output == "free"
    assert (runtime.pool.running_count, runtime.pool.queued_count, runtime.pool.ready_count) == (2, 5, 0)
    assert runtime.describe().free_slots == 2
    meter.release.set()
    assert (await end_of(runtime, wide)).state == "COMPLETED"
    assert meter.most == 2


async def test_what_is_stopped_makes_room_for_the_next(
    start_runtime: Make, start_workflow: Make, run_workflow: Make
) -> None:
    meter = Meter(1)
    runtime = await start_runtime(handlers=[meter.handler, free], worker_concurrency=2)
    first = await start_workflow(runtime, [{"id": "n", "handler": "limited"}])
    await meter.full.wait()
    meter.full.clear()

    await runtime.engine.cancel(first)
    overdue = {"timeout_seconds": 0.01, "retry_config": {"max_retries": 0}}
    ended = await run_workflow(runtime, [{"id": "n", "handler": "limited", **overdue}])

    assert meter.full.is_set()
    assert ended.failures[0]["type"] == "timeout"
    meter.release.set()
    assert (await run_workflow(runtime, [{"id": "n", "handler": "limited"}])).state == "COMPLETED"
    assert meter.most == 1


# --- threads ------------------------------------------------------------------------------------------


class Item(BaseModel):
    """What a handler returns."""

    name: str
    price: float = Field(default=1.0, alias="cost")


def exits() -> None:
    sys.exit(3)


def interrupts() -> None:
    raise KeyboardInterrupt


def stops_iterating() -> None:
    raise StopIteration(5)


def is_cancelled() -> None:
    raise asyncio.CancelledError


def recurses() -> None:
    recurses()


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (exits, ("SystemExit", "3")),
        (interrupts, ("KeyboardInterrupt", "KeyboardInterrupt")),
        (stops_iterating, ("StopIteration", "5")),
        (is_cancelled, ("CancelledError", "CancelledError")),
        (recurses, ("RecursionError", "maximum recursion depth exceeded")),
        (lambda: 1 / 0, ("ZeroDivisionError", "division by zero")),
        (lambda: {1, 2}, ("output_invalid", "the handler's result: $ is a set, which JSON cannot hold")),
        (lambda: float("nan"), ("output_invalid", "the handler's result: $ is nan")),
        (lambda: "x" * 2_000, ("output_too_large", "the handler's result: ")),
    ],
)
async def test_a_plain_function_fails_alone(
    start_runtime: Make, run_workflow: Make, function: Callable[[], Any], error: tuple[str, str]
) -> None:
    @handler("bad", retry=RetryDefaults(max_retries=0))
    def bad(_config: dict[str, Any], _context: NodeContext) -> Any:
        return function()

    runtime = await start_runtime(handlers=[bad, free], worker_concurrency=1, max_node_output_bytes=1024)
    ended = await run_workflow(runtime, [{"id": "n", "handler": "bad", "retry_config": {"max_retries": 0}}])

    assert ended.failures[0]["type"] == error[0]
    assert ended.failures[0]["message"].startswith(error[1])
    assert (await run_workflow(runtime, [{"id": "n", "handler": "free"}])).output == "free"
    assert runtime.pool.lingering == []


async def test_a_plain_function_runs_beside_the_event_loop(start_runtime: Make, run_workflow: Make) -> None:
    goes_on = threading.Event()

    @handler("blocks")
    def blocks(_config: dict[str, Any], context: NodeContext) -> Any:
        assert goes_on.wait(LONG_SECONDS)
        return [threading.current_thread() is threading.main_thread(), context.inputs, context.parameters]

    @handler("lets_go_on")
    async def lets_go_on(_config: dict[str, Any], _context: NodeContext) -> None:
        goes_on.set()

    runtime = await start_runtime(handlers=[blocks, lets_go_on], worker_concurrency=2)
    nodes = [{"id": "a", "handler": "blocks"}, {"id": "b", "handler": "lets_go_on"}]

    assert (await run_workflow(runtime, nodes, {"x": 1})).output == {"a": [False, {}, {"x": 1}], "b": None}


class Hangs:
    """A plain handler that hangs until it is let go, and looks at `context.cancelled` or not."""

    def __init__(self, is_cooperative: bool) -> None:
        self.let_go = threading.Event()
        self.started: asyncio.Queue[None] = asyncio.Queue()
        self.stopped: asyncio.Queue[bool] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        @handler("hangs")
        def hangs(_config: dict[str, Any], context: NodeContext) -> str:
            loop.call_soon_threadsafe(self.started.put_nowait, None)
            if is_cooperative:
                stopped = context.cancelled.wait(LONG_SECONDS)
            else:
                self.let_go.wait(LONG_SECONDS)
                stopped = context.cancelled.is_set()
            loop.call_soon_threadsafe(self.stopped.put_nowait, stopped)
            return "let go"

        self.handler = hangs

    async def cancel_one(self, runtime: Runtime, start_workflow: Make) -> None:
        """Have an attempt hang, and cancel its execution."""
        execution_id = await start_workflow(runtime, [{"id": "n", "handler": "hangs"}])
        await self.started.get()
        await runtime.engine.cancel(execution_id)
        while runtime.pool.running_count:
            await asyncio.sleep(0)


async def test_a_plain_function_that_takes_too_long_fails_in_time(start_runtime: Make, run_workflow: Make) -> None:
    hangs = Hangs(is_cooperative=False)
    runtime = await start_runtime(handlers=[hangs.handler, free], worker_concurrency=1)
    node = {"id": "n", "handler": "hangs", "timeout_seconds": 0.01, "retry_config": {"max_retries": 0}}

    assert (await run_workflow(runtime, [node])).failures[0]["type"] == "timeout"
    assert (await run_workflow(runtime, [{"id": "n", "handler": "free"}])).output == "free"
    hangs.let_go.set()


async def test_a_thread_that_hangs_is_left_and_replaced(
    start_runtime: Make, start_workflow: Make, run_workflow: Make
) -> None:
    hangs = Hangs(is_cooperative=False)
    runtime = await start_runtime(handlers=[hangs.handler], worker_concurrency=1)

    for _ in range(3):
        await hangs.cancel_one(runtime, start_workflow)

    assert runtime.pool.lingering == ["hangs"] * 3
    hangs.let_go.set()
    assert [await hangs.stopped.get() for _ in range(3)] == [True] * 3
    while runtime.pool.lingering:
        await asyncio.sleep(0)
    assert (await run_workflow(runtime, [{"id": "n", "handler": "hangs"}])).output == "let go"


async def test_a_handler_whose_threads_never_end_gets_no_more(
    start_runtime: Make, start_workflow: Make, run_workflow: Make
) -> None:
    hangs = Hangs(is_cooperative=False)
    runtime = await start_runtime(handlers=[hangs.handler], worker_concurrency=1)
    for _ in range(MOST_LINGERING):
        await hangs.cancel_one(runtime, start_workflow)

    node = {"id": "n", "handler": "hangs", "retry_config": {"max_retries": 0}}
    [refused] = (await run_workflow(runtime, [node])).failures

    assert refused["type"] == "worker_failed"
    assert refused["message"].startswith(f"{MOST_LINGERING} threads run what hangs began and was told to stop")
    hangs.let_go.set()


async def test_a_plain_function_that_looks_is_told_to_stop(
    start_runtime: Make, start_workflow: Make, stop_runtime: Make
) -> None:
    hangs = Hangs(is_cooperative=True)
    runtime = await start_runtime(handlers=[hangs.handler], worker_concurrency=1)

    await hangs.cancel_one(runtime, start_workflow)
    assert await hangs.stopped.get()
    await start_workflow(runtime, [{"id": "n", "handler": "hangs"}])
    await hangs.started.get()
    await stop_runtime(runtime)
    assert await hangs.stopped.get()


async def test_a_copy_that_a_plain_function_makes_of_the_process_ends(start_runtime: Make, run_workflow: Make) -> None:
    @handler("forks")
    def forks(_config: dict[str, Any], _context: NodeContext) -> int:
        return os.fork()

    runtime = await start_runtime(handlers=[forks], worker_concurrency=1)
    with warnings.catch_warnings(action="ignore"):  # of threads and fork
        process_id = (await run_workflow(runtime, [{"id": "n", "handler": "forks"}])).output

    assert await asyncio.to_thread(os.waitpid, process_id, 0) == (process_id, 0)


# --- outputs and contexts -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "output"),
    [
        (Item(name="a", cost=2), {"name": "a", "cost": 2.0}),
        ({"name": "b"}, {"name": "b", "cost": 1.0}),
        ({"cost": "x"}, "the handler's result: output.name is required; output.cost must be "),
        (5, "the handler's result: output must be "),
    ],
)
async def test_a_declared_output_is_held_to(
    start_runtime: Make, run_workflow: Make, result: Any, output: dict[str, Any] | str
) -> None:
    @handler("item", output=Item)
    def item(_config: dict[str, Any], _context: NodeContext) -> Any:
        return result

    runtime = await start_runtime(handlers=[item])
    ended = await run_workflow(runtime, [{"id": "n", "handler": "item"}])

    if isinstance(output, dict):
        assert ended.output == output
    else:
        assert ended.failures[0]["type"] == "output_invalid"
        assert ended.failures[0]["message"].startswith(output[:28])


async def test_what_a_context_has_in_a_thread(
    start_runtime: Make, run_workflow: Make, caplog: pytest.LogCaptureFixture
) -> None:
    @handler("curious", timeout_seconds=50)
    def curious(_config: dict[str, Any], context: NodeContext) -> Any:
        context.logger.warning("seen", extra={"more": 1})
        with context.tracer.start_as_current_span("a part"):
            context.progress(0.5)
        with pytest.raises(RuntimeError, match=r"context.http is for 'async def' handlers"):
            _ = context.http
        with pytest.raises(LookupError, match="no secret 'key'"):
            context.wait_for_secret("key")
        return [context.handler, context.attempt, context.seconds_left <= 60, context.last_progress]

    runtime = await start_runtime(handlers=[curious])
    ended = await run_workflow(runtime, [{"id": "n", "handler": "curious"}])

    assert ended.output == ["curious", 1, True, 0.5]
    [line] = [record for record in caplog.records if record.message == "seen"]
    assert line.name == "workflow_engine.handlers.curious"
    fields = {"execution_id": ended.execution_id, "node_id": "n", "attempt": 1, "more": 1}
    assert {name: getattr(line, name) for name in fields} == fields


async def test_an_async_handler_awaits_its_secrets(start_runtime: Make, run_workflow: Make) -> None:
    @handler("curious")
    async def curious(_config: dict[str, Any], context: NodeContext) -> Any:
        with pytest.raises(RuntimeError, match=r"must not wait: write await context.secret\('key'\)"):
            context.wait_for_secret("key")
        with pytest.raises(LookupError, match="no secret 'key'"):
            await context.secret("key")
        return context.cancelled.is_set()

    runtime = await start_runtime(handlers=[curious])
    assert (await run_workflow(runtime, [{"id": "n", "handler": "curious"}])).output is False


@pytest.mark.parametrize(
    ("done", "error"),
    [(None, TypeError), (True, TypeError), (1.5, ValueError), (-1, ValueError), (float("nan"), ValueError)],
)
async def test_a_progress_that_is_none(start_runtime: Make, run_workflow: Make, done: Any, error: type) -> None:
    @handler("eager")
    async def eager(_config: dict[str, Any], context: NodeContext) -> Any:
        context.progress(done)

    runtime = await start_runtime(handlers=[eager])
    ended = await run_workflow(runtime, [{"id": "n", "handler": "eager"}])
    assert ended.failures[0]["type"] == error.__name__


# --- classes ------------------------------------------------------------------------------------------


def warm_handler(lane: str, kind: str, told: list[str]) -> Any:
    """A handler that tells what happens to it; its methods are `async def` or plain."""

    class Plain:
        """Count."""

        def __init__(self) -> None:
            told.append("made")
            self.count = 0

        def open(self) -> None:
            told.append("opened")

        def run(self, _config: dict[str, Any], _context: NodeContext) -> int:
            self.count += 1
            return self.count

        def close(self) -> None:
            told.append("closed")

    class Async(Plain):
        """Count."""

        async def open(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            super().open()

        async def close(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0)
            super().close()

    class AsyncRun(Plain if kind == "plain" else Async):  # type: ignore[misc]
        """Count."""

        async def run(self, config: dict[str, Any], context: NodeContext) -> int:
            return super().run(config, context)  # type: ignore[no-any-return]

    chosen = AsyncRun if lane == "async" else Plain if kind == "plain" else Async
    return handler("warm")(chosen)


@pytest.mark.parametrize("lane", ["async", "thread"])
@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_an_object_is_made_once_and_closed_at_the_end(
    start_runtime: Make, run_workflow: Make, stop_runtime: Make, lane: str, kind: str
) -> None:
    told: list[str] = []
    runtime = await start_runtime(handlers=[warm_handler(lane, kind, told)], worker_concurrency=3)
    assert told == []

    ended = await run_workflow(runtime, [{"id": f"n{index}", "handler": "warm"} for index in range(5)])

    assert sorted(ended.output.values()) == [1, 2, 3, 4, 5]
    assert told == ["made", "opened"]
    await stop_runtime(runtime)
    assert told == ["made", "opened", "closed"]


@pytest.mark.parametrize("error", [OSError("not yet"), SystemExit(3), ValueError("no"), asyncio.CancelledError()])
@pytest.mark.parametrize("lane", ["async", "thread"])
async def test_an_object_that_does_not_open_is_tried_again(
    start_runtime: Make, run_workflow: Make, stop_runtime: Make, lane: str, error: BaseException
) -> None:
    tried: list[object] = []

    class Plain:
        """Fail at first."""

        def open(self) -> None:
            tried.append(self)
            if len(tried) == 1:
                raise error

        def run(self, _config: dict[str, Any], _context: NodeContext) -> bool:
            return tried[-1] is self

        def close(self) -> None:
            raise error

    class Async(Plain):
        """Fail at first."""

        async def run(self, config: dict[str, Any], context: NodeContext) -> bool:  # type: ignore[override]
            return super().run(config, context)

    made = handler("warm")(Async if lane == "async" else Plain)
    runtime = await start_runtime(handlers=[made, free], worker_concurrency=1)
    retry = {"max_retries": 1, "initial_delay": 0.001, "jitter": False}
    ended = await run_workflow(runtime, [{"id": "n", "handler": "warm", "retry_config": retry}])

    assert ended.output is True
    assert ended.failures[0]["type"] == "open_failed"
    assert ended.failures[0]["message"].startswith(f"the handler warm could not be opened: {type(error).__name__}: ")
    await stop_runtime(runtime)


async def test_an_opening_that_hangs_is_given_up_with_the_last_attempt_that_waits(
    start_runtime: Make, run_workflow: Make
) -> None:
    tried: list[object] = []

    @handler("warm")
    class _Warm:
        async def open(self) -> None:
            tried.append(self)
            if len(tried) == 1:
                await asyncio.Event().wait()

        async def run(self, _config: dict[str, Any], _context: NodeContext) -> int:
            return len(tried)

    runtime = await start_runtime(handlers=[_Warm])
    first = {"id": "n", "handler": "warm", "timeout_seconds": 0.01, "retry_config": {"max_retries": 0}}
    assert (await run_workflow(runtime, [first])).failures[0]["type"] == "timeout"
    assert (await run_workflow(runtime, [{"id": "n", "handler": "warm"}])).output == 2
