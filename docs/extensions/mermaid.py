"""Shows a Mermaid state diagram as a picture and a table, both made here: no script, no outside request."""

from __future__ import annotations

import re
from html import escape
from typing import NamedTuple

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

_EDGE = re.compile(r"\s*(\w+) --> (\w+): (.+)")
_FINAL = re.compile(r"\s*(\w+) --> \[\*\]")
_WIDTH, _GAP, _HEIGHT, _MARGIN = 104, 46, 34, 12


class Edge(NamedTuple):
    """One transition and when it happens."""

    before: str
    after: str
    reason: str


def edges_of(text: str) -> list[Edge]:
    """The transitions of a `stateDiagram-v2`; those to `[*]` say only that a state is final."""
    return [Edge(*match.groups()) for line in text.splitlines() if (match := _EDGE.fullmatch(line))]


def states_of(text: str) -> list[str]:
    """The states in the order in which the diagram speaks of what follows them."""
    found = (_EDGE.fullmatch(line) or _FINAL.fullmatch(line) for line in text.splitlines())
    return list(dict.fromkeys(match[1] for match in found if match))


def picture(states: list[str], edges: list[Edge]) -> str:
    """The states in a row; arrows to the right pass above them, arrows to the left below."""
    left = {name: _MARGIN + index * (_WIDTH + _GAP) for index, name in enumerate(states)}
    steps = [states.index(edge.after) - states.index(edge.before) for edge in edges]
    middle = _MARGIN + 24 * max(*steps, 0) + _HEIGHT / 2
    width, height = left[states[-1]] + _WIDTH + _MARGIN, middle + _HEIGHT / 2 + _MARGIN - 24 * min(*steps, 0)
    arcs = "".join(_arc(states, left, middle, edge) for edge in edges)
    boxes = "".join(_box(name, left[name], middle) for name in states)
    return (
        f'<svg role="img" aria-label="{escape(", ".join(f"{e.before} to {e.after}" for e in edges))}"'
        f' viewBox="0 0 {width} {height:g}" style="max-width: 100%; height: auto" font-size="13"'
        ' font-family="sans-serif" fill="currentColor"><defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4"'
        ' markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0 8,4 0,8z"/></marker></defs>'
        f"{arcs}{boxes}</svg>"
    )


def _arc(states: list[str], left: dict[str, int], middle: float, edge: Edge) -> str:
    steps = states.index(edge.after) - states.index(edge.before)
    above = -1 if steps > 0 else 1
    # Arrows that leave or reach the same state are spread over its width.
    start = left[edge.before] + _WIDTH / 2 - above * 8 * abs(steps)
    end = left[edge.after] + _WIDTH / 2 + above * 8 * abs(steps)
    side = middle + above * _HEIGHT / 2
    top = side + above * 30 * abs(steps)
    return (
        f'<path d="M{start:g},{side:g} C{start:g},{top:g} {end:g},{top:g} {end:g},{side + above * 2:g}"'
        ' fill="none" stroke="currentColor" marker-end="url(#arrow)"/>'
    )


def _box(name: str, left: int, middle: float) -> str:
    return (
        f'<rect x="{left}" y="{middle - _HEIGHT / 2:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"'
        ' fill="none" stroke="currentColor"/>'
        f'<text x="{left + _WIDTH / 2:g}" y="{middle + 4:g}" text-anchor="middle">{escape(name)}</text>'
    )


class Mermaid(SphinxDirective):
    """A `mermaid` block with a state diagram."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        edges = edges_of(text)
        if not edges:
            raise self.error("only state diagrams can be shown")
        rows = [f"| {edge.before} | {edge.after} | {edge.reason} |" for edge in edges]
        table = ["| from | to | when |", "| --- | --- | --- |", *rows]
        return [
            nodes.raw("", picture(states_of(text), edges), format="html"),
            *self.parse_text_to_nodes("\n".join(table)),
        ]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True}
