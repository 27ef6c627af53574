"""What a check found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One thing that a check found. `remedy` says what to do, where something is to be done."""

    check: str
    level: Literal["ok", "warning", "error"]
    message: str
    remedy: str | None


def ok(check: str, message: str) -> Finding:
    """Something is as it should be."""
    return Finding(check, "ok", message, None)


def warning(check: str, message: str, remedy: str | None) -> Finding:
    """Something works, but perhaps not as it is meant."""
    return Finding(check, "warning", message, remedy)


def error(check: str, message: str, remedy: str | None) -> Finding:
    """`serve` would not start, or not do what it should."""
    return Finding(check, "error", message, remedy)
