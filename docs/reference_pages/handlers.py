"""The built-in handlers with their configurations, from the catalogue that workflows are checked against."""

from __future__ import annotations

from workflow_engine.handlers import plugin
from workflow_engine.plugins import Handler

from .markdown import anchor
from .models import fields_table


def handlers() -> list[Handler]:
    """The built-in handlers."""
    return list(plugin.workflow_engine_handlers({}))


def render() -> str:
    """A section for each."""
    return "\n\n".join(_section(handler) for handler in handlers())


def _section(handler: Handler) -> str:
    parts = [anchor(f"handler-{handler.name}"), f"## {handler.name}", handler.description]
    parts.append("It takes no configuration." if handler.config_model is None else fields_table(handler.config_model))
    return "\n\n".join(parts)
