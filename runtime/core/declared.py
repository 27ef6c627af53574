"""What a handler declares for nodes that say nothing, as every process may know it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from .limits import MAX_DELAY_SECONDS, MAX_EXPONENTIAL_BASE, MAX_RETRIES, MAX_TIMEOUT_SECONDS
from .retry import RetryPolicy


class Declared(NamedTuple):
    """None: nothing. `retry` is a part of a `RetryPolicy`, by its fields. Times are in seconds."""

    timeout_seconds: float | None = None
    stale_timeout_seconds: float | None = None
    retry: Mapping[str, Any] | None = None

    def over(self, policy: RetryPolicy) -> RetryPolicy:
        """A policy with what is declared in its place."""
        return replace(policy, **self.retry) if self.retry else policy


NOTHING = Declared()


def read_declared(text: str | None) -> Declared:
    """What the catalogue has of a handler. What is none, of another version perhaps, is as if it were not there."""
    try:
        said = json.loads(text or "{}")
    except ValueError:
        return NOTHING
    if not isinstance(said, dict):
        return NOTHING
    retry = said.get("retry")
    given = retry if isinstance(retry, dict) else {}
    count, jitter = given.get("max_retries"), given.get("jitter")
    found = {
        "max_retries": count if isinstance(count, int) and _number(count, 0, MAX_RETRIES) is not None else None,
        "initial_delay_seconds": _number(given.get("initial_delay_seconds"), 0, MAX_DELAY_SECONDS),
        "max_delay_seconds": _number(given.get("max_delay_seconds"), 0, MAX_DELAY_SECONDS),
        "exponential_base": _number(given.get("exponential_base"), 1, MAX_EXPONENTIAL_BASE),
        "jitter": jitter if isinstance(jitter, bool) else None,
    }
    return Declared(
        _number(said.get("timeout_seconds"), 0, MAX_TIMEOUT_SECONDS) or None,
        _number(said.get("stale_timeout_seconds"), 0, MAX_TIMEOUT_SECONDS) or None,
        {name: value for name, value in found.items() if value is not None} or None,
    )


def _number(value: object, least: float, most: float) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    return None
