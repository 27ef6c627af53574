"""Asking before something is done to everything that meets a filter."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from .errors import UsageError, report


def confirm(verb: str, what: str, wanted: Mapping[str, Any]) -> None:
    """Ask whether to `verb` every `what` that meets these conditions. Raises `UsageError` unless the answer is yes."""
    conditions = ", ".join(f"{name} {_words(value)}" for name, value in wanted.items()) or "no condition"
    if not sys.stdin.isatty():
        raise UsageError(f"nobody can be asked whether to {verb} them all: add --yes")
    report(f"{verb.capitalize()} every {what} with {conditions}? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was done")


def _words(value: Any) -> str:
    return " or ".join(value) if isinstance(value, list) else str(value)
