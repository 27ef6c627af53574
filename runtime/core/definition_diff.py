"""How one version of a definition differs from another: by node, with the place and both values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .problem import join_path

_ABSENT = object()


def diff_definitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What differs between two valid definitions.

    `added_nodes` and `removed_nodes` are ids, `changed_nodes` a list of `{"id", "changes"}`, `changes` what
    differs outside the nodes. A change is `{"path", "old", "new"}`, without `old` where there was nothing and
    without `new` where there is nothing any more; `path` is the place in `after`, in `before` if it is gone.
    The order of nodes and keys means nothing, so it is no difference.
    """
    old_nodes, new_nodes = _nodes(before), _nodes(after)
    changed = []
    for node_id, (index, node) in new_nodes.items():
        if node_id in old_nodes:
            place = ("dag", "nodes", index)
            changes = list(_changes(old_nodes[node_id][1], node, place))
            if changes:
                changed.append({"id": node_id, "changes": changes})
    return {
        "added_nodes": [node_id for node_id in new_nodes if node_id not in old_nodes],
        "removed_nodes": [node_id for node_id in old_nodes if node_id not in new_nodes],
        "changed_nodes": changed,
        "changes": list(_changes(_without_nodes(before), _without_nodes(after), ())),
    }


def _nodes(definition: Mapping[str, Any]) -> dict[str, tuple[int, Mapping[str, Any]]]:
    return {node["id"]: (index, node) for index, node in enumerate(definition["dag"]["nodes"])}


def _without_nodes(definition: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in definition.items() if key != "dag"}


def _changes(old: Any, new: Any, place: tuple[str | int, ...]) -> Iterator[dict[str, Any]]:
    """The smallest values that differ. Lists of different length differ as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _changes(old.get(key, _ABSENT), new.get(key, _ABSENT), (*place, key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _changes(one, other, (*place, index))
    # In JSON 1, 1.0 and true are three things.
    elif type(old) is not type(new) or old != new:
        change = {"path": join_path("", place), "old": old, "new": new}
        yield {key: value for key, value in change.items() if value is not _ABSENT}
