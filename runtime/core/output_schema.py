"""What a template can find in a node's output, by the JSON Schema that its handler has declared.

A handler with a declared output gives what its model writes: an object has the keys of its `properties` and no others,
unless `additionalProperties` lets some in. Whatever cannot be told from a schema counts as possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .json_text import InvalidJson, decode

MAX_ALTERNATIVES = 64
"""Of the shapes that one value may have. With more than that, everything counts as possible."""

_APPLICATORS = frozenset(
    {"$dynamicRef", "if", "then", "else", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"}
)
"""Keywords that say of keys and items what is not looked at here."""


class Missing(NamedTuple):
    """What a path does not find: its segment at `position`. `keys` are those that could be there."""

    position: int
    keys: Sequence[str]


class _CannotTell(Exception):
    """Anything may be there."""


def output_schemas(texts: Iterable[tuple[str, str | None]]) -> Mapping[str, Mapping[str, Any]]:
    """The schemas of outputs by handler, of those that have a usable one; `texts` are names with JSON text."""
    found = {}
    for name, text in texts:
        if text is None:
            continue
        try:
            schema = decode(text.encode())
        except InvalidJson:
            continue
        if isinstance(schema, Mapping):
            found[name] = schema
    return found


def find_missing(schema: Mapping[str, Any], path: Sequence[str | int]) -> Missing | None:
    """What of `path`, from the output on, can never be there; None when all of it may be."""
    try:
        shapes = _alternatives([schema], schema)
        for position, segment in enumerate(path):
            below = [part for shape in shapes if (part := _below(shape, segment)) is not None]
            if not below:
                return Missing(position, sorted({key for shape in shapes for key in shape.get("properties", ())}))
            shapes = _alternatives(below, schema)
    except Exception:  # what a stranger has written may be no schema at all
        return None
    return None


def _alternatives(parts: Sequence[Any], root: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The shapes that a value may have, each without references and alternatives of its own. Raises `_CannotTell`."""
    found: list[Mapping[str, Any]] = []
    waiting = list(parts)
    for looked_at in range(len(waiting) + MAX_ALTERNATIVES):
        if not waiting:
            return found
        part = waiting.pop()
        if part is False:
            continue
        if not isinstance(part, Mapping) or not _APPLICATORS.isdisjoint(part) or looked_at >= MAX_ALTERNATIVES:
            raise _CannotTell
        more = list(_nested(part, root))
        if more:
            waiting += more
        else:
            found.append(part)
    raise _CannotTell


def _nested(part: Mapping[str, Any], root: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas that a schema stands for; nothing when it speaks for itself."""
    if "properties" in part:
        if any(key in part for key in ("$ref", "anyOf", "oneOf", "allOf")):
            raise _CannotTell
        return
    if "$ref" in part:
        yield _referred(part["$ref"], root)
    for keyword in ("anyOf", "oneOf"):
        yield from part.get(keyword, ())
    if "allOf" in part:
        if len(part["allOf"]) != 1:
            raise _CannotTell
        yield part["allOf"][0]


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    """The part of the document that a reference names."""
    start, *segments = reference.split("/")
    if start != "#":
        raise _CannotTell
    part: Any = root
    for segment in segments:
        part = part[segment.replace("~1", "/").replace("~0", "~")]
    return part


def _below(shape: Mapping[str, Any], segment: str | int) -> Any:
    """The schema of what a segment leads to; None when it leads nowhere. Raises `_CannotTell`."""
    wanted = "array" if isinstance(segment, int) else "object"
    types = shape.get("type")
    if types is None:
        if "const" in shape or "enum" in shape:
            values = shape.get("enum", [shape.get("const")])
            if not any(isinstance(value, dict | list) for value in values):
                return None
        if "properties" not in shape and "items" not in shape:
            raise _CannotTell
    elif wanted not in ([types] if isinstance(types, str) else types):
        return None
    return _item(shape, segment) if isinstance(segment, int) else _value(shape, segment)


def _value(shape: Mapping[str, Any], key: str) -> Any:
    properties = shape.get("properties", {})
    if key in properties:
        return _open(properties[key])
    if "patternProperties" in shape:
        raise _CannotTell
    return _open(shape.get("additionalProperties", "properties" not in shape))


def _item(shape: Mapping[str, Any], index: int) -> Any:
    first = shape.get("prefixItems", ())
    if index >= shape.get("maxItems", index + 1):
        return None
    return _open(first[index] if index < len(first) else shape.get("items", True))


def _open(schema: Any) -> Any:
    """A schema as it is; None for the one that takes nothing. Raises `_CannotTell` for one that takes everything."""
    if schema is True:
        raise _CannotTell
    return None if schema is False else schema
