"""Compiled definitions: indexes, edges both ways, policies with their levels, and graphs of any length."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.core.graph import Graph, NodeDefaults, compile_graph
from workflow_engine.runtime.core.retry import RetryPolicy

DEFAULT_POLICY = RetryPolicy(
    max_retries=7, initial_delay_seconds=0.25, max_delay_seconds=9, exponential_base=3, jitter=True
)
DEFAULTS = NodeDefaults(DEFAULT_POLICY, lambda handler: {"slow": 600.0}.get(handler, 30.0))


def node(node_id: str, *dependencies: str, **more: Any) -> dict[str, Any]:
    return {"id": node_id, "handler": "noop", "dependencies": list(dependencies), **more}


def compiled(*nodes: dict[str, Any], **more: Any) -> Graph:
    return compile_graph({"name": "test", "dag": {"nodes": list(nodes)}, **more}, DEFAULTS)


def names(graph: Graph, indexes: tuple[int, ...]) -> list[str]:
    return [graph.node_ids[index] for index in indexes]


@contextmanager
def little_stack(frames: int = 40) -> Iterator[None]:
    """Only so many more frames: what recurses once per node fails."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def test_diamond() -> None:
    graph = compiled(node("end", "left", "right"), node("left", "start"), node("right", "start"), node("start"))
    assert graph.name == "test"
    assert graph.size == 4
    assert graph.node_ids == ("end", "left", "right", "start")
    assert graph.index_of == {"end": 0, "left": 1, "right": 2, "start": 3}
    assert graph.dependencies == ((1, 2), (3,), (3,), ())
    assert graph.dependents == ((), (0,), (0,), (1, 2))
    assert (graph.roots, graph.exits) == ((3,), (0,))


def test_several_roots_and_exits_and_a_node_alone() -> None:
    graph = compiled(node("a"), node("b"), node("c", "a", "b"), node("d", "b"), node("alone"))
    assert names(graph, graph.roots) == ["a", "b", "alone"]
    assert names(graph, graph.exits) == ["c", "d", "alone"]


def test_what_may_be_left_out() -> None:
    graph = compile_graph({"name": "x", "dag": {"nodes": [{"id": "a", "handler": "noop"}]}}, DEFAULTS)
    assert graph.dependencies == graph.dependents == ((),)
    assert graph.retry_policies == (DEFAULT_POLICY,)
    assert graph.timeouts_seconds == (30.0,)
    assert graph.input_schema is None
    assert graph.configs[0].references == ()
    nulls = compiled(node("a", config=None, retry_config=None, timeout_seconds=None), default_retry_config=None)
    assert (nulls.retry_policies, nulls.timeouts_seconds) == (graph.retry_policies, graph.timeouts_seconds)


def test_the_input_schema_is_kept() -> None:
    schema = {"type": "object"}
    assert compiled(node("a"), input_schema=schema).input_schema == schema


# --- policies and timeouts ------------------------------------------------------------------------


def policy(default_retry_config: Mapping[str, Any] | None, retry_config: Mapping[str, Any] | None) -> RetryPolicy:
    graph = compiled(node("a", retry_config=retry_config), default_retry_config=default_retry_config)
    return graph.retry_policies[0]


def test_a_node_comes_before_its_workflow_and_that_before_the_engine() -> None:
    workflow = {"max_retries": 2, "initial_delay": 1, "jitter": False}
    own = {"max_retries": 5, "max_delay": 20}
    assert policy(None, None) == DEFAULT_POLICY
    assert policy(workflow, None) == RetryPolicy(2, 1.0, 9.0, 3.0, False)
    assert policy(None, own) == RetryPolicy(5, 0.25, 20.0, 3.0, True)
    assert policy(workflow, own) == RetryPolicy(5, 1.0, 20.0, 3.0, False)


def test_nothing_is_something_that_was_given() -> None:
    """Zero and false are values, null is not."""
    given_values = {"max_retries": 0, "initial_delay": 0, "max_delay": 0, "jitter": False}
    assert policy(None, given_values) == RetryPolicy(0, 0.0, 0.0, 3.0, False)
    assert policy(given_values, dict.fromkeys(given_values)) == RetryPolicy(0, 0.0, 0.0, 3.0, False)
    assert policy(given_values, {}) == RetryPolicy(0, 0.0, 0.0, 3.0, False)


def test_numbers_of_a_policy_are_of_their_types() -> None:
    chosen = policy(None, {"max_retries": 1, "initial_delay": 1, "max_delay": 2, "exponential_base": 3})
    assert [
        type(value) for value in (chosen.initial_delay_seconds, chosen.max_delay_seconds, chosen.exponential_base)
    ] == [float] * 3
    assert type(chosen.max_retries) is int


def test_timeouts() -> None:
    graph = compiled(
        node("a"),
        node("b", timeout_seconds=5),
        node("c", handler="slow"),
        node("d", handler="slow", timeout_seconds=0.5),
    )
    assert graph.handlers == ("noop", "noop", "slow", "slow")
    assert graph.timeouts_seconds == (30.0, 5.0, 600.0, 0.5)
    assert all(type(timeout) is float for timeout in graph.timeouts_seconds)


# --- configurations -------------------------------------------------------------------------------


class Scope:
    """Parameters and outputs that are their own names."""

    def parameters(self) -> Mapping[str, Any]:
        return {"x": "parameter x"}

    def has_output(self, node_id: str) -> bool:
        return False

    def output(self, node_id: str) -> Any:
        return f"output of {node_id}"


def test_configurations_are_compiled_with_places_below_config() -> None:
    graph = compiled(node("a"), node("b", "a", config={"v": ["{{ a.output }}", "{{ input.x }}"]}))
    assert graph.configs[1].renderer.render(Scope()) == {"v": ["output of a", "parameter x"]}
    assert [place for place, _ in graph.configs[1].references] == ["config.v[0]", "config.v[1]"]
    assert graph.configs[0].renderer.render(Scope()) == {}


def test_only_descendants_of_a_node_called_input_see_its_output() -> None:
    graph = compiled(node("a"), node("input", "a"), node("b", "input"), node("c", "b", "a"), node("d", "a"))
    assert {graph.node_ids[index] for index in range(5) if graph.descends_from_input_node(index)} == {"b", "c"}
    assert compiled(node("a"), node("b", "a")).below_input_node == frozenset()


# --- any graph ------------------------------------------------------------------------------------


@given(
    st.integers(1, 15).flatmap(
        lambda size: st.tuples(
            st.lists(st.sets(st.integers(0, size - 1)), min_size=size, max_size=size), st.permutations(range(size))
        )
    )
)
def test_edges_are_the_same_both_ways(drawn: tuple[list[set[int]], list[int]]) -> None:
    edges, order = drawn
    needed = {number: {before for before in edges[number] if before < number} for number in order}
    graph = compiled(*(node(f"n{number}", *(f"n{before}" for before in needed[number])) for number in order))
    for index, node_id in enumerate(graph.node_ids):
        assert graph.index_of[node_id] == index
        assert {int(name[1:]) for name in names(graph, graph.dependencies[index])} == needed[int(node_id[1:])]
        assert all(index in graph.dependencies[after] for after in graph.dependents[index])
        assert (index in graph.roots) is (not graph.dependencies[index])
        assert (index in graph.exits) is (not graph.dependents[index])
    assert sum(map(len, graph.dependencies)) == sum(map(len, graph.dependents))


def chain(size: int) -> list[dict[str, Any]]:
    nodes = [node(f"n{number}", *([f"n{number - 1}"] if number else [])) for number in range(size)]
    nodes[0]["id"] = "input"
    nodes[1]["dependencies"] = ["input"]
    return nodes


def fan(size: int) -> list[dict[str, Any]]:
    middle = [f"n{number}" for number in range(size - 2)]
    return [node("input"), *(node(name, "input") for name in middle), node("end", *middle)]


def ladder(size: int) -> list[dict[str, Any]]:
    nodes = [node("input"), node("b0", "input")]
    for number in range(1, size // 2):
        above = ("input" if number == 1 else f"a{number - 1}", f"b{number - 1}")
        nodes += [node(f"a{number}", *above), node(f"b{number}", *above)]
    return nodes


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("size", [10_000, 20_000])
@pytest.mark.parametrize(
    ("make", "edges"),
    [(chain, lambda size: size - 1), (fan, lambda size: 2 * (size - 2)), (ladder, lambda size: 2 * size - 3)],
    ids=["chain", "fan", "ladder"],
)
def test_large_graphs_compile_without_recursion(make: Any, edges: Any, size: int, backwards: bool) -> None:
    nodes = make(size)
    with little_stack():
        graph = compiled(*(reversed(nodes) if backwards else nodes))
    assert graph.size == size
    assert sum(map(len, graph.dependents)) == edges(size)
    assert names(graph, graph.roots) == ["input"]
    assert len(graph.below_input_node) == size - 1
