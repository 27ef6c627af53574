"""Small pieces of Markdown that the parts share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. Cells are Markdown; line breaks and bars in them are made harmless."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def code(text: object) -> str:
    """`text` as it is, in a fixed width."""
    return f"`{text}`"


def anchor(name: str) -> str:
    """A place that links and bookmarks can rely on."""
    return f"({name})="


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
