"""Families of variables: one for each handler, named after it, and one for all the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ..runtime.core.limits import MAX_TIMEOUT_SECONDS

DEFAULT = "DEFAULT"


class Family(NamedTuple):
    """Variables that begin alike. `defaults` are in seconds, by the handler's part of the name.

    `meaning` has a place for the handler.
    """

    title: str
    prefix: str
    field: str
    meaning: str
    defaults: Mapping[str, float]

    def read(self, environment: Mapping[str, str]) -> tuple[dict[str, float], list[str]]:
        """The seconds by suffix, the defaults included, and a line for each bad variable."""
        seconds = dict(self.defaults)
        problems = []
        for name, text in self.members(environment):
            value = _seconds(text)
            if name.upper() == self.prefix:
                problems.append(f"{name}: names no handler; write {self.prefix}{DEFAULT} for all that have none")
            elif value is None:
                problems.append(
                    f"{name}: must be a number of seconds above 0 and at most {MAX_TIMEOUT_SECONDS:.0f}, "
                    f"got {text[:80]!r}"
                )
            else:
                seconds[name.upper().removeprefix(self.prefix)] = value
        return seconds, problems

    def members(self, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """The variables of this family that are set, and their texts."""
        return ((name, text) for name, text in environment.items() if name.upper().startswith(self.prefix))

    def own(self, seconds: Mapping[str, float], handler: str) -> float | None:
        """The seconds of this very handler, if there are any."""
        return seconds.get(suffix_of(handler))

    def of(self, seconds: Mapping[str, float], handler: str) -> float:
        """The seconds of a handler."""
        return seconds.get(suffix_of(handler), seconds[DEFAULT])


HANDLER_TIMEOUTS = Family(
    "Handler timeouts",
    "HANDLER_TIMEOUT_",
    "handler_timeouts_seconds",
    "longest attempt of {handler}, unless its node says otherwise",
    {"INPUT": 30.0, "OUTPUT": 30.0, "CALL_EXTERNAL_SERVICE": 60.0, "LLM_SERVICE": 120.0, DEFAULT: 60.0},
)
STALE_TIMEOUTS = Family(
    "Stale timeouts",
    "STALE_TIMEOUT_",
    "stale_timeouts_seconds",
    "how long a delivery of {handler} may be out, while heartbeats cannot be read, before it counts as lost",
    {"INPUT": 30.0, "OUTPUT": 30.0, "CALL_EXTERNAL_SERVICE": 120.0, "LLM_SERVICE": 180.0, DEFAULT: 120.0},
)
FAMILIES = (HANDLER_TIMEOUTS, STALE_TIMEOUTS)


def suffix_of(handler: str) -> str:
    """A handler's part of a variable's name: `my-own.2` is `MY_OWN_2`."""
    return handler.upper().replace("-", "_").replace(".", "_")


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value <= MAX_TIMEOUT_SECONDS else None
