"""Values that several routes take: moments, waits, page sizes, names."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema

from ..core.limits import MAX_NAME_CHARACTERS
from ..core.problem import show

MAX_WAIT_SECONDS = 300.0
MAX_PAGE_ITEMS = 200
DEFAULT_PAGE_ITEMS = 50
MAX_VERSION = 2**31 - 1

_MOMENT = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:)([0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_NUMBER = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_moment(value: Any) -> int:
    """RFC 3339 text as epoch milliseconds. Raises `ValueError`."""
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if match is not None:
        day, time, second, fraction, zone = match.groups()
        # A leap second is the first moment of the next minute to a computer.
        leap = second == "60"
        zone = "+00:00" if zone in "Zz" else zone
        try:
            moment = datetime.fromisoformat(f"{day}T{time}{'59' if leap else second}{(fraction or '')[:7]}{zone}")
            # What would be in another year than 1 to 9999 in UTC could not be shown again.
            return (moment.astimezone(UTC) + timedelta(seconds=leap) - _EPOCH) // timedelta(milliseconds=1)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"must be a time as in RFC 3339, such as 2026-01-31T12:00:00Z, got {show(value)}")


def format_moment(milliseconds: int | None) -> str | None:
    """RFC 3339, UTC, with milliseconds."""
    if milliseconds is None:
        return None
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parse_wait(value: Any) -> float:
    seconds = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise ValueError(f"must be seconds from 0 to {MAX_WAIT_SECONDS:g}, got {show(value)}")
    return seconds


def _parse_number(value: Any) -> float:
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise ValueError(f"must be a number, got {show(value)}")
    return float(value)


def _refuse_other_than_numbers(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a whole number, got {show(value)}")
    return value


Moment = Annotated[int, BeforeValidator(parse_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
"""A moment: RFC 3339 outside, epoch milliseconds inside."""

WaitSeconds = Annotated[
    float,
    BeforeValidator(_parse_wait),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS}),
]
# As JSON Schema has whole numbers: 5 and 5.0, not "5" and not true. It stands last, around the bounds: these would
# not be in the schema otherwise.
WHOLE_NUMBER = BeforeValidator(_refuse_other_than_numbers)
NUMBER = BeforeValidator(_parse_number)
"""A number of a query, as JSON writes it. It stands last, too."""
PageSize = Annotated[int, Field(ge=1, le=MAX_PAGE_ITEMS, description="how many items at most"), WHOLE_NUMBER]
Version = Annotated[int, Field(ge=1, le=MAX_VERSION), WHOLE_NUMBER]
DefinitionName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARACTERS)]
