"""The verified scenarios of the specification, on the whole runtime: a chain, fan-out and fan-in, races at a join."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.process import Runtime

Make = Callable[..., Awaitable[Any]]

DIAMOND: list[dict[str, Any]] = [
    {"id": "a", "handler": "input"},
    {"id": "b", "handler": "step", "dependencies": ["a"]},
    {"id": "c", "handler": "step", "dependencies": ["a"]},
    {"id": "d", "handler": "step", "dependencies": ["b", "c"]},
]


@handler("step")
async def step(_config: dict[str, Any], context: NodeContext) -> Any:
    """Return the node's id and what it was given."""
    return {"node": context.node_id, "inputs": dict(context.inputs)}


@handler("add")
async def add(config: dict[str, Any], _context: NodeContext) -> Any:
    """Add two numbers of the configuration."""
    return {"sum": config["left"] + config["right"]}


async def test_scenario_a_a_chain_runs_in_order_and_data_flows_through(start_runtime: Make, run_workflow: Make) -> None:
    runtime = await start_runtime(handlers=[add, step])
    ended = await run_workflow(
        runtime,
        [
            {"id": "a", "handler": "add", "config": {"left": "{{ input.start }}", "right": 1}},
            {
                "id": "b",
                "handler": "add",
                "dependencies": ["a"],
                "config": {"left": "{{ a.output.sum }}", "right": "{{ input.start }}"},
            },
            {"id": "c", "handler": "step", "dependencies": ["b"]},
        ],
        {"start": 20},
    )
    assert (ended.state, ended.error) == ("COMPLETED", None)
    assert ended.output == {"node": "c", "inputs": {"b": {"sum": 41}}}
    assert ended.summary == [("a", 1, "COMPLETED"), ("b", 1, "COMPLETED"), ("c", 1, "COMPLETED")]
    ends = {row.node_id: (row.started_at, row.finished_at) for row in ended.attempts}
    assert ends["a"][1] <= ends["b"][0] <= ends["b"][1] <= ends["c"][0]


@pytest.fixture
def dispatched(monkeypatch: pytest.MonkeyPatch) -> Callable[[Runtime], list[set[str]]]:
    """`dispatched(runtime)`: a list that gets the nodes of each batch that the owner hands to the pool."""

    def record(runtime: Runtime) -> list[set[str]]:
        batches: list[set[str]] = []
        dispatch = runtime.pool.dispatch

        def recording(ready: Iterable[Any]) -> Any:
            ready = list(ready)
            batches.append({execution.graph.node_ids[node] for execution, node in ready})
            return dispatch(ready)

        monkeypatch.setattr(runtime.pool, "dispatch", recording)
        return batches

    return record


async def test_scenario_b_branches_start_in_one_batch_and_the_join_gets_both_outputs(
    start_runtime: Make, run_workflow: Make, dispatched: Callable[[Runtime], list[set[str]]]
) -> None:
    runtime = await start_runtime(handlers=[step])
    batches = dispatched(runtime)
    ended = await run_workflow(runtime, DIAMOND, {"user": 1})
    assert ended.state == "COMPLETED"
    assert batches == [{"a"}, {"b", "c"}, {"d"}]
    branches = {name: {"node": name, "inputs": {"a": {"user": 1}}} for name in ("b", "c")}
    assert ended.output == {"node": "d", "inputs": branches}
    assert list(ended.output["inputs"]) == ["b", "c"], "in the order of the dependencies"


async def test_scenario_b_branches_run_at_the_same_time(start_runtime: Make, run_workflow: Make) -> None:
    both_run = asyncio.Barrier(2)

    @handler("meet")
    async def meet(_config: dict[str, Any], _context: NodeContext) -> Any:
        return await both_run.wait() in (0, 1)

    runtime = await start_runtime(handlers=[meet, step])
    nodes = [{**node, "handler": "meet"} if node["id"] in ("b", "c") else node for node in DIAMOND]
    ended = await run_workflow(runtime, nodes)
    assert ended.state == "COMPLETED", "each branch waits until the other one runs"
    assert ended.output["inputs"] == {"b": True, "c": True}


async def test_scenario_b_the_join_waits_for_the_slower_branch(
    start_runtime: Make, start_workflow: Make, end_of: Make
) -> None:
    slow, joined = asyncio.Event(), asyncio.Event()

    @handler("slow")
    async def wait(_config: dict[str, Any], _context: NodeContext) -> Any:
        return await slow.wait()

    @handler("join")
    async def join(_config: dict[str, Any], context: NodeContext) -> Any:
        joined.set()
        return dict(context.inputs)

    runtime = await start_runtime(handlers=[step, wait, join])
    execution_id = await start_workflow(
        runtime,
        [
            {"id": "fast", "handler": "step"},
            {"id": "slow", "handler": "slow"},
            {"id": "join", "handler": "join", "dependencies": ["fast", "slow"]},
        ],
    )
    with runtime.transport.follow(execution_id) as follower:
        status = await runtime.engine.status(execution_id)
        while status.node_states["fast"] != "COMPLETED" or status.node_states["slow"] != "RUNNING":
            await follower.changed(60)
            status = await runtime.engine.status(execution_id)
    assert status.node_states["join"] == "PENDING"
    assert not joined.is_set()
    slow.set()
    ended = await end_of(runtime, execution_id)
    assert joined.is_set()
    assert ended.output == {"fast": {"node": "fast", "inputs": {}}, "slow": True}


@pytest.mark.parametrize("concurrency", [3, 50])
async def test_scenario_c_a_join_runs_exactly_once_however_its_branches_race(
    start_runtime: Make, end_of: Make, concurrency: int
) -> None:
    executions, width = 2_000, 4
    rng = random.Random(concurrency)
    joins: Counter[str] = Counter()
    branches: Counter[tuple[str, str]] = Counter()

    @handler("branch")
    async def branch(_config: dict[str, Any], context: NodeContext) -> Any:
        branches[context.execution_id, context.node_id] += 1
        for _ in range(rng.randrange(6)):
            await asyncio.sleep(0)
        return context.node_id

    @handler("join")
    async def join(_config: dict[str, Any], context: NodeContext) -> Any:
        joins[context.execution_id] += 1
        return list(context.inputs.values())

    runtime = await start_runtime(handlers=[branch, join], worker_concurrency=concurrency)
    names = [f"branch_{number}" for number in range(width)]
    nodes = [{"id": name, "handler": "branch"} for name in names]
    document = {"name": "race", "dag": {"nodes": [*nodes, {"id": "join", "handler": "join", "dependencies": names}]}}

    async def one() -> str:
        submitted = await runtime.engine.submit(document)
        return str(await runtime.engine.trigger(submitted.execution_id))

    execution_ids = await asyncio.gather(*(one() for _ in range(executions)))
    ended = [await end_of(runtime, execution_id) for execution_id in execution_ids]
    assert {each.state for each in ended} == {"COMPLETED"}
    assert joins == Counter(execution_ids), "each join ran exactly once"
    assert set(branches.values()) == {1}
    assert all(each.output == names for each in ended)
    assert all(len(each.attempts) == width + 1 and each.attempts[-1].node_id == "join" for each in ended)
    assert all([row.sequence for row in each.attempts] == list(range(1, width + 2)) for each in ended)
