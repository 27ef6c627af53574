"""The engine's door within the process: what is not asked for over HTTP alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.clock import SystemClock, uuid7_milliseconds
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.errors import (
    DefinitionNotFound,
    ExecutionNotFound,
    IdempotencyConflict,
    InvalidDefinition,
    InvalidInput,
    NotAccepting,
    StoreUnavailable,
)
from workflow_engine.runtime.orchestrator.retention import BATCH, DAY_MILLISECONDS, HOUR_MILLISECONDS, Retention
from workflow_engine.runtime.ports import ExecutionFilter, IdempotencyClaim
from workflow_engine.runtime.process import Runtime

StartRuntime = Callable[..., Awaitable[Runtime]]
ALL = ExecutionFilter()


def document(name: str = "flow", *, wait: bool = False, **more: Any) -> dict[str, Any]:
    return {"name": name, "dag": {"nodes": [{"id": "a", "handler": "forever" if wait else "input"}]}, **more}


@handler("forever")
async def forever(_config: dict[str, Any], _context: NodeContext) -> None:
    await asyncio.Event().wait()


class ClockAhead(SystemClock):
    """The real clock, set ahead as far as a test says."""

    ahead_milliseconds = 0

    def now(self) -> int:
        return super().now() + self.ahead_milliseconds


async def test_a_definition_is_stored_without_an_execution_and_started_by_name(
    start_runtime: StartRuntime, end_of: Callable[..., Awaitable[Any]]
) -> None:
    engine = (runtime := await start_runtime()).engine
    defined, new = await engine.define(document())
    assert new
    assert await engine.list_executions(ALL, before=None, limit=10) == []

    started = await engine.start("flow", {"n": 1})
    ended = await end_of(runtime, started.execution_id)

    assert (started.definition_id, ended.state, ended.output) == (defined.definition_id, "COMPLETED", {"n": 1})
    [listed] = await engine.list_executions(ALL, before=None, limit=10)
    assert (listed.execution_id, listed.name, listed.version) == (started.execution_id, "flow", 1)
    assert listed.created_at == uuid7_milliseconds(started.execution_id)


async def test_the_latest_version_is_started_unless_one_is_named(start_runtime: StartRuntime) -> None:
    engine = (await start_runtime()).engine
    first, _ = await engine.define(document())
    second, _ = await engine.define(document(description="changed"))
    assert (first.version, second.version) == (1, 2)
    assert await engine.define(document()) == (first, False)

    assert (await engine.start("flow")).definition_id == second.definition_id
    assert (await engine.start("flow", version=1)).definition_id == first.definition_id
    assert (await engine.definitions.read("flow", 1)).definition_id == first.definition_id
    assert await engine.definitions.versions("flow", below=None, limit=10) == [second, first]
    assert await engine.definitions.list(after=None, limit=10) == [second]


@pytest.mark.parametrize(("name", "version"), [("unknown", None), ("flow", 2), ("flow", 0)])
async def test_what_does_not_exist_is_not_started(start_runtime: StartRuntime, name: str, version: int | None) -> None:
    engine = (await start_runtime()).engine
    await engine.define(document())

    with pytest.raises(DefinitionNotFound, match=name):
        await engine.start(name, version=version)
    with pytest.raises(DefinitionNotFound):
        await engine.definitions.read(name, version)
    with pytest.raises(DefinitionNotFound):
        await engine.definitions.versions("unknown", below=None, limit=1)


async def test_a_start_checks_its_input_and_stores_nothing_when_it_is_bad(start_runtime: StartRuntime) -> None:
    engine = (await start_runtime()).engine
    await engine.define(document(input_schema={"type": "object", "required": ["n"]}))

    for parameters in (None, {}, [], {"n": float("nan")}):
        with pytest.raises(InvalidInput):
            await engine.start("flow", parameters)
    assert await engine.list_executions(ALL, before=None, limit=10) == []


async def test_a_bad_definition_is_refused_with_its_problems(start_runtime: StartRuntime) -> None:
    engine = (await start_runtime()).engine
    bad = {"name": "flow", "dag": {"nodes": [{"id": "a", "handler": "inptu"}]}}

    with pytest.raises(InvalidDefinition) as refused:
        await engine.define(bad)
    assert list(refused.value.problems) == list(await engine.definitions.problems(bad))
    assert [problem.path for problem in refused.value.problems] == ["dag.nodes[0].handler"]
    assert await engine.definitions.problems(document()) == ()


async def test_each_claimed_write_happens_once_whatever_it_is(start_runtime: StartRuntime) -> None:
    engine = (await start_runtime()).engine
    claims = [IdempotencyClaim(f"key {number}", "asked", SystemClock().now()) for number in range(3)]
    first = await engine.submit(document(), claims[0])
    assert await engine.submit(document(), claims[0]) == first
    triggered = await engine.trigger(first.execution_id, {"n": 1}, claims[1])
    assert await engine.trigger(first.execution_id, {"n": 1}, claims[1]) == triggered == first.execution_id
    started = await engine.start("flow", claim=claims[2])
    assert await engine.start("flow", claim=claims[2]) == started
    with pytest.raises(IdempotencyConflict):
        await engine.start("flow", claim=claims[2]._replace(fingerprint="asked otherwise"))

    listed = await engine.list_executions(ALL, before=None, limit=10)
    assert [each.execution_id for each in listed] == [started.execution_id, first.execution_id]


async def test_a_claimed_trigger_that_starts_anew_does_so_once(
    start_runtime: StartRuntime, end_of: Callable[..., Awaitable[Any]]
) -> None:
    engine = (runtime := await start_runtime()).engine
    submitted = await engine.submit(document())
    await end_of(runtime, await engine.trigger(submitted.execution_id))
    claim = IdempotencyClaim("key", "asked", SystemClock().now())

    again = await asyncio.gather(*(engine.trigger(submitted.execution_id, None, claim) for _ in range(10)))
    assert len(set(again)) == 1
    assert submitted.execution_id not in again
    assert len(await engine.list_executions(ALL, before=None, limit=10)) == 2


async def test_cancelling_by_filter_takes_what_is_alive_and_meant_and_says_how_much_is_left(
    start_runtime: StartRuntime, end_of: Callable[..., Awaitable[Any]]
) -> None:
    engine = (runtime := await start_runtime(handlers=[forever])).engine
    ended = (await engine.submit(document("ended"))).execution_id
    await end_of(runtime, await engine.trigger(ended))
    pending = [(await engine.submit(document("flow", wait=True))).execution_id for _ in range(5)]
    running = [(await engine.start("flow")).execution_id for _ in range(3)]
    other = (await engine.submit(document("other"))).execution_id

    assert await engine.cancel_many(ExecutionFilter(name="ended"), 10) == (0, 0, False)
    assert await engine.cancel_many(ExecutionFilter(name="flow", states=frozenset({WorkflowState.FAILED})), 10) == (
        0,
        0,
        False,
    )
    assert await engine.cancel_many(ExecutionFilter(name="flow"), 4) == (1, 3, True)
    for execution_id in running:
        assert (await end_of(runtime, execution_id)).state is WorkflowState.CANCELLED
    assert await engine.cancel_many(ExecutionFilter(name="flow"), 10) == (4, 0, False)
    states = {each.execution_id: each.state for each in await engine.list_executions(ALL, before=None, limit=20)}
    assert {states[each] for each in pending} == {WorkflowState.CANCELLED}
    assert (states[other], states[ended]) == (WorkflowState.PENDING, WorkflowState.COMPLETED)


async def test_many_are_cancelled_in_several_batches(start_runtime: StartRuntime) -> None:
    engine = (await start_runtime()).engine
    await asyncio.gather(*(engine.submit(document()) for _ in range(450)))

    assert await engine.cancel_many(ALL, 10_000) == (450, 0, False)
    assert await engine.cancel_many(ALL, 10_000) == (0, 0, False)


async def test_a_runtime_that_shuts_down_takes_no_writes(start_runtime: StartRuntime) -> None:
    engine = (await start_runtime()).engine
    await engine.define(document())
    engine.stop_accepting()

    for refused in (engine.define(document()), engine.start("flow"), engine.cancel_many(ALL, 1)):
        with pytest.raises(NotAccepting):
            await refused
    assert not engine.accepting


async def test_what_has_been_kept_long_enough_is_deleted(
    start_runtime: StartRuntime, end_of: Callable[..., Awaitable[Any]]
) -> None:
    clock = ClockAhead()
    engine = (runtime := await start_runtime(clock=clock, retention_days=7, idempotency_key_hours=48)).engine
    claim = IdempotencyClaim("key", "asked", clock.now())
    submitted = await asyncio.gather(
        *(engine.submit(document()) for _ in range(BATCH + 50)), engine.submit(document(), claim)
    )
    old = [await end_of(runtime, await engine.trigger(each.execution_id)) for each in submitted[: BATCH + 10]]
    pending = [each.execution_id for each in submitted[BATCH + 10 :]]

    clock.ahead_milliseconds = 47 * HOUR_MILLISECONDS
    assert await runtime.retention.delete_old() == (0, 0)
    clock.ahead_milliseconds = 49 * HOUR_MILLISECONDS
    assert await runtime.retention.delete_old() == (0, 1)
    clock.ahead_milliseconds = 7 * DAY_MILLISECONDS - HOUR_MILLISECONDS
    assert await runtime.retention.delete_old() == (0, 0)
    clock.ahead_milliseconds = 7 * DAY_MILLISECONDS + HOUR_MILLISECONDS
    assert await runtime.retention.delete_old() == (BATCH + 10, 0)

    left = await engine.list_executions(ALL, before=None, limit=1_000)
    assert sorted(each.execution_id for each in left) == sorted(pending)
    with pytest.raises(ExecutionNotFound):
        await engine.trigger(old[0].execution_id)


async def test_by_default_executions_are_kept_for_ever(
    start_runtime: StartRuntime, end_of: Callable[..., Awaitable[Any]]
) -> None:
    clock = ClockAhead()
    engine = (runtime := await start_runtime(clock=clock)).engine
    await end_of(runtime, await engine.trigger((await engine.submit(document())).execution_id))
    clock.ahead_milliseconds = 36_500 * DAY_MILLISECONDS

    assert await runtime.retention.delete_old() == (0, 0)


async def test_retention_goes_on_after_a_store_that_was_away() -> None:
    looks: list[str] = []
    looked = asyncio.Event()

    class AwayTwice:
        async def delete_claims(self, created_before: int, limit: int) -> int:
            looks.append("look")
            if len(looks) == 1:
                raise StoreUnavailable("away")
            if len(looks) == 2:
                raise ValueError("nobody knows")
            looked.set()
            return 0

    store: Any = AwayTwice()
    retention = Retention(store=store, clock=SystemClock(), ended_days=0, claim_hours=1, interval_seconds=0)
    running = asyncio.ensure_future(retention.run())
    await asyncio.wait_for(looked.wait(), 60)
    running.cancel()
    assert len(looks) >= 3
