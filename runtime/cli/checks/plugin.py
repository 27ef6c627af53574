"""What would keep a plugin from being loaded, and what its users would miss."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ....plugins.discovery import Plugin, PluginError
from ....plugins.handler import Handler
from ....plugins.offers import commands_of, routes_of
from ....plugins.schemas import CONFIG_MODE, OUTPUT_MODE, schema_text
from ....plugins.sources import Policy
from .finding import Finding, error, ok, warning

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


def check_plugin(plugin: Plugin, settings: Mapping[str, Any], commands: Sequence[str]) -> Iterator[Finding]:
    """Everything about a plugin. `commands` are those of the engine."""
    if plugin.state != "loaded":
        yield error("plugin", str(plugin.reason), None)
        return
    hooks = f", hooks: {', '.join(plugin.hooks)}" if plugin.hooks else ""
    yield ok("plugin", f"{plugin.name} can be loaded: {len(plugin.handlers)} handlers{hooks}")
    refusal = None if plugin.origin.distribution is None else Policy.of(settings).refusal(plugin.origin)
    if refusal is not None:
        yield warning("plugin", f"with these settings it is not loaded: {refusal}", None)
    yield from _check_offers(plugin, commands)
    for handler in plugin.handlers:
        yield from _check_handler(handler)


def _check_offers(plugin: Plugin, commands: Sequence[str]) -> Iterator[Finding]:
    try:
        for route in routes_of([plugin]):
            yield ok("routes", f"{route.route.method} {route.path}, scope {route.route.scope}")
        for name in commands_of([plugin], commands):
            yield ok("commands", f"workflow-engine {name}")
    except PluginError as bad:
        yield error("plugin", str(bad), None)


def _check_handler(handler: Handler) -> Iterator[Finding]:
    found: list[Finding] = []
    check = f"handler {handler.name}"
    if not handler.description.strip():
        found.append(warning(check, "it has no docstring", "Say what it does: users see it in lists and at /docs."))
    if not _NAME.fullmatch(handler.name):
        found.append(
            warning(
                check, "its name is unlike others", "Use lower-case words with _, and . after a prefix of your own."
            )
        )
    if handler.config_model is None:
        found.append(
            warning(check, "its configuration may be anything", "Declare config=Model: mistakes are found at submit.")
        )
    for argument, model, mode in (
        ("config", handler.config_model, CONFIG_MODE),
        ("output", handler.output_model, OUTPUT_MODE),
    ):
        found += _check_schema(check, argument, json.loads(schema_text(model, mode) or "{}"))
    yield from found or [ok(check, "its name, its docstring and its schemas are good")]


def _check_schema(check: str, argument: str, schema: Mapping[str, Any]) -> Iterator[Finding]:
    for name, field in schema.get("properties", {}).items():
        place = f"{argument}.{name}"
        if not isinstance(field, Mapping):
            continue
        if not field.get("description") and "$ref" not in field:
            yield warning(check, f"{place} has no description", 'Write Field(description="...").')
        if not _is_of_some_type(field):
            yield warning(check, f"{place} may be anything", "Give it a type, if it has one.")


def _is_of_some_type(field: Mapping[str, Any]) -> bool:
    return any(key in field for key in ("type", "$ref", "anyOf", "oneOf", "allOf", "enum", "const"))
