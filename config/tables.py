"""The settings as Markdown tables, generated from their definitions, for the README and the reference."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from ..runtime.core.limits import MAX_TIMEOUT_SECONDS
from .families import DEFAULT, FAMILIES, Family
from .kinds import ROLES, Unit
from .messages import allowed
from .settings import GROUPS

BEGIN_MARK = "<!-- settings: written by python -m workflow_engine.config README.md -->"
END_MARK = "<!-- end of the settings -->"


class Row(NamedTuple):
    """One variable, in words."""

    variable: str
    default: str
    meaning: str
    allowed: str


class Group(NamedTuple):
    """Variables that belong together."""

    title: str
    rows: list[Row]


def setting_groups() -> list[Group]:
    """Every variable there is, by group."""
    groups = [
        Group(
            inspect.getdoc(group) or "",
            [_row(name, field) for name, field in group.model_fields.items()],
        )
        for group in GROUPS
    ]
    position = next(index for index, group in enumerate(groups) if group.title == "Retry")
    groups[position:position] = [Group(family.title, list(_family_rows(family))) for family in FAMILIES]
    return groups


def markdown_tables() -> str:
    """A table for each group, under its title."""
    parts = []
    for title, rows in setting_groups():
        lines = [f"**{title}**", "", "| variable | default | meaning |", "| --- | --- | --- |"]
        lines += [f"| `{row.variable}` | {row.default and f'`{row.default}`'} | {row.meaning} |" for row in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def with_tables(document: str) -> str:
    """The document with the tables between the two marks renewed. Raises `ValueError` without the marks."""
    before, begin, rest = document.partition(BEGIN_MARK)
    _, end, after = rest.partition(END_MARK)
    if not begin or not end:
        raise ValueError(f"the document needs the lines {BEGIN_MARK!r} and {END_MARK!r}")
    return f"{before}{begin}\n\n{markdown_tables()}\n\n{end}{after}"


def rewrite(path: Path) -> None:
    """Renew the tables in a file."""
    path.write_text(with_tables(path.read_text("utf-8")), "utf-8")


def text_of(value: Any) -> str:
    """A value as it would be written into its variable; empty for none."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "all" if value == ROLES else ",".join(value)
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _row(name: str, field: FieldInfo) -> Row:
    unit = next((each for each in field.metadata if isinstance(each, Unit)), None)
    meaning = f"{field.description} ({unit.name})" if unit else str(field.description)
    return Row(name.upper(), text_of(field.default), meaning, allowed(field))


def _family_rows(family: Family) -> Iterator[Row]:
    allowed_seconds = f"a number of seconds above 0 and at most {MAX_TIMEOUT_SECONDS:.0f}"
    for suffix, seconds in family.defaults.items():
        handler = "every other handler" if suffix == DEFAULT else f"`{suffix.lower()}`"
        meaning = f"{family.meaning.format(handler=handler)} (seconds)"
        yield Row(family.prefix + suffix, f"{seconds:g}", meaning, allowed_seconds)
    yield Row(f"{family.prefix}<HANDLER>", "", "the same for any other handler, by its name", allowed_seconds)
