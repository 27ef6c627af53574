"""Bad and hostile handlers in a whole runtime: each has a defined outcome, and everything else goes on."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel, field_validator

from workflow_engine.plugins import Handler, NodeContext, PermanentError, RetryAfter, handler
from workflow_engine.runtime import failpoints
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.worker.pool import ATTEMPTS_BETWEEN_YIELDS

Make = Callable[..., Awaitable[Any]]

QUICK_RETRY = {"max_retries": 1, "initial_delay": 0.001, "jitter": False}
NO_RETRY = {"max_retries": 0}


@handler("good")
async def good(_config: dict[str, Any], context: NodeContext) -> Any:
    """Behave."""
    return {"parameters": context.parameters, "inputs": dict(context.inputs)}


@pytest.fixture
def still_works(run_workflow: Make) -> Make:
    """`await still_works(runtime)`: a good workflow completes, and nothing of what was before is left."""

    async def check(runtime: Runtime, *, lingering: tuple[str, ...] = ()) -> None:
        nodes = [{"id": "first", "handler": "good"}, {"id": "last", "handler": "good", "dependencies": ["first"]}]
        ended = await run_workflow(runtime, nodes, {"n": 1})
        first = {"parameters": {"n": 1}, "inputs": {}}
        assert ended.output == {"parameters": {"n": 1}, "inputs": {"first": first}}
        assert runtime.is_healthy()
        assert runtime.owner.set_aside == {}
        assert runtime.pool.running_count == 0
        assert tuple(runtime.pool.lingering) == lingering

    return check


@pytest.fixture
def run_bad(start_runtime: Make, run_workflow: Make, still_works: Make) -> Make:
    """`await run_bad(handler)`: how a workflow of this one node ends, in a runtime that goes on afterwards."""

    async def run(bad: Handler, *, concurrency: int = 1, **node: Any) -> Any:
        runtime = await start_runtime(handlers=[bad, good], worker_concurrency=concurrency)
        nodes = [{"id": "bad", "handler": bad.name, "retry_config": QUICK_RETRY, **node}]
        ended = await run_workflow(runtime, nodes)
        await still_works(runtime)
        return ended

    return run


# --- what is raised -----------------------------------------------------------------------------------


class Impolite(BaseException):
    """Not an Exception, like those that mean the end of a process."""


class Unprintable(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class UnprintableAndImpolite(BaseException):
    """The same, without being an Exception, and with an exit in its text."""

    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class WithoutBase(PermanentError):
    """A subclass that forgot to call its base."""

    def __init__(self, message: str) -> None:
        self.args = (message,)


class RetryWithoutBase(RetryAfter):
    """A subclass that forgot to call its base."""

    def __init__(self, message: str) -> None:
        self.args = (message,)


def recurse(depth: int = 0) -> int:
    """Recurse without end."""
    return recurse(depth + 1) + 1


def raise_(error: BaseException) -> Callable[[], NoReturn]:
    def fail() -> NoReturn:
        raise error

    return fail


RAISED: dict[str, tuple[Callable[[], object], str, str, bool]] = {
    "exception": (raise_(Exception("oh no")), "Exception", "oh no", True),
    "no message": (raise_(OSError()), "OSError", "OSError", True),
    "value error": (raise_(ValueError("bad value")), "ValueError", "bad value", False),
    "key error": (raise_(KeyError("missing")), "KeyError", "'missing'", False),
    "system exit": (raise_(SystemExit(3)), "SystemExit", "3", False),
    "keyboard interrupt": (raise_(KeyboardInterrupt()), "KeyboardInterrupt", "KeyboardInterrupt", False),
    "generator exit": (raise_(GeneratorExit()), "GeneratorExit", "GeneratorExit", False),
    "cancelled error": (raise_(asyncio.CancelledError("me")), "CancelledError", "me", True),
    "base exception": (raise_(Impolite("rude")), "Impolite", "rude", False),
    "exception group": (
        raise_(ExceptionGroup("several", [ValueError("one"), OSError("two")])),
        "ExceptionGroup",
        "several (2 sub-exceptions)",
        True,
    ),
    "base exception group": (
        raise_(BaseExceptionGroup("several", [KeyboardInterrupt(), Impolite()])),
        "BaseExceptionGroup",
        "several (2 sub-exceptions)",
        False,
    ),
    "unprintable": (raise_(Unprintable()), "Unprintable", "(the exception cannot be shown as text)", True),
    "unprintable and impolite": (
        raise_(UnprintableAndImpolite()),
        "UnprintableAndImpolite",
        "(the exception cannot be shown as text)",
        False,
    ),
    "recursion": (recurse, "RecursionError", "maximum recursion depth exceeded", True),
    "out of memory": (raise_(MemoryError()), "MemoryError", "MemoryError", True),
    "stop iteration": (raise_(StopIteration()), "RuntimeError", "coroutine raised StopIteration", True),
    "lone surrogate": (raise_(OSError("a\ud800b")), "OSError", "a?b", True),
    "control characters": (raise_(OSError("a\x00b\r\n\x1b[31m")), "OSError", "a\x00b\r\n\x1b[31m", True),
    "long message": (raise_(OSError("x" * 100_000)), "OSError", "x" * 4_000, True),
    "base not called": (raise_(WithoutBase("gone")), "WithoutBase", "gone", False),
    "retry base not called": (raise_(RetryWithoutBase("later")), "RetryWithoutBase", "later", True),
    "type is no text": (
        raise_(PermanentError("gone", error_type=object())),  # type: ignore[arg-type]
        "PermanentError",
        "gone",
        False,
    ),
    "type has a lone surrogate": (
        raise_(PermanentError("gone", error_type="a\udfffb")),
        "a?b",
        "gone",
        False,
    ),
    "seconds are text": (
        raise_(RetryAfter("later", seconds="1")),  # type: ignore[arg-type]
        "RetryAfter",
        "later",
        True,
    ),
    "seconds are not a number": (raise_(RetryAfter("later", seconds=float("nan"))), "RetryAfter", "later", True),
    "seconds are negative": (raise_(RetryAfter("later", seconds=-1e300)), "RetryAfter", "later", True),
}


@pytest.mark.parametrize("case", RAISED)
async def test_whatever_is_raised_is_a_failed_attempt(run_bad: Make, case: str) -> None:
    fail, kind, message, retried = RAISED[case]

    @handler("bad")
    async def bad(_config: dict[str, Any], _context: NodeContext) -> Any:
        await asyncio.sleep(0)
        return fail()

    ended = await run_bad(bad)
    attempts = 2 if retried else 1
    assert (ended.state, ended.output) == ("FAILED", None)
    assert ended.summary == [("bad", number, "FAILED") for number in range(1, attempts + 1)]
    assert [failure["type"] for failure in ended.failures] == [kind] * attempts
    assert ended.error["message"].startswith(message)
    assert len(ended.error["message"]) <= 4_000
    assert (ended.error["node_id"], ended.error["attempt"]) == ("bad", attempts)
    assert [row.output for row in ended.attempts] == [None] * attempts


async def test_what_is_raised_before_anything_is_awaited_is_the_same(run_bad: Make) -> None:
    @handler("bad")
    async def bad(_config: dict[str, Any], _context: NodeContext) -> Any:
        raise KeyboardInterrupt

    ended = await run_bad(bad)
    assert [failure["type"] for failure in ended.failures] == ["KeyboardInterrupt"]


async def test_a_config_model_that_raises_is_a_failed_attempt(
    start_runtime: Make, run_workflow: Make, still_works: Make
) -> None:
    class Config(BaseModel):
        """Cannot be made of what the template turns out to be."""

        value: object

        @field_validator("value")
        @classmethod
        def check(cls, value: object) -> object:
            if value == "resolved":
                raise Impolite("not this")
            return value

    @handler("bad", config=Config)
    async def bad(_config: Config, _context: NodeContext) -> Any:
        return None

    runtime = await start_runtime(handlers=[bad, good])
    node = {"id": "bad", "handler": "bad", "config": {"value": "{{ input.value }}"}}
    ended = await run_workflow(runtime, [node], {"value": "resolved"})
    assert ended.error == {"node_id": "bad", "type": "Impolite", "message": "not this", "attempt": 1}
    assert (await run_workflow(runtime, [node], {"value": "another"})).state == "COMPLETED"
    await still_works(runtime)


# --- cancelling oneself ---------------------------------------------------------------------------------


async def test_a_handler_that_cancels_its_own_task_fails_alone(run_bad: Make) -> None:
    @handler("bad")
    async def bad(_config: dict[str, Any], _context: NodeContext) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    ended = await run_bad(bad)
    assert {failure["type"] for failure in ended.failures} == {"CancelledError"}


@pytest.mark.parametrize("end", ["return", "raise"])
async def test_a_cancel_that_a_handler_leaves_behind_does_not_hit_the_next_attempt(
    start_runtime: Make, run_workflow: Make, still_works: Make, end: str
) -> None:
    ran: list[tuple[str, asyncio.Task[Any] | None]] = []

    @handler("leaver")
    async def leaver(_config: dict[str, Any], context: NodeContext) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        ran.append((context.node_id, task))
        if end == "raise" and context.attempt == 1:
            raise OSError("left")
        return "left"

    @handler("next")
    async def after(_config: dict[str, Any], context: NodeContext) -> Any:
        ran.append((context.node_id, asyncio.current_task()))
        await asyncio.sleep(0)
        return "untouched"

    runtime = await start_runtime(handlers=[leaver, after, good], worker_concurrency=1)
    # Both wait in the queue together, so that one follows the other without a pause.
    leaver_node = {"id": "a", "handler": "leaver", "retry_config": QUICK_RETRY}
    ended = await run_workflow(runtime, [leaver_node, {"id": "b", "handler": "next"}])
    assert ended.output == {"a": "left", "b": "untouched"}
    assert [node for node, _ in ran[:2]] == ["a", "b"]
    assert ran[0][1] is not ran[1][1]
    await still_works(runtime)


async def test_a_slot_that_is_cancelled_while_idle_is_replaced(
    start_runtime: Make, run_workflow: Make, still_works: Make
) -> None:
    """A handler may keep its slot's task and cancel it when it is long gone."""
    tasks: list[asyncio.Task[Any]] = []
    everyone = asyncio.Barrier(3)

    @handler("keep")
    async def keep(_config: dict[str, Any], _context: NodeContext) -> Any:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        await everyone.wait()

    runtime = await start_runtime(handlers=[keep, good], worker_concurrency=3)
    nodes = [{"id": f"n{number}", "handler": "keep"} for number in range(3)]
    assert (await run_workflow(runtime, nodes)).state == "COMPLETED"
    assert len(set(tasks)) == 3
    for task in tasks[:2]:
        task.cancel()
    await asyncio.wait(tasks[:2])
    # Needs every slot at once: a slot that is lost, or woken in the place of a live one, would show.
    assert (await run_workflow(runtime, nodes)).state == "COMPLETED"
    await still_works(runtime)


async def test_a_slot_that_is_cancelled_at_work_is_replaced(
    start_runtime: Make, start_workflow: Make, end_of: Make, still_works: Make
) -> None:
    started: asyncio.Future[asyncio.Task[Any]] = asyncio.get_running_loop().create_future()

    @handler("wait")
    async def wait(_config: dict[str, Any], context: NodeContext) -> Any:
        task = asyncio.current_task()
        assert task is not None
        started.set_result(task)
        await asyncio.Event().wait()

    runtime = await start_runtime(handlers=[wait, good], worker_concurrency=1)
    once = {"max_retries": 0}
    execution_id = await start_workflow(runtime, [{"id": "a", "handler": "wait", "retry_config": once}])
    (await started).cancel()
    ended = await end_of(runtime, execution_id)
    assert [failure["type"] for failure in ended.failures] == ["CancelledError"]
    await still_works(runtime)


@pytest.fixture
def failpoints_off_at_the_end() -> Iterator[None]:
    """They are a switch of the process: off again for whoever comes next."""
    yield
    failpoints.configure("")


@pytest.mark.usefixtures("failpoints_off_at_the_end")
@pytest.mark.parametrize("place", ["worker.attempt.start", "worker.attempt.done"])
async def test_a_fault_of_the_pool_itself_is_a_failed_attempt_and_loses_no_slot(
    start_runtime: Make, run_workflow: Make, still_works: Make, place: str
) -> None:
    runtime = await start_runtime(handlers=[good], worker_concurrency=1, failpoints=f"{place}@1:raise")
    ended = await run_workflow(runtime, [{"id": "a", "handler": "good", "retry_config": QUICK_RETRY}])
    assert ended.summary == [("a", 1, "FAILED"), ("a", 2, "COMPLETED")]
    [failure] = ended.failures
    assert (failure["type"], failure["message"]) == ("worker_failed", f"FailpointRaised: failpoint {place}")
    await still_works(runtime)


# --- time ---------------------------------------------------------------------------------------------


async def test_a_handler_that_hangs_times_out_is_retried_and_frees_its_slot(
    start_runtime: Make, start_workflow: Make, run_workflow: Make, end_of: Make, still_works: Make
) -> None:
    attempts: list[int] = []

    @handler("hang")
    async def hang(_config: dict[str, Any], context: NodeContext) -> Any:
        attempts.append(context.attempt)
        await asyncio.Event().wait()

    runtime = await start_runtime(handlers=[hang, good], worker_concurrency=1)
    node = {"id": "bad", "handler": "hang", "timeout_seconds": 0.02, "retry_config": QUICK_RETRY}
    hanging = await start_workflow(runtime, [node])
    assert (await run_workflow(runtime, [{"id": "other", "handler": "good"}])).state == "COMPLETED"
    ended = await end_of(runtime, hanging)
    assert (ended.state, attempts) == ("FAILED", [1, 2])
    error = {"node_id": "bad", "type": "timeout", "message": "the attempt took longer than 0.02 seconds"}
    assert ended.failures == [{**error, "attempt": 1}, {**error, "attempt": 2}]
    assert [row.retry_at is not None for row in ended.attempts] == [True, False]
    await still_works(runtime)


class Stubborn:
    """A handler that swallows cancellation until `release`, and then returns `"late"`."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.started = asyncio.Event()
        self.swallowed = asyncio.Event()

        @handler("stubborn")
        async def stubborn(_config: dict[str, Any], _context: NodeContext) -> Any:
            self.started.set()
            while not self.release.is_set():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.swallowed.set()
            return "late"

        self.handler = stubborn

    async def end(self, runtime: Runtime) -> None:
        """Let it go, and wait until it is gone."""
        self.release.set()
        while runtime.pool.lingering:
            await asyncio.sleep(0)


@pytest.fixture
async def stubborn() -> AsyncIterator[Stubborn]:
    """One of these, released at the end so that the test's event loop can close."""
    one = Stubborn()
    yield one
    one.release.set()
    await asyncio.sleep(0)


async def test_swallowing_a_timeout_delays_nobody_and_the_late_result_counts_for_nothing(
    start_runtime: Make, run_workflow: Make, end_of: Make, still_works: Make, stubborn: Stubborn
) -> None:
    runtime = await start_runtime(handlers=[stubborn.handler, good], worker_concurrency=1)
    node = {"id": "bad", "handler": "stubborn", "timeout_seconds": 0.02, "retry_config": NO_RETRY}
    ended = await run_workflow(runtime, [node])
    assert [failure["type"] for failure in ended.failures] == ["timeout"]
    await stubborn.swallowed.wait()
    await still_works(runtime, lingering=("stubborn",))
    await stubborn.end(runtime)
    assert await end_of(runtime, ended.execution_id) == ended
    await still_works(runtime)


async def test_a_late_result_of_an_earlier_attempt_changes_nothing(
    start_runtime: Make, start_workflow: Make, end_of: Make, still_works: Make
) -> None:
    late, second = asyncio.Event(), asyncio.Event()

    @handler("bad")
    async def bad(_config: dict[str, Any], context: NodeContext) -> Any:
        if context.attempt == 2:
            second.set()
            return "second"
        while not late.is_set():
            try:
                await late.wait()
            except asyncio.CancelledError:
                continue
        return "first, late"

    runtime = await start_runtime(handlers=[bad, good], worker_concurrency=1)
    execution_id = await start_workflow(
        runtime,
        [
            {"id": "bad", "handler": "bad", "timeout_seconds": 0.02, "retry_config": QUICK_RETRY},
            {"id": "after", "handler": "good", "dependencies": ["bad"]},
        ],
    )
    await second.wait()
    late.set()
    ended = await end_of(runtime, execution_id)
    assert ended.summary == [("bad", 1, "FAILED"), ("bad", 2, "COMPLETED"), ("after", 1, "COMPLETED")]
    assert ended.output["inputs"] == {"bad": "second"}
    await still_works(runtime)


async def test_cancelling_an_execution_does_not_wait_for_its_handler(
    start_runtime: Make, start_workflow: Make, end_of: Make, still_works: Make, stubborn: Stubborn
) -> None:
    runtime = await start_runtime(handlers=[stubborn.handler, good], worker_concurrency=1)
    execution_id = await start_workflow(runtime, [{"id": "bad", "handler": "stubborn"}])
    await stubborn.started.wait()
    await runtime.engine.cancel(execution_id)
    ended = await end_of(runtime, execution_id)
    assert (ended.state, ended.summary) == ("CANCELLED", [("bad", 1, "CANCELLED")])
    await stubborn.swallowed.wait()
    await still_works(runtime, lingering=("stubborn",))
    await stubborn.end(runtime)
    await still_works(runtime)


async def test_stop_returns_although_a_handler_swallows_it_and_names_the_handler(
    start_runtime: Make, stop_runtime: Make, start_workflow: Make, run_workflow: Make, stubborn: Stubborn
) -> None:
    runtime = await start_runtime(handlers=[stubborn.handler])
    execution_id = await start_workflow(runtime, [{"id": "bad", "handler": "stubborn"}])
    await stubborn.started.wait()
    await stop_runtime(runtime)
    assert runtime.pool.lingering == ["stubborn"]
    await stubborn.end(runtime)
    # What it returned when everything was over has not been recorded: the next start runs the attempt again.
    again = await start_runtime(handlers=[stubborn.handler])
    results = await again.engine.results(execution_id, 60)
    assert (results.state, results.output_text) == ("COMPLETED", b'"late"')


async def test_a_failed_sibling_stops_a_handler_that_swallows_it(
    start_runtime: Make, start_workflow: Make, end_of: Make, still_works: Make, stubborn: Stubborn
) -> None:
    @handler("fail")
    async def fail(_config: dict[str, Any], _context: NodeContext) -> Any:
        await stubborn.started.wait()
        raise ValueError("enough")

    runtime = await start_runtime(handlers=[stubborn.handler, fail, good], worker_concurrency=2)
    nodes = [{"id": "slow", "handler": "stubborn"}, {"id": "bad", "handler": "fail"}]
    ended = await end_of(runtime, await start_workflow(runtime, nodes))
    assert ended.state == "FAILED"
    assert ended.summary == [("bad", 1, "FAILED"), ("slow", 1, "CANCELLED")]
    await still_works(runtime, lingering=("stubborn",))
    await stubborn.end(runtime)


async def test_handlers_that_never_wait_do_not_starve_the_event_loop(start_runtime: Make, run_workflow: Make) -> None:
    nodes, concurrency = 3_000, 4
    turn = 0
    turns: list[int] = []

    @handler("busy")
    async def busy(_config: dict[str, Any], _context: NodeContext) -> Any:
        turns.append(turn)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    runtime = await start_runtime(handlers=[busy], worker_concurrency=concurrency)
    counting = asyncio.create_task(count_turns())
    ended = await run_workflow(runtime, [{"id": f"n{number}", "handler": "busy"} for number in range(nodes)])
    counting.cancel()
    assert ended.state == "COMPLETED"
    assert len(turns) == nodes
    in_one_turn = max(turns.count(one) for one in set(turns))
    assert in_one_turn <= 2 * concurrency * ATTEMPTS_BETWEEN_YIELDS


# --- what is returned ---------------------------------------------------------------------------------


def circle() -> list[Any]:
    """A list that holds itself."""
    one: list[Any] = [1]
    one.append(one)
    return one


def deep() -> list[Any]:
    """A list nested 100,000 times."""
    one: list[Any] = []
    for _ in range(100_000):
        one = [one]
    return one


class Treacherous(dict[str, Any]):
    """A dictionary that fails when it is looked at."""

    def __len__(self) -> int:
        raise RuntimeError("no length")


class TreacherousNumber(int):
    """A number that fails when it is looked at, and not with an Exception."""

    def bit_length(self) -> int:
        raise Impolite("no bits")


class Endless(list[Any]):
    """A list whose iterator never ends."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield 1


RETURNED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "an object": (object, "output_invalid", "$ is a object, which JSON cannot hold"),
    "nan": (lambda: {"a": [float("nan")]}, "output_invalid", "$.a[0] is nan, which JSON has no word for"),
    "infinity": (lambda: float("-inf"), "output_invalid", "$ is -inf, which JSON has no word for"),
    "a set": (lambda: {"a": {1}}, "output_invalid", "$.a is a set, which JSON cannot hold"),
    "bytes": (lambda: [b"x"], "output_invalid", "$[0] is a bytes, which JSON cannot hold"),
    "a circle": (circle, "output_invalid", "nested deeper than 64 levels"),
    "too deep": (deep, "output_invalid", "nested deeper than 64 levels"),
    "a lone surrogate": (lambda: {"a": "x\ud800"}, "output_invalid", "$.a holds a lone surrogate"),
    "a lone surrogate as a key": (lambda: {"x\ud800": 1}, "output_invalid", "$ has a key with a lone surrogate"),
    "integer keys": (lambda: {1: "x"}, "output_invalid", "$ has the key 1, which is not text"),
    "a huge integer": (lambda: 10**5_000, "output_invalid", "$ is an integer of more than 4096 bits"),
    "a coroutine": (lambda: good, "output_invalid", "$ is a Handler, which JSON cannot hold"),
    "a big text": (lambda: "x" * 100_000_000, "output_too_large", "more than 4194304 bytes of JSON"),
    "a big list": (lambda: ["x" * 1_000_000] * 100, "output_too_large", "more than 4194304 bytes of JSON"),
    "many keys": (lambda: dict.fromkeys(map(str, range(1_100_000))), "output_too_large", "more than 4194304 bytes"),
    "just too big": (lambda: "x" * (4 * 1024 * 1024 - 1), "output_too_large", "4194304"),
    "a treacherous dictionary": (lambda: {"a": Treacherous(b=1)}, "output_invalid", "RuntimeError: no length"),
    "a treacherous number": (lambda: {"a": TreacherousNumber(1)}, "output_invalid", "Impolite: no bits"),
    "an endless list": (lambda: {"a": Endless([1])}, "output_invalid", "$.a is a Endless, which JSON cannot hold"),
}


@pytest.mark.parametrize("case", RETURNED)
async def test_a_result_that_cannot_be_stored_fails_the_attempt_for_good(run_bad: Make, case: str) -> None:
    result, kind, message = RETURNED[case]

    @handler("bad")
    async def bad(_config: dict[str, Any], _context: NodeContext) -> Any:
        return result()

    ended = await run_bad(bad)
    assert (ended.state, ended.summary) == ("FAILED", [("bad", 1, "FAILED")])
    assert ended.error["type"] == kind
    assert ended.error["message"].startswith("the handler's result: ")
    assert message in ended.error["message"]


@pytest.mark.parametrize(
    "result", ["", 0, False, None, [], {}, "x" * (4 * 1024 * 1024 - 2), {"\x00": "\x00\x1f"}, [1e308, -0.0], (1, 2)]
)
async def test_a_result_at_the_edge_is_kept_as_it_is(run_bad: Make, result: Any) -> None:
    @handler("edge")
    async def edge(_config: dict[str, Any], _context: NodeContext) -> Any:
        return result

    ended = await run_bad(edge)
    assert ended.state == "COMPLETED"
    assert ended.output == (list(result) if isinstance(result, tuple) else result)


# --- what is left behind ------------------------------------------------------------------------------


async def test_changing_what_was_given_changes_it_for_nobody_else(start_runtime: Make, run_workflow: Make) -> None:
    @handler("vandal")
    async def vandal(config: dict[str, Any], context: NodeContext) -> Any:
        seen = {"config": repr(config), "inputs": repr(dict(context.inputs)), "parameters": repr(context.parameters)}
        for value in (config, config["nested"], config["from"], context.inputs["source"], context.parameters):
            value.clear()
        config["nested"] = context.inputs["source"]["list"].append("vandal")
        return seen

    runtime = await start_runtime(handlers=[vandal, good], worker_concurrency=1)
    config = {"nested": {"list": [1, 2]}, "from": "{{ source.output }}", "text": "as it was"}
    vandals = [f"vandal_{number}" for number in range(3)]
    nodes = [
        {"id": "source", "handler": "input"},
        *({"id": name, "handler": "vandal", "dependencies": ["source"], "config": config} for name in vandals),
        {"id": "last", "handler": "good", "dependencies": ["source", *vandals]},
    ]
    parameters = {"list": [{"deep": "value"}]}
    first = await run_workflow(runtime, nodes, parameters)
    second = await run_workflow(runtime, nodes, parameters)
    assert first.state == "COMPLETED"
    assert first.output == second.output
    assert first.output["parameters"] == first.output["inputs"]["source"] == parameters
    seen = [first.output["inputs"][name] for name in vandals]
    assert seen[0] == seen[1] == seen[2]
    assert "as it was" in seen[0]["config"]


async def test_changing_a_result_after_returning_it_changes_nothing(start_runtime: Make, run_workflow: Make) -> None:
    kept: list[Any] = []

    @handler("keeper")
    async def keeper(_config: dict[str, Any], _context: NodeContext) -> Any:
        result: dict[str, list[Any]] = {"list": [1]}
        asyncio.get_running_loop().call_soon(result["list"].append, "late")
        kept.append(result)
        return result

    runtime = await start_runtime(handlers=[keeper, good])
    nodes = [{"id": "a", "handler": "keeper"}, {"id": "b", "handler": "good", "dependencies": ["a"]}]
    ended = await run_workflow(runtime, nodes)
    assert kept == [{"list": [1, "late"]}]
    assert ended.output["inputs"] == {"a": {"list": [1]}}


secret: contextvars.ContextVar[str] = contextvars.ContextVar("secret", default="nothing")


async def test_a_context_variable_is_not_seen_by_the_next_attempt(
    start_runtime: Make, run_workflow: Make, still_works: Make
) -> None:
    seen: list[str] = []

    @handler("leaky")
    async def leaky(config: dict[str, Any], context: NodeContext) -> Any:
        seen.append(secret.get())
        secret.set(f"{context.node_id} {context.attempt}")
        await asyncio.sleep(0)
        if context.attempt == 1:
            raise OSError("again")

    runtime = await start_runtime(handlers=[leaky, good], worker_concurrency=1)
    nodes = [{"id": name, "handler": "leaky", "retry_config": QUICK_RETRY} for name in ("a", "b", "c")]
    assert (await run_workflow(runtime, nodes)).state == "COMPLETED"
    assert seen == ["nothing"] * 6
    assert secret.get() == "nothing"
    await still_works(runtime)


class Incomparable:
    """A value that cannot be compared."""

    def __eq__(self, other: object) -> bool:
        raise Impolite("not comparable")

    __hash__ = None  # type: ignore[assignment]


async def test_a_context_variable_that_cannot_be_compared_is_no_harm(
    start_runtime: Make, run_workflow: Make, still_works: Make, caplog: pytest.LogCaptureFixture
) -> None:
    odd: contextvars.ContextVar[Any] = contextvars.ContextVar("odd")
    odd.set(Incomparable())

    @handler("odd")
    async def set_odd(_config: dict[str, Any], _context: NodeContext) -> Any:
        odd.set(Incomparable())
        return "done"

    runtime = await start_runtime(handlers=[set_odd, good], worker_concurrency=1)
    for _ in range(3):
        assert (await run_workflow(runtime, [{"id": "a", "handler": "odd"}])).output == "done"
    await still_works(runtime)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_tasks_that_a_handler_leaves_behind_do_no_harm(run_bad: Make) -> None:
    left: list[asyncio.Task[None]] = []

    async def forget() -> None:
        await asyncio.Event().wait()

    @handler("bad")
    async def bad(_config: dict[str, Any], _context: NodeContext) -> Any:
        left.append(asyncio.create_task(forget()))
        return "done"

    ended = await run_bad(bad)
    assert ended.output == "done"
    assert [task.done() for task in left] == [False]
    left[0].cancel()
