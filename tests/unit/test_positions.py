"""The lines of a JSON text's values, by the paths that problems have."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.cli.positions import line_of, lines_by_path
from workflow_engine.runtime.core.problem import join_path

TEXT = """{
  "name": "a \\" , } quote",
  "dag": {"nodes": [
    {"id": "a"}, {"id": "b",
      "config": {"any key": [1, 2,
        {"deep": null}]}},
    true
  ],
  "empty": {}, "list": []}
}"""


def test_lines() -> None:
    lines = lines_by_path(TEXT)
    expected = {
        "name": 2,
        "dag": 3,
        "dag.nodes": 3,
        "dag.nodes[0]": 4,
        "dag.nodes[0].id": 4,
        "dag.nodes[1].id": 4,
        "dag.nodes[1].config": 5,
        "dag.nodes[1].config['any key'][1]": 5,
        "dag.nodes[1].config['any key'][2].deep": 6,
        "dag.nodes[2]": 7,
        "dag.empty": 9,
        "dag.list": 9,
    }
    assert {path: line_of(path, lines) for path in expected} == expected


def test_what_is_missing_is_where_it_should_be() -> None:
    lines = lines_by_path(TEXT)
    assert line_of("dag.nodes[1].handler", lines) == 4
    assert line_of("dag.nodes[1].config['no such']['one']", lines) == 5
    assert line_of("$", lines) == 1
    assert line_of("nothing.of.it", lines) == 1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def paths_of(value: Any, path: str) -> list[str]:
    """The paths of a value and of everything in it."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, child in children for below in paths_of(child, join_path(path, [key])))]


@given(VALUES)
def test_every_value_has_its_line(value: Any) -> None:
    """`indent` puts each value on a line of its own, in the order of the walk."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    lines = lines_by_path(text)
    paths = paths_of(value, "")
    assert {*paths} == {*lines}
    found = [lines[path] for path in dict.fromkeys(paths)]
    assert found == sorted(found)
    assert all(line <= len(text.split("\n")) for line in found)
