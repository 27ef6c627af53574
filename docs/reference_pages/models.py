"""Pydantic models as tables: each field with its type, bounds, default and meaning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from .markdown import code, table

_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "pattern": "matches `{}`",
}


def fields_table(model: type[BaseModel]) -> str:
    """The fields of `model`."""
    return schema_table(model.model_json_schema(), type_of)


def schema_table(schema: Mapping[str, Any], shown_type: Callable[[Mapping[str, Any]], str]) -> str:
    """The properties of a JSON schema of an object; `shown_type` puts a type into words."""
    required = schema.get("required", ())
    rows = [
        (code(name), shown_type(field), _default(field, name in required), _meaning(field))
        for name, field in schema.get("properties", {}).items()
    ]
    return table(("field", "type", "default", "meaning"), rows)


def type_of(field: Mapping[str, Any]) -> str:
    """The JSON type of a value, in words: `list of string`."""
    return _type(field, lambda name: name)


def linked_type(field: Mapping[str, Any], prefix: str) -> str:
    """The same, with links to the anchors of objects: `prefix` and the object's name."""
    return _type(field, lambda name: f"[{name}](#{prefix}{name})")


def _type(field: Mapping[str, Any], shown: Callable[[str], str]) -> str:
    if "$ref" in field:
        return shown(field["$ref"].rpartition("/")[2])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(each, shown) for each in field["anyOf"] if each.get("type") != "null"))
    if "enum" in field:
        return " or ".join(code(value) for value in field["enum"])
    kind = str(field.get("type", "any value"))
    return f"list of {_type(field.get('items', {}), shown)}" if kind == "array" else kind


def _default(field: Mapping[str, Any], required: bool) -> str:
    if required:
        return "required"
    default = field.get("default")
    return "" if default is None else code(json.dumps(default))


def _meaning(field: Mapping[str, Any]) -> str:
    bounds = {name: value for each in (field, *field.get("anyOf", ())) for name, value in each.items()}
    said = [_bound(template, bounds[name]) for name, template in _BOUNDS.items() if name in bounds]
    return "; ".join([*filter(None, [str(field.get("description", "")).rstrip(".")]), *said])


def _bound(template: str, value: object) -> str:
    """A bound in words; at least one of something is "not empty"."""
    counts_something = template.startswith("at least {} ")
    return "not empty" if counts_something and value == 1 else template.format(_shown(value))


def _shown(value: object) -> str:
    return f"{value:,.10g}".removesuffix(".0") if isinstance(value, (int, float)) else str(value)
