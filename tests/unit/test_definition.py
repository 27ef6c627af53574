"""Definitions: every rule, all problems at once with their paths, and work that grows with the size only."""

from __future__ import annotations

import copy
import difflib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflow_engine.runtime.core import limits
from workflow_engine.runtime.core.definition import ConfigCheck, validate_definition
from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.problem import Problem
from workflow_engine.runtime.core.retry import RetryPolicy

Fault = tuple[tuple[str | int, ...], str]


def accept(_config: Mapping[str, Any]) -> Sequence[Fault]:
    return ()


def check_http(config: Mapping[str, Any]) -> Sequence[Fault]:
    """A handler that wants a text `url`, and numbers in `limits.timeout` and in the list `codes`."""
    faults: list[Fault] = []
    if "url" not in config:
        faults.append((("url",), "is required; add it"))
    elif not isinstance(config["url"], str):
        faults.append((("url",), "must be text"))
    if not isinstance(config.get("limits", {}).get("timeout", 1), int):
        faults.append((("limits", "timeout"), "must be a number"))
    for index, code in enumerate(config.get("codes", [])):
        if not isinstance(code, int):
            faults.append((("codes", index), "must be a number"))
    faults += [((key,), "unknown key") for key in config if key not in ("url", "limits", "codes")]
    return faults


HANDLERS: Mapping[str, ConfigCheck] = {
    "noop": accept,
    "input": accept,
    "output": accept,
    "http": check_http,
    "call_external_service": accept,
    "llm_service": accept,
}
DEFAULTS = NodeDefaults(RetryPolicy(), lambda _handler: 60.0)


def node(node_id: str, *dependencies: str, handler: str = "noop", **more: Any) -> dict[str, Any]:
    return {"id": node_id, "handler": handler, "dependencies": list(dependencies), **more}


def definition(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "test", "dag": {"nodes": list(nodes)}, **more}


def problems_of(*nodes: dict[str, Any], **more: Any) -> list[Problem]:
    return validate_definition(definition(*nodes, **more), HANDLERS)


def only_problem(*nodes: dict[str, Any], **more: Any) -> Problem:
    (problem,) = problems_of(*nodes, **more)
    return problem


FULL = definition(
    node("input", handler="input"),
    node("get_user", "input", handler="http", config={"url": "http://api/{{ input.user_id }}", "codes": [200]}),
    node("get-posts", "input", handler="call_external_service", timeout_seconds=2.5),
    {
        "id": "analyze",
        "handler": "llm_service",
        "dependencies": ["get_user", "get-posts"],
        "config": {"prompt": "{{ get_user.output.body }} {{ get-posts.output[0] }} {{ input.output }}"},
        "retry_config": {
            "max_retries": 0,
            "initial_delay": 0,
            "max_delay": 1.5,
            "exponential_base": 1,
            "jitter": False,
        },
        "timeout_seconds": None,
    },
    node("output", "analyze", handler="output", config={"user": "{{ get_user.output }}"}),
    description="everything there is",
    input_schema={"type": "object", "properties": {"user_id": {"type": "integer"}}, "required": ["user_id"]},
    default_retry_config={"max_retries": 5},
)


# --- what is right --------------------------------------------------------------------------------


def test_a_definition_with_everything_has_no_problems() -> None:
    assert validate_definition(FULL, HANDLERS) == []
    assert compile_graph(FULL, DEFAULTS).size == 5


def test_the_smallest_definition() -> None:
    assert validate_definition({"name": "x", "dag": {"nodes": [{"id": "a", "handler": "noop"}]}}, HANDLERS) == []


def test_optional_keys_may_be_null() -> None:
    document = definition(
        node("a", retry_config=None, timeout_seconds=None), description=None, input_schema=None, default_retry_config={}
    )
    assert validate_definition(document, HANDLERS) == []


def test_validating_changes_nothing() -> None:
    before = copy.deepcopy(FULL)
    validate_definition(FULL, HANDLERS)
    broken = definition(node("a", "b", handler="htp", config={"x": "{{"}), extra=1)
    broken_before = copy.deepcopy(broken)
    assert validate_definition(broken, HANDLERS)
    assert (before, broken_before) == (FULL, broken)


# --- shape ----------------------------------------------------------------------------------------


def without(document: dict[str, Any], *path: str | int) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    parent: Any = changed
    for segment in path[:-1]:
        parent = parent[segment]
    del parent[path[-1]]
    return changed


def replaced(document: dict[str, Any], value: Any, *path: str | int) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    parent: Any = changed
    for segment in path[:-1]:
        parent = parent[segment]
    parent[path[-1]] = value
    return changed


@pytest.mark.parametrize("document", [None, 1, "x", [], True, [definition(node("a"))]], ids=repr)
def test_a_definition_is_an_object(document: object) -> None:
    (problem,) = validate_definition(document, HANDLERS)
    assert problem.path == "$"
    assert problem.message.startswith("must be an object, got ")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (("name",), "name"),
        (("dag",), "dag"),
        (("dag", "nodes"), "dag.nodes"),
        (("dag", "nodes", 2, "id"), "dag.nodes[2].id"),
        (("dag", "nodes", 2, "handler"), "dag.nodes[2].handler"),
    ],
)
def test_required_keys(path: tuple[str | int, ...], shown: str) -> None:
    problems = validate_definition(without(FULL, *path), HANDLERS)
    assert Problem(shown, "is required; add it") in problems


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("name",), 5, "must be text, got 5"),
        (("name",), "", "must have at least 1 characters"),
        (("name",), "x" * 257, "must have at most 256 characters"),
        (("name",), "a\x00b", r"'a\x00b' does not match ^[^\x00]*$"),
        (("description",), "x" * 10_001, "must have at most 10000 characters"),
        (("dag",), [], "must be an object, got a list of 0 items"),
        (("dag", "nodes"), [], "must have at least 1 item"),
        (("dag", "nodes"), {}, "must be a list, got an object with 0 keys"),
        (("dag", "nodes", 0), "input", "must be an object, got 'input'"),
        (("dag", "nodes", 0, "dependencies"), "x", "must be a list, got 'x'"),
        (("dag", "nodes", 0, "config"), [], "must be an object, got a list of 0 items"),
        (("dag", "nodes", 0, "handler"), "", "must have at least 1 characters"),
        (("dag", "nodes", 0, "timeout_seconds"), 0, "must be greater than 0.0, got 0"),
        (("dag", "nodes", 0, "timeout_seconds"), 1e9, "must be at most 604800.0, got 1000000000.0"),
        (("dag", "nodes", 0, "timeout_seconds"), "60", "must be a number, got '60'"),
        (("dag", "nodes", 0, "timeout_seconds"), True, "must be a number, got true"),
        (("dag", "nodes", 3, "retry_config"), 3, "must be an object, got 3"),
        (("dag", "nodes", 3, "retry_config", "max_retries"), -1, "must be at least 0, got -1"),
        (("dag", "nodes", 3, "retry_config", "max_retries"), 101, "must be at most 100, got 101"),
        (("dag", "nodes", 3, "retry_config", "max_retries"), 1.0, "must be a whole number, got 1.0"),
        (("dag", "nodes", 3, "retry_config", "max_retries"), True, "must be a whole number, got true"),
        (("dag", "nodes", 3, "retry_config", "initial_delay"), -0.1, "must be at least 0.0, got -0.1"),
        (("dag", "nodes", 3, "retry_config", "exponential_base"), 0.5, "must be at least 1.0, got 0.5"),
        (("dag", "nodes", 3, "retry_config", "jitter"), 1, "must be true or false, got 1"),
        (("default_retry_config", "max_retries"), "5", "must be a whole number, got '5'"),
        (("input_schema",), [], "must be an object, got a list of 0 items"),
    ],
)
def test_wrong_values(path: tuple[str | int, ...], value: Any, message: str) -> None:
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]
    assert Problem(shown, message) in validate_definition(replaced(FULL, value, *path), HANDLERS)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["initial_delay", "max_delay", "exponential_base"])
def test_numbers_are_finite(key: str, value: float) -> None:
    assert only_problem(node("a", retry_config={key: value})).path == f"dag.nodes[0].retry_config.{key}"
    assert only_problem(node("a", timeout_seconds=value)).path == "dag.nodes[0].timeout_seconds"


@pytest.mark.parametrize(
    ("path", "key", "suggestion"),
    [
        ((), "default_retry", "; did you mean 'default_retry_config'?"),
        ((), "x", "; the keys are name, dag, description, input_schema, default_retry_config"),
        (("dag",), "node", "; did you mean 'nodes'?"),
        (("dag", "nodes", 0), "dependency", "; did you mean 'dependencies'?"),
        (("dag", "nodes", 0), "timeout", "; did you mean 'timeout_seconds'?"),
        (("dag", "nodes", 3, "retry_config"), "jiter", "; did you mean 'jitter'?"),
    ],
)
def test_unknown_keys(path: tuple[str | int, ...], key: str, suggestion: str) -> None:
    shown = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in (*path, key))[1:]
    (problem,) = validate_definition(replaced(FULL, 1, *path, key), HANDLERS)
    assert (problem.path, problem.message) == (shown, f"unknown key{suggestion}")


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("node_id", ["a", "_", "A1", "a-b", "a_b", "input", "output", "default", "x" * 128])
def test_well_formed_ids(node_id: str) -> None:
    assert problems_of(node(node_id)) == []


@pytest.mark.parametrize(
    "node_id",
    ["", "1a", "-a", "a b", "a.b", "a\n", "\na", "a\x00", "\u00e9", "\u0430", "a\u200b", "<b>", "{{ x }}", "a" * 129],
)
def test_malformed_ids(node_id: str) -> None:
    problem = only_problem(node(node_id))
    assert problem.path == "dag.nodes[0].id"
    assert problem.message.endswith(" does not match ^[A-Za-z_][A-Za-z0-9_-]{0,127}$")
    assert problem.message.isprintable()


@pytest.mark.parametrize("node_id", [None, 5, True, ["a"], {}], ids=repr)
def test_ids_are_text(node_id: Any) -> None:
    problems = problems_of({"id": node_id, "handler": "noop"}, node("b"))
    assert [problem.path for problem in problems] == ["dag.nodes[0].id"]


def test_duplicate_ids() -> None:
    problems = problems_of(node("a"), node("b"), node("a"), node("b"), node("a"))
    assert problems == [
        Problem("dag.nodes[2].id", "'a' is already the id of dag.nodes[0]; ids are unique"),
        Problem("dag.nodes[3].id", "'b' is already the id of dag.nodes[1]; ids are unique"),
        Problem("dag.nodes[4].id", "'a' is already the id of dag.nodes[0]; ids are unique"),
    ]


def test_ids_that_look_alike_are_different() -> None:
    assert problems_of(node("a"), node("A"), node("a_"), node("a-")) == []


def test_a_malformed_id_is_known_to_the_nodes_that_name_it() -> None:
    """One mistake, one problem: who depends on the malformed id is not blamed too."""
    assert only_problem(node("a b"), node("c", "a b")).path == "dag.nodes[0].id"


# --- dependencies ---------------------------------------------------------------------------------


def test_unknown_dependency_with_near_matches() -> None:
    problem = only_problem(node("get_user"), node("get_users"), node("x", "get_user", "get_usr"))
    assert problem.path == "dag.nodes[2].dependencies[1]"
    assert problem.message == "there is no node with the id 'get_usr'; did you mean 'get_user' or 'get_users'?"


def test_unknown_dependency_without_near_match() -> None:
    problem = only_problem(node("a", "something_else"))
    assert problem == Problem("dag.nodes[0].dependencies[0]", "there is no node with the id 'something_else'")


def test_repeated_dependency() -> None:
    problems = problems_of(node("a"), node("b", "a", "a", "a"))
    assert problems == [
        Problem("dag.nodes[1].dependencies[1]", "'a' is named twice; name it once"),
        Problem("dag.nodes[1].dependencies[2]", "'a' is named twice; name it once"),
    ]


def test_dependency_on_itself() -> None:
    problem = only_problem(node("a", "a"))
    assert problem == Problem("dag.nodes[0].dependencies[0]", "a node cannot depend on itself; remove it")


def test_dependencies_are_texts() -> None:
    problems = problems_of(node("a"), {"id": "b", "handler": "noop", "dependencies": ["a", 5, None, ["a"]]})
    assert [problem.path for problem in problems] == [f"dag.nodes[1].dependencies[{index}]" for index in (1, 2, 3)]


# --- cycles ---------------------------------------------------------------------------------------


def cycles_in(problems: Sequence[Problem]) -> list[list[str]]:
    """The nodes of each reported cycle, beginning with the least."""
    cycles = []
    for problem in problems:
        assert problem.path == "dag.nodes"
        assert problem.message.startswith("the nodes ")
        assert problem.message.endswith(" wait for each other; remove one dependency")
        names = problem.message.removeprefix("the nodes ").split(" wait ")[0].split(" -> ")
        assert names[0] == names[-1]
        ring = names[:-1]
        least = ring.index(min(ring))
        cycles.append(ring[least:] + ring[:least])
    return sorted(cycles)


def test_cycle_of_two() -> None:
    problem = only_problem(node("a", "b"), node("b", "a"))
    assert cycles_in([problem]) == [["a", "b"]]


def test_a_cycle_names_its_nodes_in_the_order_in_which_they_would_run() -> None:
    problem = only_problem(node("a", "c"), node("b", "a"), node("c", "b"))
    assert cycles_in([problem]) == [["a", "b", "c"]]


def test_a_cycle_does_not_name_what_only_hangs_on_it() -> None:
    nodes = [node("before"), node("a", "before", "b"), node("b", "a"), node("after", "b"), node("last", "after")]
    assert cycles_in(problems_of(*nodes)) == [["a", "b"]]


def test_every_knot_is_reported_though_one_hangs_on_the_other() -> None:
    nodes = [
        node("a", "b"),
        node("b", "a"),
        node("c", "a", "d"),
        node("d", "c"),
        node("e", "d", "g"),
        node("f", "e"),
        node("g", "f"),
        node("free"),
        node("h", "free", "g"),
    ]
    assert cycles_in(problems_of(*nodes)) == [["a", "b"], ["c", "d"], ["e", "f", "g"]]
    assert cycles_in(problems_of(*reversed(nodes))) == [["a", "b"], ["c", "d"], ["e", "f", "g"]]


def test_a_long_cycle_is_shortened() -> None:
    names = [f"n{number}" for number in range(1_000)]
    problem = only_problem(*(node(name, names[number - 1]) for number, name in enumerate(names)))
    assert "... 989 more ..." in problem.message
    assert len(problem.message) < 200


def test_names_of_a_cycle_are_safe_to_show() -> None:
    nodes = [node("x" * 10**6, "a\nb\x1b[31m"), node("a\nb\x1b[31m", "x" * 10**6)]
    messages = [problem.message for problem in problems_of(*nodes)]
    assert len(messages) == 3
    assert all(message.isprintable() for message in messages)
    assert all(len(message) < 400 for message in messages)


@given(
    st.integers(1, 12).flatmap(lambda size: st.lists(st.sets(st.integers(0, size - 1)), min_size=size, max_size=size))
)
def test_cycles_are_found_exactly_when_there_are_some(edges: list[set[int]]) -> None:
    """Each reported cycle exists, and each set of nodes that can reach each other has one."""
    size = len(edges)
    needed = [{after for after in edges[number] if after != number} for number in range(size)]
    nodes = [node(f"n{number:02}", *(f"n{after:02}" for after in sorted(needed[number]))) for number in range(size)]
    cycles = [[int(name[1:]) for name in ring] for ring in cycles_in(problems_of(*nodes))]
    reach = [set(direct) for direct in needed]
    for _ in range(size):
        for above in reach:
            above.update(*(reach[number] for number in list(above)))
    knots = {frozenset(m for m in range(size) if m in reach[n] and n in reach[m]) for n in range(size) if n in reach[n]}
    for ring in cycles:
        assert all(ring[position - 1] in needed[number] for position, number in enumerate(ring))
    assert len(cycles) == len(knots)
    assert {knot for ring in cycles for knot in knots if set(ring) <= knot} == knots


# --- handlers and their configuration -------------------------------------------------------------


def test_unknown_handler_with_near_match() -> None:
    problem = only_problem(node("a", handler="llm_servce"))
    assert problem == Problem("dag.nodes[0].handler", "there is no handler 'llm_servce'; did you mean 'llm_service'?")


def test_unknown_handler_without_near_match_lists_what_there_is() -> None:
    problem = only_problem(node("a", handler="zzz"))
    assert problem.message == (
        "there is no handler 'zzz'; there are call_external_service, http, input, llm_service, noop, output"
    )


def test_configuration_is_checked_by_its_handler() -> None:
    problems = problems_of(
        node("a", handler="http", config={"url": 5, "limits": {"timeout": "x"}, "codes": [1, "2"], "a b": 1})
    )
    assert problems == [
        Problem("dag.nodes[0].config.url", "must be text"),
        Problem("dag.nodes[0].config.limits.timeout", "must be a number"),
        Problem("dag.nodes[0].config.codes[1]", "must be a number"),
        Problem("dag.nodes[0].config['a b']", "unknown key"),
    ]


def test_a_missing_key_is_reported_although_others_hold_templates() -> None:
    problem = only_problem(node("a", handler="http", config={"codes": ["{{ input.code }}"]}))
    assert problem == Problem("dag.nodes[0].config.url", "is required; add it")


@pytest.mark.parametrize(
    "config",
    [
        {"url": "{{ input.url }}", "limits": {"timeout": "{{ input.timeout }}"}},
        {"url": "x", "codes": [200, "{{ input.code }}"]},
        {"url": ["{{ input.url }}"]},
    ],
)
def test_what_is_or_holds_a_template_is_left_to_run_time(config: dict[str, Any]) -> None:
    assert problems_of(node("a", handler="http", config=config)) == []


def test_only_the_values_with_templates_are_left_to_run_time() -> None:
    config = {"url": "{{ input.url }}", "limits": {"timeout": "soon"}, "codes": ["{{ input.code }}", "x"]}
    assert problems_of(node("a", handler="http", config=config)) == [
        Problem("dag.nodes[0].config.limits.timeout", "must be a number"),
        Problem("dag.nodes[0].config.codes[1]", "must be a number"),
    ]


def test_each_configuration_is_checked_once() -> None:
    seen: list[Any] = []

    def record(config: Mapping[str, Any]) -> Sequence[Fault]:
        seen.append(config)
        return ()

    nodes = [node(f"n{number}", handler="seen", config={"number": number}) for number in range(50)]
    assert validate_definition(definition(*nodes), {"seen": record}) == []
    assert seen == [{"number": number} for number in range(50)]


# --- templates ------------------------------------------------------------------------------------


def test_template_syntax_is_reported_with_its_place() -> None:
    problems = problems_of(node("a", config={"x": ["{{ input.x }}", "{{ 1 }}"], "y": {"z": "{{"}}))
    assert [problem.path for problem in problems] == ["dag.nodes[0].config.x[1]", "dag.nodes[0].config.y.z"]
    assert all(problem.message.startswith("template syntax: ") for problem in problems)


def test_template_of_a_node_that_does_not_exist() -> None:
    problem = only_problem(node("get_user"), node("b", "get_user", config={"x": "hi {{ get_usr.output.name }}"}))
    assert problem == Problem(
        "dag.nodes[1].config.x",
        "template '{{ get_usr.output.name }}': there is no node 'get_usr'; did you mean 'get_user'?",
    )


def test_template_of_something_else_than_the_output() -> None:
    nodes = [node("a"), node("b", "a", config={"x": "{{ a.name }}", "y": "{{ a }}", "z": '{{ a["x y"][0] }}'})]
    assert [problem.message for problem in problems_of(*nodes)] == [
        "template '{{ a.name }}': a node has only 'output'; did you mean '{{ a.output.name }}'?",
        "template '{{ a }}': a node has only 'output'; did you mean '{{ a.output }}'?",
        "template '{{ a[\"x y\"][0] }}': a node has only 'output'; did you mean '{{ a.output[\"x y\"][0] }}'?",
    ]


def test_template_of_its_own_output() -> None:
    problem = only_problem(node("a", config={"x": "{{ a.output }}"}))
    assert problem == Problem("dag.nodes[0].config.x", "template '{{ a.output }}': a node cannot use its own output")


def test_template_of_a_node_that_is_no_ancestor() -> None:
    nodes = [node("a"), node("b", "a"), node("c", "a", config={"x": ["{{ b.output }}"]})]
    assert problems_of(*nodes) == [
        Problem(
            "dag.nodes[2].config.x[0]",
            "template '{{ b.output }}': 'c' does not wait for 'b'; add it to the dependencies",
        )
    ]


def test_template_of_a_descendant() -> None:
    problem = only_problem(node("a", config={"x": "{{ c.output }}"}), node("b", "a"), node("c", "b"))
    assert "'a' does not wait for 'c'" in problem.message


def test_templates_of_ancestors_near_and_far() -> None:
    chain = [node("n0"), *(node(f"n{number}", f"n{number - 1}") for number in range(1, 20))]
    chain.append(node("end", "n19", config={"all": [f"{{{{ n{number}.output }}}}" for number in range(20)]}))
    assert problems_of(*chain) == []
    assert problems_of(*reversed(chain)) == []


def test_a_default_does_not_excuse_a_node_that_is_no_ancestor() -> None:
    problem = only_problem(node("a"), node("b", config={"x": "{{ default(a.output.x, 1) }}"}))
    assert "'b' does not wait for 'a'" in problem.message


def test_templates_of_input_are_not_known_before_run_time() -> None:
    config = {"x": ["{{ input }}", "{{ input.x }}", "{{ input.output.y }}"]}
    assert problems_of(node("a", config=config)) == []
    assert problems_of(node("input"), node("a", "input", config=config)) == []


@given(
    st.integers(2, 9).flatmap(
        lambda size: st.tuples(
            st.lists(st.sets(st.integers(0, size - 1)), min_size=size, max_size=size),
            st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)), max_size=8),
            st.permutations(range(size)),
        )
    )
)
def test_exactly_the_ancestors_may_be_referred_to(
    drawn: tuple[list[set[int]], list[tuple[int, int]], list[int]],
) -> None:
    edges, references, order = drawn
    needed = [{before for before in edges[number] if before < number} for number in range(len(edges))]
    above: list[set[int]] = []
    for direct in needed:
        above.append(direct.union(*(above[number] for number in direct)))
    texts: dict[int, list[str]] = {}
    for user, used in references:
        texts.setdefault(user, []).append(f"{{{{ n{used}.output }}}}")
    nodes = [
        node(f"n{number}", *(f"n{before}" for before in needed[number]), config={"x": texts.get(number, [])})
        for number in order
    ]
    wrong = sum(used not in above[user] for user, used in references)
    assert len(problems_of(*nodes)) == wrong


# --- the input schema -----------------------------------------------------------------------------


def test_problems_of_the_input_schema_have_their_place() -> None:
    schema = {"type": "objekt", "properties": {"a": {"pattern": "(?=x)"}, "b c": {"minimum": "1"}}}
    paths = [problem.path for problem in problems_of(node("a"), input_schema=schema)]
    assert sorted(paths) == [
        "input_schema.properties.a.pattern",
        "input_schema.properties['b c'].minimum",
        "input_schema.type",
    ]


# --- everything at once ---------------------------------------------------------------------------


def test_all_problems_are_reported_at_once() -> None:
    document = definition(
        node("ok"),
        node("1bad"),
        node("ok"),
        node("lost", "nowhere", "ok", "ok", "lost"),
        node("ring1", "ring2"),
        node("ring2", "ring1"),
        node("who", handler="nobody"),
        node("cfg", handler="http", config={"url": 1}),
        node("tpl", config={"a": "{{", "b": "{{ nothere.output }}", "c": "{{ ok.x }}", "d": "{{ tpl.output }}"}),
        node("extra", retries=3),
        node("slow", timeout_seconds=-1, retry_config={"max_retries": -1}),
        surprise=True,
        input_schema={"type": 5},
    )
    del document["name"]
    found = [problem.path for problem in validate_definition(document, HANDLERS)]
    assert sorted(found) == sorted(
        [
            "name",
            "surprise",
            "input_schema.type",
            "dag.nodes",
            "dag.nodes[1].id",
            "dag.nodes[2].id",
            "dag.nodes[3].dependencies[0]",
            "dag.nodes[3].dependencies[2]",
            "dag.nodes[3].dependencies[3]",
            "dag.nodes[6].handler",
            "dag.nodes[7].config.url",
            "dag.nodes[8].config.a",
            "dag.nodes[8].config.b",
            "dag.nodes[8].config.c",
            "dag.nodes[8].config.d",
            "dag.nodes[9].retries",
            "dag.nodes[10].timeout_seconds",
            "dag.nodes[10].retry_config.max_retries",
        ]
    )


def test_ancestors_are_checked_although_other_things_are_wrong() -> None:
    problems = problems_of(node("a"), node("b", handler="nobody", config={"x": "{{ a.output }}"}), extra=1)
    assert [problem.path for problem in problems] == ["extra", "dag.nodes[1].handler", "dag.nodes[1].config.x"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: definition(*(node(f"n{number}", "missing", handler="nobody") for number in range(1_000))),
        lambda: {**definition(node("a")), **{f"key{number}": 1 for number in range(2_000)}},
    ],
)
def test_no_more_than_so_many_problems_and_how_many_there_are(make: Callable[[], dict[str, Any]]) -> None:
    problems = validate_definition(make(), HANDLERS)
    assert len(problems) == limits.MAX_PROBLEMS + 1
    assert problems[-1] == Problem("$", "1800 more problems; mend these first")


JSON_LIKE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["a", "b", "noop", "input", "{{ a.output }}", "{{"]),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "dag", "nodes", "id", "handler", "dependencies", "config", "input_schema", "x", "{{"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200)
@given(
    JSON_LIKE
    | st.builds(lambda nodes: definition(*nodes), st.lists(JSON_LIKE, max_size=4))
    | st.builds(
        lambda nodes: definition(*nodes),
        st.lists(
            st.fixed_dictionaries(
                {"id": st.sampled_from("abc"), "handler": st.just("noop")},
                optional={"dependencies": st.lists(st.sampled_from("abc"), max_size=3), "config": JSON_LIKE},
            ),
            max_size=4,
        ),
    )
)
def test_any_document_is_either_described_or_compiles(document: Any) -> None:
    problems = validate_definition(document, HANDLERS)
    assert all(problem.path and problem.message for problem in problems)
    if not problems:
        assert compile_graph(document, DEFAULTS).size == len(document["dag"]["nodes"])


def test_keys_that_are_not_text_are_no_trouble() -> None:
    assert problems_of(node("a", config={"x": {1: "{{ input.x }}", None: [{2: "{{"}]}}))[0].path.startswith(
        "dag.nodes[0].config.x"
    )


# --- limits and large graphs ----------------------------------------------------------------------


@contextmanager
def little_stack(frames: int = 60) -> Iterator[None]:
    """Only so many more frames: what recurses once per node fails."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def chain(size: int) -> list[dict[str, Any]]:
    return [node(f"n{number}", *([f"n{number - 1}"] if number else [])) for number in range(size)]


def fan(size: int) -> list[dict[str, Any]]:
    middle = [f"n{number}" for number in range(size - 2)]
    return [node("start"), *(node(name, "start") for name in middle), node("end", *middle)]


def ladder(size: int) -> list[dict[str, Any]]:
    """Two rails with all rungs: 2**(size / 2) paths."""
    nodes = [node("a0"), node("b0")]
    for number in range(1, size // 2):
        above = (f"a{number - 1}", f"b{number - 1}")
        nodes += [node(f"a{number}", *above), node(f"b{number}", *above)]
    return nodes


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize(
    ("make", "size"), [(chain, 10_000), (fan, 10_000), (fan, 20_000), (ladder, 10_000), (ladder, 20_000)]
)
def test_large_graphs_are_valid(make: Callable[[int], list[dict[str, Any]]], size: int, backwards: bool) -> None:
    nodes = make(size)
    assert len(nodes) == size
    with little_stack():
        assert problems_of(*(reversed(nodes) if backwards else nodes)) == []


def test_large_graph_in_which_everything_is_referred_to_from_afar() -> None:
    nodes = chain(3_000)
    nodes[-1]["config"] = {"all": [f"{{{{ n{number}.output }}}}" for number in range(0, 3_000 - 1, 3)]}
    for number in range(10, 2_999):
        nodes[number]["config"] = {"x": f"{{{{ n{number // 2}.output }}}}"}
    assert problems_of(*nodes) == []
    nodes[5]["config"] = {"x": "{{ n2000.output }}"}
    assert only_problem(*nodes).path == "dag.nodes[5].config.x"


@pytest.mark.parametrize("backwards", [False, True])
def test_a_path_that_is_too_long(backwards: bool) -> None:
    nodes = chain(20_000)
    with little_stack():
        problem = only_problem(*(reversed(nodes) if backwards else nodes))
    assert problem == Problem("dag.nodes", "a path of 20000 nodes; at most 10000 may follow one another")
    assert only_problem(*chain(10_001)).message == "a path of 10001 nodes; at most 10000 may follow one another"


def test_too_many_nodes_is_one_problem() -> None:
    """What else may be wrong with that many is not even looked at."""
    nodes = [node("a", "nobody", handler="x") for _ in range(limits.MAX_NODES + 1)]
    assert only_problem(*nodes) == Problem("dag.nodes", f"has more than the {limits.MAX_NODES} items allowed")


def test_too_many_dependencies() -> None:
    width = 320
    assert width * width > limits.MAX_EDGES
    left = [node(f"l{number}") for number in range(width)]
    right = [node(f"r{number}", *(f"l{other}" for other in range(width))) for number in range(width)]
    problem = only_problem(*left, *right)
    assert problem == Problem("dag.nodes", f"{width * width} dependencies; at most {limits.MAX_EDGES} are allowed")
    del right[:10]
    assert problems_of(*left, *right) == []


@pytest.mark.parametrize("backwards", [False, True])
def test_one_cycle_through_every_node(backwards: bool) -> None:
    nodes = chain(20_000)
    nodes[0]["dependencies"] = ["n19999"]
    with little_stack():
        problem = only_problem(*(reversed(nodes) if backwards else nodes))
    assert "... 19989 more ..." in problem.message


def test_ten_thousand_cycles() -> None:
    nodes: list[dict[str, Any]] = []
    for number in range(0, 20_000, 2):
        below = [f"n{number - 1}"] if number else []
        nodes += [node(f"n{number}", f"n{number + 1}", *below), node(f"n{number + 1}", f"n{number}")]
    with little_stack():
        problems = problems_of(*nodes)
    assert problems[-1].message == f"{10_000 - limits.MAX_PROBLEMS} more problems; mend these first"
    assert len(cycles_in(problems[:-1])) == limits.MAX_PROBLEMS


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs of characters each search for near matches may have to compare."""
    found: list[int] = []
    search = difflib.get_close_matches

    def count(word: str, possibilities: list[str], **options: Any) -> list[str]:
        found.append(len(word) * sum(map(len, possibilities)))
        return search(word, possibilities, **options)

    monkeypatch.setattr(difflib, "get_close_matches", count)
    return found


ALIKE = "abcdefgh" * 15


@pytest.mark.parametrize(
    "make",
    [
        lambda: definition(*(node(f"{ALIKE}{number}", f"{ALIKE}x{number}") for number in range(2_000))),
        lambda: definition(*(node(f"n{number}", handler="llm_srvice") for number in range(2_000))),
        lambda: definition(
            node("a"), *(node(f"n{n}", "a", config={"x": f"{{{{ b{n}.output }}}}"}) for n in range(2_000))
        ),
        lambda: definition(node("x" * 10**6), *(node(f"n{n}", "y" * 1000) for n in range(100))),
        lambda: {**definition(node("a")), **{f"default_retry_config{number}": 1 for number in range(2_000)}},
        lambda: definition(*(node(f"n{number}", retrys=1) for number in range(2_000))),
    ],
    ids=["dependencies", "handlers", "references", "long ids", "keys", "keys of nodes"],
)
def test_the_search_for_near_matches_is_bounded(make: Callable[[], dict[str, Any]], compared: list[int]) -> None:
    """It is the one thing that costs more than the size of the definition."""
    problems = validate_definition(make(), HANDLERS)
    assert len(problems) > 20
    assert compared
    assert sum(compared) <= 12_000_000
    assert len(compared) <= limits.MAX_PROBLEMS


def test_the_first_mistakes_still_have_their_near_matches() -> None:
    nodes = [node(f"step_{number}") for number in range(500)]
    nodes += [node(f"x{number}", f"stp_{number}") for number in range(5)]
    for number, problem in enumerate(problems_of(*nodes)):
        assert f"'step_{number}'" in problem.message


def test_paths_and_messages_stay_short_whatever_is_in_the_definition() -> None:
    huge = "k" * 10**6
    problems = problems_of(
        node("a", huge, handler=huge, **{huge: 1}),
        node("b", config={huge: {huge: ["{{", f"{{{{ {'x' * 1000}.output }}}}"]}}),
        node("c", handler="http", config={"url": "x", huge: 1}),
        name=huge,
        input_schema={"type": huge, "properties": {huge: {"pattern": "(" * 10**5}}},
        **{huge: huge},
    )
    assert len(problems) >= 10
    assert all(len(problem.path) < 600 for problem in problems)
    assert all(len(problem.message) < 1_500 for problem in problems)
