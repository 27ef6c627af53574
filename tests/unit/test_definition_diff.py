"""How two versions of a definition differ."""

from __future__ import annotations

from typing import Any

import pytest

from workflow_engine.runtime.core.definition_diff import diff_definitions

NOTHING: dict[str, Any] = {"added_nodes": [], "removed_nodes": [], "changed_nodes": [], "changes": []}


def definition(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "flow", "dag": {"nodes": list(nodes)}, **more}


def node(node_id: str, **more: Any) -> dict[str, Any]:
    return {"id": node_id, "handler": "input", **more}


def test_the_same_is_no_difference() -> None:
    same = definition(node("a", config={"x": [1, {"y": None}]}), description="d")
    assert diff_definitions(same, same) == NOTHING


def test_the_order_of_nodes_and_keys_is_no_difference() -> None:
    one = definition(node("a", config={"x": 1, "y": 2}), node("b"))
    other = definition(node("b"), {"config": {"y": 2, "x": 1}, "handler": "input", "id": "a"})
    assert diff_definitions(one, other) == NOTHING


def test_nodes_that_came_and_went() -> None:
    diff = diff_definitions(definition(node("a"), node("b")), definition(node("c"), node("b"), node("d")))
    assert diff == {**NOTHING, "added_nodes": ["c", "d"], "removed_nodes": ["a"]}


def test_a_changed_node_with_its_place_in_the_newer_version() -> None:
    before = definition(node("a"), node("b", config={"url": "http://old", "headers": {"x-a": "1"}, "gone": 1}))
    after = definition(node("b", config={"url": "http://new", "headers": {"x-a": "2"}, "new key": None}), node("a"))
    assert diff_definitions(before, after)["changed_nodes"] == [
        {
            "id": "b",
            "changes": [
                {"path": "dag.nodes[0].config.url", "old": "http://old", "new": "http://new"},
                {"path": "dag.nodes[0].config.headers['x-a']", "old": "1", "new": "2"},
                {"path": "dag.nodes[0].config.gone", "old": 1},
                {"path": "dag.nodes[0].config['new key']", "new": None},
            ],
        }
    ]


def test_lists_of_different_length_differ_as_a_whole_others_item_by_item() -> None:
    before = definition(node("a", dependencies=["x"], config={"items": [1, 2]}))
    after = definition(node("a", dependencies=["x", "y"], config={"items": [1, 3]}))
    [changed] = diff_definitions(before, after)["changed_nodes"]
    assert changed["changes"] == [
        {"path": "dag.nodes[0].dependencies", "old": ["x"], "new": ["x", "y"]},
        {"path": "dag.nodes[0].config.items[1]", "old": 2, "new": 3},
    ]


@pytest.mark.parametrize(("old", "new"), [(1, True), (1, 1.0), (0, False), ("1", 1), (None, False), ([], {})])
def test_values_that_python_takes_for_equal_differ_in_json(old: Any, new: Any) -> None:
    diff = diff_definitions(definition(input_schema={"x": old}), definition(input_schema={"x": new}))
    assert diff["changes"] == [{"path": "input_schema.x", "old": old, "new": new}]


def test_what_differs_outside_the_nodes() -> None:
    before = definition(node("a"), description="old", default_retry_config={"max_retries": 1})
    after = definition(node("a"), default_retry_config={"max_retries": 2}, input_schema={})
    assert diff_definitions(before, after) == {
        **NOTHING,
        "changes": [
            {"path": "description", "old": "old"},
            {"path": "default_retry_config.max_retries", "old": 1, "new": 2},
            {"path": "input_schema", "new": {}},
        ],
    }


def test_there_and_back_are_the_same_changes_turned_round() -> None:
    one, other = definition(node("a"), node("b", config={"x": 1})), definition(node("b", config={}), node("c"))
    there, back = diff_definitions(one, other), diff_definitions(other, one)
    assert (there["added_nodes"], there["removed_nodes"]) == (back["removed_nodes"], back["added_nodes"])
    assert there["changed_nodes"][0]["changes"] == [{"path": "dag.nodes[0].config.x", "old": 1}]
    assert back["changed_nodes"][0]["changes"] == [{"path": "dag.nodes[1].config.x", "new": 1}]
