"""Every bound of the engine, from the file that holds them."""

from __future__ import annotations

from workflow_engine.runtime.core import limits

from .markdown import code, table


def names() -> list[str]:
    """The limits, in the order of the file."""
    return [name for name in vars(limits) if name.startswith("MAX_")]


def render() -> str:
    """The table."""
    return table(("limit", "value"), [(code(name), shown(getattr(limits, name))) for name in names()])


def shown(value: float) -> str:
    """A number with its thousands apart."""
    return f"{value:,.0f}"
