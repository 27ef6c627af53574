"""Every environment variable, from the settings themselves."""

from __future__ import annotations

from workflow_engine.config.tables import Row, setting_groups

from .markdown import code, table

_HEAD = ("variable", "default", "allowed", "meaning")


def render() -> str:
    """A section for each group."""
    return "\n\n".join(f"## {title}\n\n{table(_HEAD, map(_row, rows))}" for title, rows in setting_groups())


def _row(row: Row) -> tuple[str, str, str, str]:
    return code(row.variable), row.default and code(row.default), row.allowed, row.meaning
