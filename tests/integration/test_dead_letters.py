"""Dead letters in whole runtimes: what FAILED goes on from where it failed, once somebody says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from audit import broken_invariants
from fragile import FRAGILE, Fragile

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime import dead_letters
from workflow_engine.runtime.core.graph import compile_graph
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.errors import (
    DeadLetterNotFound,
    ExecutionConflict,
    ExecutionNotFound,
    NotAccepting,
    StoreUnavailable,
)
from workflow_engine.runtime.parts import node_defaults
from workflow_engine.runtime.ports import DeadLetterFilter, ExecutionFilter, IdempotencyClaim
from workflow_engine.runtime.process import Runtime

StartRuntime = Callable[..., Awaitable[Runtime]]
EndOf = Callable[[Runtime, str], Awaitable[Any]]

ALL = DeadLetterFilter()
COMPLETED, FAILED = WorkflowState.COMPLETED, WorkflowState.FAILED


@handler("raise")
async def raises(config: dict[str, Any], _context: NodeContext) -> None:
    """Fail in the way that the config says."""
    if config["how"] == "hang":
        await asyncio.Event().wait()
    raise {"value": ValueError, "os": OSError}[config["how"]]("it went wrong")


@pytest.fixture
async def fragile() -> Fragile:
    """The handlers of this test's runtime."""
    return Fragile()


@pytest.fixture
async def runtime(start_runtime: StartRuntime, fragile: Fragile) -> Runtime:
    """A runtime whose definition `fragile` fails until it is mended."""
    runtime = await start_runtime(handlers=fragile.handlers)
    await runtime.engine.define(FRAGILE)
    return runtime


@pytest.fixture
def fail(runtime: Runtime, end_of: EndOf) -> Callable[[int], Awaitable[list[str]]]:
    """`await fail(3)`: so many dead letters, the newest first."""

    async def make(count: int) -> list[str]:
        started = [(await runtime.engine.start("fragile")).execution_id for _ in range(count)]
        for execution_id in started:
            assert (await end_of(runtime, execution_id)).state is FAILED
        return started[::-1]

    return make


async def listed(runtime: Runtime, wanted: DeadLetterFilter = ALL) -> list[str]:
    found = await runtime.engine.dead_letters.list(wanted, before=None, limit=1_000)
    return [each.execution_id for each in found]


@pytest.fixture
def start_on(start_runtime: StartRuntime, start_postgres_runtime: StartRuntime) -> dict[str, StartRuntime]:
    """By backend, what starts a runtime on it."""
    return {"embedded": start_runtime, "postgres": start_postgres_runtime}


@pytest.mark.parametrize("backend", ["embedded", "postgres"])
async def test_what_was_completed_does_not_run_again(
    start_on: dict[str, StartRuntime], fragile: Fragile, end_of: EndOf, backend: str
) -> None:
    runtime: Runtime = await start_on[backend](handlers=fragile.handlers)
    await runtime.engine.define(FRAGILE)
    failed = await end_of(runtime, (await runtime.engine.start("fragile", {"n": 1})).execution_id)
    assert (failed.state, failed.error["type"]) == (FAILED, "fragile_thing")
    assert await listed(runtime) == [failed.execution_id]

    fragile.mended = True
    requeued = await end_of(runtime, await runtime.engine.dead_letters.requeue(failed.execution_id))
    assert (requeued.state, requeued.output) == (COMPLETED, {"first": "first", "thing": {"n": 1}})
    assert fragile.attempted(requeued.execution_id) == {"thing": 1}
    assert await listed(runtime) == []
    assert (await runtime.engine.status(requeued.execution_id)).retry_of == failed.execution_id
    assert (await runtime.engine.status(failed.execution_id)).state is FAILED
    graph = compile_graph(FRAGILE, node_defaults(runtime.settings))
    for loaded in await runtime.store.load([failed.execution_id, requeued.execution_id]):
        assert broken_invariants(loaded, graph) == []


async def test_what_is_requeued_outlives_the_process(
    start_runtime: StartRuntime, stop_runtime: Any, fragile: Fragile, end_of: EndOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wake-up is lost with the process: the next one finds it."""
    runtime = await start_runtime(handlers=fragile.handlers)
    await runtime.engine.define(FRAGILE)
    letter = await end_of(runtime, (await runtime.engine.start("fragile")).execution_id)
    monkeypatch.setattr(runtime.transport, "wake", lambda _execution_id: None)
    requeued = await runtime.engine.dead_letters.requeue(letter.execution_id)
    await stop_runtime(runtime)
    fragile.mended = True

    ended = await end_of(await start_runtime(handlers=fragile.handlers), requeued)
    assert ended.state is COMPLETED
    assert fragile.attempted(requeued) == {"thing": 1}


@pytest.mark.parametrize(
    ("node", "error_type", "attempts"),
    [
        ({"handler": "raise", "config": {"how": "value"}}, "ValueError", 1),
        ({"handler": "raise", "config": {"how": "os"}, "retry_config": {"initial_delay": 0}}, "OSError", 4),
        (
            {
                "handler": "raise",
                "config": {"how": "hang"},
                "timeout_seconds": 0.01,
                "retry_config": {"max_retries": 0},
            },
            "timeout",
            1,
        ),
        ({"handler": "output", "config": {"key": "{{ input.missing }}"}}, "template_failed", 1),
    ],
    ids=["refused", "retries used up", "too slow", "a template"],
)
async def test_whatever_the_failure_it_is_a_dead_letter(
    start_runtime: StartRuntime, run_workflow: Any, node: dict[str, Any], error_type: str, attempts: int
) -> None:
    runtime = await start_runtime(handlers=[raises])
    failed = await run_workflow(runtime, [{"id": "a", **node}])
    assert failed.error["type"] == error_type
    assert await listed(runtime, DeadLetterFilter(error_type=error_type)) == [failed.execution_id]
    letter = await runtime.engine.dead_letters.read(failed.execution_id, below=None, limit=10)
    assert [row.attempt for row in letter.attempts] == [*range(attempts, 0, -1)]


async def test_a_letter_is_requeued_once(runtime: Runtime, fail: Any) -> None:
    [letter] = await fail(1)
    asked = [runtime.engine.dead_letters.requeue(letter) for _ in range(10)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    [requeued] = [each for each in answers if isinstance(each, str)]
    conflicts = [str(each) for each in answers if isinstance(each, ExecutionConflict)]
    assert conflicts == [f"execution {letter} was requeued as {requeued}"] * 9
    with pytest.raises(DeadLetterNotFound, match=f"was requeued as {requeued}$"):
        await runtime.engine.dead_letters.read(letter, below=None, limit=1)
    with pytest.raises(ExecutionConflict, match=f"was requeued as {requeued}$"):
        await runtime.engine.dead_letters.discard(letter)


async def test_a_requeue_under_a_key_is_answered_the_same_again(runtime: Runtime, fail: Any) -> None:
    [letter] = await fail(1)
    claim = IdempotencyClaim("key", "asked", runtime.clock.now())
    answers = {await runtime.engine.dead_letters.requeue(letter, claim) for _ in range(3)}
    assert len(answers) == 1


async def test_a_discarded_letter_may_be_discarded_again_and_not_requeued(runtime: Runtime, fail: Any) -> None:
    [letter] = await fail(1)
    for _ in range(2):
        await runtime.engine.dead_letters.discard(letter)
    assert await listed(runtime) == []
    with pytest.raises(ExecutionConflict, match="was discarded"):
        await runtime.engine.dead_letters.requeue(letter)
    with pytest.raises(DeadLetterNotFound, match="was discarded"):
        await runtime.engine.dead_letters.read(letter, below=None, limit=1)
    status = await runtime.engine.status(letter)
    assert (status.state, status.error and status.error["type"]) == (FAILED, "fragile_thing")


async def test_what_has_not_failed_is_no_letter(runtime: Runtime, end_of: EndOf) -> None:
    submitted = (await runtime.engine.submit(FRAGILE)).execution_id
    letters = runtime.engine.dead_letters
    for refused in (letters.requeue(submitted), letters.discard(submitted)):
        with pytest.raises(ExecutionConflict, match="is PENDING, not FAILED"):
            await refused
    for unknown in (letters.requeue("x"), letters.discard("x"), letters.read("x", below=None, limit=1)):
        with pytest.raises(ExecutionNotFound):
            await unknown


async def test_one_that_fails_while_it_is_asked_for_is_told_to_try_again(
    runtime: Runtime, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    [letter] = await fail(1)

    async def too_early(*_arguments: Any) -> None:
        return None

    monkeypatch.setattr(runtime.store, "requeue", too_early)
    with pytest.raises(ExecutionConflict, match="has FAILED only just now; try again"):
        await runtime.engine.dead_letters.requeue(letter)


async def test_many_are_requeued_newest_first_and_what_fails_again_is_not_met_again(
    runtime: Runtime, fail: Any, end_of: EndOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "REQUEUE_BATCH", 2)
    letters = await fail(7)
    engine = runtime.engine
    assert await engine.dead_letters.requeue_many(DeadLetterFilter("nobody"), before=None, limit=5) == (0, None)
    first = await engine.dead_letters.requeue_many(ALL, before=None, limit=5)
    assert first == (5, letters[4])
    retries = [each for each in await engine.list_executions(ExecutionFilter(), before=None, limit=50) if each.retry_of]
    assert {each.retry_of for each in retries} == {*letters[:5]}
    for retry in retries:
        assert (await end_of(runtime, retry.execution_id)).state is FAILED

    assert await engine.dead_letters.requeue_many(ALL, before=first.go_on_behind, limit=5) == (2, None)
    again = [each for each in await engine.list_executions(ExecutionFilter(), before=None, limit=50) if each.retry_of]
    assert {each.retry_of for each in again} == {*letters}


async def test_many_are_discarded_as_the_filter_says(
    runtime: Runtime, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "DISCARD_BATCH", 2)
    letters = await fail(5)
    engine = runtime.engine
    other = DeadLetterFilter(error_type="fragile")
    assert await engine.dead_letters.discard_many(other, before=None, limit=5) == (0, None)
    wanted = DeadLetterFilter("fragile", "fragile_thing")
    assert await engine.dead_letters.discard_many(wanted, before=None, limit=4) == (4, letters[3])
    assert await listed(runtime) == [letters[4]]
    assert await engine.dead_letters.discard_many(wanted, before=letters[3], limit=1) == (1, None)
    assert await listed(runtime) == []


async def test_what_somebody_else_has_dealt_with_is_not_counted(
    runtime: Runtime, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = await fail(3)
    store, lists = runtime.store, runtime.store.list_dead_letters

    async def list_and_discard_one(*arguments: Any) -> Any:
        found = await lists(*arguments)
        await store.discard(letters[1])
        return found

    monkeypatch.setattr(store, "list_dead_letters", list_and_discard_one)
    assert await runtime.engine.dead_letters.requeue_many(ALL, before=None, limit=10) == (2, None)


async def test_a_store_that_fails_in_between_leaves_the_rest_to_the_next_request(
    runtime: Runtime, fail: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = await fail(3)
    store, discard = runtime.store, runtime.store.discard

    async def broken(execution_id: str) -> bool:
        if execution_id == letters[1]:
            raise StoreUnavailable("the disk is full")
        return await discard(execution_id)

    with monkeypatch.context() as patch:
        patch.setattr(store, "discard", broken)
        with pytest.raises(StoreUnavailable):
            await runtime.engine.dead_letters.discard_many(ALL, before=None, limit=10)
    assert await runtime.engine.dead_letters.discard_many(ALL, before=None, limit=10) == (1, None)


async def test_a_runtime_that_shuts_down_deals_with_none(runtime: Runtime, fail: Any) -> None:
    [letter] = await fail(1)
    runtime.engine.stop_accepting()
    letters = runtime.engine.dead_letters
    for refused in (
        letters.requeue(letter),
        letters.discard(letter),
        letters.requeue_many(ALL, before=None, limit=1),
        letters.discard_many(ALL, before=None, limit=1),
    ):
        with pytest.raises(NotAccepting):
            await refused
    assert await listed(runtime) == [letter]


async def test_a_large_execution_goes_on(start_runtime: StartRuntime, fragile: Fragile, end_of: EndOf) -> None:
    """Two thousand nodes completed, one failed: one statement copies them, and the rest runs."""
    nodes = [{"id": f"n{number}", "handler": "step"} for number in range(2_000)]
    nodes += [{"id": "thing", "handler": "fragile", "dependencies": [each["id"] for each in nodes]}]
    runtime = await start_runtime(handlers=fragile.handlers)
    await runtime.engine.define({"name": "large", "dag": {"nodes": nodes}})
    failed = await end_of(runtime, (await runtime.engine.start("large")).execution_id)
    assert failed.state is FAILED

    fragile.mended = True
    requeued = await end_of(runtime, await runtime.engine.dead_letters.requeue(failed.execution_id))
    assert requeued.state is COMPLETED
    assert fragile.attempted(requeued.execution_id) == {"thing": 1}
    assert len(requeued.attempts) == 2_001
