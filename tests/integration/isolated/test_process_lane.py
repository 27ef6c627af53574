"""The lane `process`: warm processes, and handlers that hurt nobody but themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from isolated import an_attempt, is_there, nothing

from workflow_engine.runtime.parts import build_process_lane
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.worker.isolated import Isolation

Make = Callable[..., Awaitable[Any]]

NO_RETRY = {"max_retries": 0}


def node(node_id: str, handler: str, what: str, **more: Any) -> dict[str, Any]:
    return {"id": node_id, "handler": handler, "config": {"what": what}, "retry_config": NO_RETRY, **more}


async def test_each_way_to_hurt_a_process_hurts_one_attempt(start_runtime: Make, run_workflow: Make) -> None:
    runtime = await start_runtime(worker_processes=2, worker_process_memory=200)
    expected = {
        "exit": ("SystemExit", "3"),
        "exit at once": ("process_died", "the process that ran it ended with exit code 3 before the handler returned"),
        "abort": ("process_died", "the process that ran it was ended by signal SIGABRT"),
        "take memory": ("MemoryError", "MemoryError"),
        "never end": ("timeout", "the attempt took longer than 0.3 seconds"),
        "a set": ("output_invalid", "the handler's result: $ is a set, which JSON cannot hold"),
    }
    nodes = [
        node(f"{handler}_{index}", handler, what, **({"timeout_seconds": 0.3} if what == "never end" else {}))
        for index, what in enumerate(expected)
        for handler in (("plain_deed", "async_deed") if what in ("exit", "never end") else ("plain_deed",))
    ]
    found = {}
    for each in nodes:
        ended = await run_workflow(runtime, [each])
        found[each["config"]["what"], each["handler"]] = ended.failures[0]["type"], ended.failures[0]["message"]

    assert found == {(what, handler): expected[what] for what, handler in found}
    assert len(found) == len(expected) + 2
    assert runtime.pool.lingering == []
    assert runtime.pool.running_count == 0


async def test_a_process_is_used_again_unless_something_leaks(start_runtime: Make, run_workflow: Make) -> None:
    runtime = await start_runtime(worker_processes=1)

    async def process_of(handler: str, what: str) -> int:
        return int((await run_workflow(runtime, [node("n", handler, what)])).output)

    first = await process_of("plain_deed", "nothing")
    assert await process_of("plain_deed", "fork") == first
    assert await process_of("async_deed", "leak") == first
    assert await process_of("plain_deed", "nothing") != first


async def test_an_object_is_opened_once_in_each_process(
    start_runtime: Make, run_workflow: Make, stop_runtime: Callable[[Runtime], Awaitable[None]], capfd: Any
) -> None:
    runtime = await start_runtime(worker_processes=1)
    nodes = [{"id": f"n{index}", "handler": "warm_process"} for index in range(3)]

    outputs = (await run_workflow(runtime, nodes)).output.values()

    assert len({process_id for process_id, _, _ in outputs}) == 1
    assert sorted(count for _, count, _ in outputs) == [1, 2, 3]
    assert {is_main_thread for _, _, is_main_thread in outputs} == {False}
    [process_id, _, _] = next(iter(outputs))
    await stop_runtime(runtime)
    assert not is_there(process_id)
    assert "closed in order" in capfd.readouterr().err


async def test_a_context_in_a_process_of_its_own(start_runtime: Make, run_workflow: Make, capfd: Any) -> None:
    runtime = await start_runtime(worker_processes=1)
    ended = await run_workflow(runtime, [{"id": "n", "handler": "all_of_a_context", "timeout_seconds": 60.0}])

    key = f"{ended.execution_id}/n/1"
    assert ended.output == [key, {}, True, False, ended.output[4]]
    assert ended.output[4].startswith("there is no secret 'key'")
    assert "workflow_engine.handlers.all_of_a_context: seen in a process" in capfd.readouterr().err


async def test_what_an_attempt_says_of_itself_comes_through(start_runtime: Make) -> None:
    runtime = await start_runtime()
    lane: Isolation = build_process_lane(runtime.settings)
    said: list[float | str] = []

    output, error = await lane.run(an_attempt("warm_process"), 1000, nothing, said.append)
    await lane.close()

    assert error is None
    assert output is not None
    assert said == ["attempt 1"]
