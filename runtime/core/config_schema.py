"""A configuration against the JSON Schema of a handler that another process has.

It is an early word, and never the last: the process that runs the handler checks each attempt's configuration by
itself. So whatever cannot be told here, for a template that is no value yet, or a schema that is too much, passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .input_schema import SchemaChecker, check_input_schema
from .json_text import InvalidJson, decode
from .template import contains_template

ConfigFault = tuple[tuple[str | int, ...], str]

_OF_THE_KEYS_ALONE = frozenset({"required", "additionalProperties"})
"""Keywords that look at an object's keys, which are never templates. Any other may go by a value at any depth."""


def usable_schema(text: str | None) -> Mapping[str, Any] | None:
    """A schema as it was stored; None when there is none, or none that can be used here."""
    if text is None:
        return None
    try:
        schema = decode(text.encode())
    except InvalidJson:
        return None
    return schema if isinstance(schema, Mapping) and not check_input_schema(schema) else None


class SchemaCheck:
    """The `ConfigCheck` of a schema, for the nodes of one definition: all of them together take a bounded time."""

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        """`schema` is a usable one, or None: then every configuration passes."""
        self._schema = schema
        self._checker: SchemaChecker | None = None

    def __call__(self, config: Mapping[str, Any]) -> Sequence[ConfigFault]:
        if self._schema is None:
            return ()
        try:
            if self._checker is None:
                self._checker = SchemaChecker(self._schema)
            return list(_certain(self._checker.faults(config), config))
        except Exception:  # whatever a library makes of a schema that a stranger has written
            return ()


def _certain(faults: Iterable[tuple[list[str | int], str, str]], config: Mapping[str, Any]) -> Iterator[ConfigFault]:
    """The faults that stay whatever the templates come to. Those below the top are looked at by the caller."""
    has_templates = contains_template(config)
    for path, keyword, message in faults:
        if path or keyword in _OF_THE_KEYS_ALONE or not has_templates:
            yield tuple(path), message
