"""The documents say what the code says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from workflow_engine.config.tables import with_tables
from workflow_engine.runtime.api.app import declared_routes
from workflow_engine.runtime.core.state import NODE_TRANSITIONS, WORKFLOW_TRANSITIONS, mermaid_diagram

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
DESIGN = (ROOT / "DESIGN.md").read_text("utf-8")


def test_the_state_diagrams_are_those_of_the_tables() -> None:
    assert f"```mermaid\n{mermaid_diagram(WORKFLOW_TRANSITIONS)}\n```" in DESIGN
    assert f"```mermaid\n{mermaid_diagram(NODE_TRANSITIONS)}\n```" in DESIGN


def test_the_readmes_settings_are_those_of_the_code() -> None:
    assert with_tables(README) == README, "run: python -m workflow_engine.config README.md"


def test_the_readme_has_every_endpoint() -> None:
    wanted = [f"| {route.method} | `{route.path}` | {route.scope} |" for route in declared_routes() if route.documented]

    assert len(wanted) >= 20
    assert [row for row in wanted if row not in README] == []


def test_the_readmes_workflow_is_the_specifications() -> None:
    body = re.search(r"-d '(\{.*?\n  \})'", README, re.DOTALL)
    assert body is not None
    document = json.loads(body[1])

    assert [node["id"] for node in document["dag"]["nodes"]] == ["input", "get_user", "get_posts", "output"]
