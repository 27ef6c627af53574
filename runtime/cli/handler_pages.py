"""The documentation of handlers, made from what they declare: as text, or as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..ports import HandlerRecord

DEEPEST = 4
"""How many objects inside objects are shown."""
COLUMNS = ("key", "type", "default", "meaning")

Row = tuple[str, str, str, str]


def handler_page(record: HandlerRecord, *, markdown: bool) -> str:
    """One handler: what it does, what it takes, what it gives, what it declares."""
    title = f"## {record.name}" if markdown else f"{record.name}\n{'=' * len(record.name)}"
    parts = [title, record.description.strip() or "(no description)"]
    if record.distribution:
        parts.append(f"From {record.distribution} {record.version or ''}".rstrip() + ".")
    for heading, text, otherwise in (
        ("Configuration", record.config_schema, "Takes any configuration."),
        ("Output", record.output_schema, "Gives any JSON value."),
    ):
        rows = [] if text is None else list(schema_rows(json.loads(text)))
        parts.append(f"### {heading}" if markdown else heading)
        parts.append(_table(COLUMNS, rows, markdown=markdown) if rows else "No keys." if text else otherwise)
    declared = json.loads(record.declared or "{}")
    parts.append("### Declared" if markdown else "Declared")
    parts.append(_table(("name", "value"), _flat(declared), markdown=markdown))
    return "\n\n".join(parts)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return rows


def schema_rows(schema: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each key of an object, and of the objects in it."""
    yield from _rows(schema, schema, "", 0)


def _rows(part: Mapping[str, Any], root: Mapping[str, Any], prefix: str, depth: int) -> Iterator[Row]:
    part = _resolved(part, root)
    if depth >= DEEPEST:
        return
    required = part.get("required", ())
    for name, field in part.get("properties", {}).items():
        resolved = _resolved(field, root)
        default = "required" if name in required else json.dumps(field["default"]) if "default" in field else ""
        meaning = str(field.get("description") or resolved.get("description") or "")
        yield prefix + name, _type_of(field, root), default, " ".join(meaning.split())
        for alternative in [resolved, *map(lambda each: _resolved(each, root), resolved.get("anyOf", ()))]:
            yield from _rows(alternative, root, f"{prefix}{name}.", depth + 1)
        if isinstance(resolved.get("items"), Mapping):
            yield from _rows(resolved["items"], root, f"{prefix}{name}[].", depth + 1)


def _resolved(part: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference into the schema's own definitions stands for."""
    if isinstance(part, Mapping) and "$ref" in part:
        part = root.get("$defs", {}).get(str(part["$ref"]).rpartition("/")[2], {})
    return part if isinstance(part, Mapping) else {}


def _type_of(field: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    resolved = _resolved(field, root)
    if "const" in resolved or "enum" in resolved:
        return " | ".join(json.dumps(value) for value in resolved.get("enum", [resolved.get("const")]))
    for keyword in ("anyOf", "oneOf"):
        if keyword in resolved:
            return " | ".join(dict.fromkeys(_type_of(each, root) for each in resolved[keyword]))
    kind = resolved.get("type", "any")
    if kind == "array" and isinstance(resolved.get("items"), Mapping):
        return f"array of {_type_of(resolved['items'], root)}"
    return kind if isinstance(kind, str) else " | ".join(kind)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, markdown: bool) -> str:
    lines = [list(columns), *map(list, rows)]
    if markdown:
        lines.insert(1, ["---"] * len(columns))
        return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
