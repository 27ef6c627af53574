"""Puts what is read from the code where a page has `<!-- generated: NAME -->`, before the page is parsed."""

from __future__ import annotations

from reference_pages import fill
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the extension."""
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True}


def _fill(_app: Sphinx, _name: str, source: list[str]) -> None:
    source[0] = fill(source[0])
