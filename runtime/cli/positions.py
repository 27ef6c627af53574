"""Where the values of a JSON text stand: their lines, by the paths that problems have."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ..core.problem import join_path

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|\n|[^\s{}\[\],:"]+')
_LAST_SEGMENT = re.compile(r"(\.[^.\[\]]+|\[('(?:[^'\\]|\\.)*'|[^\[\]]*)\])$")


def lines_by_path(text: str) -> Mapping[str, int]:
    """For each value of a JSON text, which must be valid, the number of the line it begins in (its key's, if any)."""
    lines: dict[str, int] = {"": 1}
    path, line = "", 1
    containers: list[tuple[str, int | None]] = []
    """The containers that are open: the path of each, and the index of the item in it; None in an object."""
    at_key = False
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token in "{[":
            lines.setdefault(path, line)
            containers.append((path, None if token == "{" else 0))
            at_key = token == "{"
            if token == "[":
                path = join_path(path, [0])
        elif token in "}]":
            path, _ = containers.pop()
            at_key = False
        elif token == ",":
            base, index = containers[-1]
            at_key = index is None
            if index is not None:
                containers[-1] = base, index + 1
                path = join_path(base, [index + 1])
        elif token != ":":
            if at_key:
                path = join_path(containers[-1][0], [json.loads(token)])
                at_key = False
            lines.setdefault(path, line)
    return lines


def line_of(path: str, lines: Mapping[str, int]) -> int:
    """The line of what `path` names; of what should hold it when it is missing; 1 when nothing is known of it."""
    while path not in lines:
        shorter = _LAST_SEGMENT.sub("", path)
        path = shorter if shorter != path else ""
    return lines[path]
