"""The hooks of the plugin API, each with its exact signature, and the values that they deal in."""

from __future__ import annotations

import inspect
import re

from workflow_engine.plugins import PLUGIN_API_VERSION, hooks, values

from .markdown import anchor

VALUES = (
    values.EngineProcess,
    values.Attempt,
    values.AttemptOutcome,
    values.FinishedExecution,
    values.ApiRequest,
    values.ApiCaller,
    values.PluginRoute,
    values.PluginCall,
    values.PluginCommand,
)
_ADDED = re.compile(r"\.\. versionadded:: (\S+)")


def signature(name: str) -> str:
    """A hook as a plugin writes it, with all arguments that it may take."""
    found = inspect.signature(getattr(hooks.HookSpecifications, name))
    arguments = [f"{each.name}: {each.annotation}" for each in found.parameters.values() if each.name != "self"]
    return f"{name}({', '.join(arguments)}) -> {found.return_annotation}"


def render() -> str:
    """The version, and a section for each hook."""
    sections = [f"This engine has version `{PLUGIN_API_VERSION}` of the plugin API."]
    for name in hooks.HOOKS:
        text = inspect.getdoc(getattr(hooks.HookSpecifications, name)) or ""
        added = _ADDED.search(text)
        assert added is not None, f"{name} does not say since when it is there"
        sections += [
            anchor(f"hook-{name}"),
            f"### {name}",
            f"```python\ndef {signature(name)}\n```",
            _ADDED.sub(f"Since version {added[1]} of the plugin API.", text),
        ]
    return "\n\n".join(sections)
