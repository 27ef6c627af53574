"""What a handler declares of how often it may run, and how its failed attempts are retried."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from ..runtime.core.limits import MAX_DELAY_SECONDS, MAX_EXPONENTIAL_BASE, MAX_RETRIES, MAX_TIMEOUT_SECONDS
from ..runtime.core.permits import MAX_LEVEL

MAX_RUNNING = 1_000_000


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`count` attempts begin in `per_seconds` seconds, on all replicas together; `count` at once after a quiet time.

    `key`, if given, is called with the attempt's configuration and names what the limit is for, such as a tenant or a
    host: each has its own. None, and no `key`: one limit for the whole handler. `RetryAfter` with `seconds` closes the
    key of its attempt for everybody until then. Raises `TypeError` and `ValueError`.
    """

    count: int
    per_seconds: float
    key: Callable[[Any], str | None] | None = None

    def __post_init__(self) -> None:
        check_count("RateLimit: count", self.count, 1, MAX_RUNNING)
        check_seconds("RateLimit: per_seconds", self.per_seconds, MAX_TIMEOUT_SECONDS)
        if not 0 < self.count * round(self.per_seconds * 1_000_000) < MAX_LEVEL:
            raise ValueError(
                f"RateLimit: {self.count} in {self.per_seconds:g} seconds cannot be kept to the microsecond; say the "
                f"same of a time that is {'shorter' if self.per_seconds > 1 else 'longer'}"
            )
        if self.key is not None and not callable(self.key):
            raise TypeError(
                f"RateLimit: key must be a function of the configuration, such as lambda config: config.tenant, "
                f"not {self.key!r}"
            )


@dataclass(frozen=True, slots=True)
class RetryDefaults:
    """How failed attempts of a handler are retried where a workflow does not say. None: as the settings say.

    `max_retries` are the attempts after the first one; delays are in seconds. Raises `TypeError` and `ValueError`.
    """

    max_retries: int | None = None
    initial_delay_seconds: float | None = None
    max_delay_seconds: float | None = None
    exponential_base: float | None = None
    jitter: bool | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, field.name) is None for field in fields(self)):
            raise ValueError("RetryDefaults: says nothing; give it max_retries or another of its values")
        if self.max_retries is not None:
            check_count("RetryDefaults: max_retries", self.max_retries, 0, MAX_RETRIES)
        if self.initial_delay_seconds is not None:
            check_seconds("RetryDefaults: initial_delay_seconds", self.initial_delay_seconds, MAX_DELAY_SECONDS, 0)
        if self.max_delay_seconds is not None:
            check_seconds("RetryDefaults: max_delay_seconds", self.max_delay_seconds, MAX_DELAY_SECONDS, 0)
        if self.exponential_base is not None:
            check_number("RetryDefaults: exponential_base", self.exponential_base, 1, MAX_EXPONENTIAL_BASE)
        if self.jitter is not None and not isinstance(self.jitter, bool):
            raise TypeError(f"RetryDefaults: jitter must be True or False, not {self.jitter!r}")


def check_count(what: str, value: object, least: int, most: int) -> None:
    """Raise `TypeError` or `ValueError` for what is no whole number in these bounds; `what` names it."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what} must be a whole number, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{what} must be from {least} to {most}, not {value}")


def check_number(what: str, value: object, least: float, most: float) -> None:
    """Raise `TypeError` or `ValueError` for what is no number in these bounds; `what` names it."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise TypeError(f"{what} must be a number, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{what} must be from {least:g} to {most:g}, not {value}")


def check_seconds(what: str, value: object, most: float, least: float | None = None) -> None:
    """As `check_number`, for seconds: above 0, if there is no `least`."""
    if least is not None:
        check_number(what, value, least, most)
        return
    check_number(what, value, -math.inf, math.inf)
    assert isinstance(value, (int, float))
    if not 0 < value <= most:
        raise ValueError(f"{what} must be above 0 and at most {most:g} seconds, not {value}")
