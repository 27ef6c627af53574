"""The JSON examples of the documents are JSON, and their workflows would be accepted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from markdown_blocks import Block, blocks_of

from workflow_engine.handlers import plugin
from workflow_engine.plugins.discovery import Catalogue
from workflow_engine.runtime.core.definition import validate_definition

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Handlers of the tutorial's own package.
TUTORIAL_HANDLERS = ("greet",)


def json_blocks() -> list[Block]:
    return [block for document in DOCUMENTS for block in blocks_of(document) if block.language == "json"]


def problems_of(value: Any) -> list[str]:
    """What is wrong with a workflow, or with a single node; nothing for another value."""
    if not isinstance(value, dict):
        return []
    if {"id", "handler"} <= value.keys():
        others = [{"id": name, "handler": "input"} for name in value.get("dependencies", ())]
        value = {"name": "of one node", "dag": {"nodes": [*others, value]}}
    if "dag" not in value:
        return []
    checks = dict(Catalogue(plugin.workflow_engine_handlers({})).config_checks)
    checks |= {name: lambda _config: () for name in TUTORIAL_HANDLERS}
    return [f"{problem.path}: {problem.message}" for problem in validate_definition(value, checks)]


@pytest.mark.parametrize("block", json_blocks(), ids=lambda block: block.place)
def test_it_is_json_and_its_workflow_would_be_accepted(block: Block) -> None:
    assert problems_of(json.loads(block.text)) == []


def test_there_are_workflows_and_nodes_among_them() -> None:
    values = [json.loads(block.text) for block in json_blocks()]

    assert sum("dag" in value for value in values) >= 5
    assert sum("handler" in value for value in values) >= 1


@pytest.mark.parametrize(
    "value", [{"name": "x", "dag": {"nodes": []}}, {"id": "a", "handler": "no_such"}, {"id": "a b", "handler": "input"}]
)
def test_a_bad_workflow_is_noticed(value: Any) -> None:
    assert problems_of(value) != []
