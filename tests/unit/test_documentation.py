"""The documents say what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from workflow_engine.config.settings import HANDLER_TIMEOUTS_SECONDS, Settings
from workflow_engine.runtime.core.state import NODE_TRANSITIONS, WORKFLOW_TRANSITIONS, mermaid_diagram

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DESIGN = (ROOT / "DESIGN.md").read_text("utf-8")

_ROW = re.compile(r"^\| `([A-Z_]+)` \|\s*(?:`([^`]*)`|([^|]*?))\s*\|", re.MULTILINE)


def test_the_state_diagrams_are_those_of_the_tables() -> None:
    assert f"```mermaid\n{mermaid_diagram(WORKFLOW_TRANSITIONS)}\n```" in DESIGN
    assert f"```mermaid\n{mermaid_diagram(NODE_TRANSITIONS)}\n```" in DESIGN


def test_the_readme_has_every_setting_with_its_default() -> None:
    shown = {name: (literal or other.strip()) for name, literal, other in _ROW.findall(README)}
    expected = {}
    for name, field in Settings.model_fields.items():
        if name == "handler_timeouts_seconds":
            continue
        default = field.default
        if isinstance(default, bool):
            expected[name.upper()] = str(default).lower()
        elif default is None or default == "":
            expected[name.upper()] = "by environment" if name == "http_allow_private" else ""
        else:
            expected[name.upper()] = str(default)

    assert shown == expected


@pytest.mark.parametrize(("handler", "seconds"), HANDLER_TIMEOUTS_SECONDS.items())
def test_the_readme_has_every_handler_timeout(handler: str, seconds: float) -> None:
    assert f"`{handler}` {seconds:g}" in README


def test_the_readme_has_every_endpoint() -> None:
    routes = (ROOT / "runtime" / "api").glob("*_routes.py")
    paths = [path for file in routes for path in re.findall(r'add_(?:get|post)\("([^"]+)"', file.read_text("utf-8"))]

    assert len(paths) >= 6
    assert [path for path in paths if f"`{path}`" not in README] == []


def test_the_readmes_workflow_is_the_specifications() -> None:
    body = re.search(r"-d '(\{.*?\n  \})'", README, re.DOTALL)
    assert body is not None
    document = json.loads(body[1])

    assert [node["id"] for node in document["dag"]["nodes"]] == ["input", "get_user", "get_posts", "output"]
