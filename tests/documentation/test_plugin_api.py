"""The reference of the plugin API has every hook with its exact signature, and every name that a plugin may import."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from reference_pages import fill, hooks

from workflow_engine import plugins
from workflow_engine.plugins import PLUGIN_API_VERSION
from workflow_engine.plugins.hooks import HOOKS, PLAIN_HOOKS, HookSpecifications

ROOT = Path(__file__).parents[2]
PAGE = fill((ROOT / "docs/reference/plugin-api.md").read_text("utf-8"))
SOURCE = (ROOT / "plugins/hooks.py").read_text("utf-8")
TESTS = "".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_plugin*.py"))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_stands_there_with_its_signature(hook: str) -> None:
    written = re.search(rf"def {hook}\(self(?:, )?(.*?)\) -> (.*?):(?:  #.*)?\n", SOURCE)
    assert written is not None
    signature = f"{hook}({written[1]}) -> {written[2]}"
    assert hooks.signature(hook) == signature
    assert f"### {hook}\n\n```python\ndef {signature}\n```\n" in PAGE


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_says_what_it_is_for(hook: str) -> None:
    text = inspect.getdoc(getattr(HookSpecifications, hook)) or ""
    since = re.search(r"\.\. versionadded:: (\d+)\.(\d+)$", text)
    assert since is not None
    assert (int(since[1]), int(since[2])) <= tuple(map(int, PLUGIN_API_VERSION.split(".")))
    waits = "async def" in text
    assert waits is (hook not in PLAIN_HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_is_implemented_in_a_test(hook: str) -> None:
    assert re.search(rf"def {hook}\b|\"{hook}\"", TESTS)


@pytest.mark.parametrize("name", plugins.__all__)
def test_what_may_be_imported_stands_there(name: str) -> None:
    assert re.search(rf"^\.\. auto\w+:: workflow_engine\.plugins\.{name}\b", PAGE, re.MULTILINE)
