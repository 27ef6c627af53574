"""A workflow's input schema (JSON Schema, draft 2020-12 unless `$schema` says otherwise).

Three things a user's schema must not be able to do: fetch anything (references stay inside the
document), hold the process with a regular expression (patterns run in linear time, in RE2), or hold
it in any other way (steps are counted; the size of messages does not depend on the size of values).

`jsonschema` does the work. Where it would use Python's regular expressions, compare every item with
every other, or change to an unguarded validator, the keyword is replaced here or the schema refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from .limits import (
    MAX_JSON_DEPTH,
    MAX_SCHEMA_LEVELS,
    MAX_SCHEMA_PATTERNS,
    MAX_SCHEMA_STEPS,
    MAX_SCHEMA_VALUES,
)
from .problem import Problem, join_path, show

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MAX_SCHEMA_PROBLEMS = 50
MAX_MESSAGE_CHARACTERS = 500
MAX_SHOWN_ITEMS = 10

_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"})
"""Keywords whose value is an object of schemas: its keys are names, not keywords."""

_DATA = frozenset({"enum", "const", "default", "examples"})
"""Keywords whose value is data: what looks like a keyword in it is none."""

Fault = tuple[list[str | int], str]


def check_input_schema(schema: Mapping[str, Any]) -> list[Fault]:
    """What keeps `schema` from being used: pairs of (keys and indexes down to the fault, message)."""
    draft = _draft(schema)
    if draft is None:
        return [(["$schema"], f"{show(schema['$schema'])} is no draft of JSON Schema that is known here; remove it")]
    values = list(islice(_values(schema), MAX_SCHEMA_VALUES + 1))
    if len(values) > MAX_SCHEMA_VALUES:
        return [([], f"has more than {MAX_SCHEMA_VALUES} values; make it smaller")]
    if any(len(path) > MAX_JSON_DEPTH for path, _ in values):
        return [([], f"is nested deeper than {MAX_JSON_DEPTH} levels")]
    objects = [(path, item) for path, item in values if isinstance(item, Mapping)]
    faults = list(islice(_shape_faults(draft, schema), MAX_SCHEMA_PROBLEMS))
    faults += islice(_keyword_faults(objects), MAX_SCHEMA_PROBLEMS)
    if not faults:
        faults += islice(_reference_faults(draft, schema, objects), MAX_SCHEMA_PROBLEMS)
    return [(path, message[:MAX_MESSAGE_CHARACTERS]) for path, message in faults[:MAX_SCHEMA_PROBLEMS]]


def validate_input(schema: Mapping[str, Any], parameters: Mapping[str, Any], base: str) -> list[Problem]:
    """Every way in which `parameters` do not fit `schema`, with paths below `base`."""
    found = []
    try:
        for path, _, message in SchemaChecker(schema).faults(parameters):
            found.append(Problem(join_path(base, path), message))
    except _TooDeep:
        deep = f"input_schema refers to itself without end, or goes more than {MAX_SCHEMA_LEVELS} keywords deep"
        found.append(Problem(base, deep))
    except _TooManySteps:
        found.append(Problem(base, f"checking it against input_schema takes more than {MAX_SCHEMA_STEPS} steps"))
    except Exception as error:  # whatever a library makes of a schema that was stored when less was checked
        reason = f"{type(error).__name__}: {error}"
        found.append(Problem(base, f"input_schema cannot be applied: {reason[:MAX_MESSAGE_CHARACTERS]}"))
    return found


# --- what is wrong with a schema ------------------------------------------------------------------


def _draft(schema: Mapping[str, Any]) -> Any:
    """The validator class of the schema's draft; None when that is not known."""
    from jsonschema import Draft202012Validator, validators

    named = schema.get("$schema", Draft202012Validator.META_SCHEMA["$id"])
    try:
        return validators.validator_for({"$schema": named}, default=None) if isinstance(named, str) else None  # type: ignore[arg-type]
    except ValueError:
        return None


def _values(schema: object) -> Iterator[tuple[list[str | int], Any]]:
    """Every value at or below `schema` with its path, but for data: whatever can be used as a schema is in it."""
    stack: list[tuple[list[str | int], Any]] = [([], schema)]
    while stack:
        path, item = stack.pop()
        yield path, item
        if len(path) > MAX_JSON_DEPTH:
            continue
        if isinstance(item, Mapping):
            for key, value in item.items():
                if key in _NAMES and isinstance(value, Mapping):
                    stack.extend(([*path, key, name], below) for name, below in value.items())
                elif key not in _DATA:
                    stack.append(([*path, key], value))
        elif isinstance(item, list):
            stack.extend(([*path, index], below) for index, below in enumerate(item))


def _shape_faults(draft: Any, schema: Mapping[str, Any]) -> Iterator[Fault]:
    seen = set()
    for error in draft(draft.META_SCHEMA).iter_errors(_abridged(schema, names=False)):
        fault = (tuple(error.absolute_path), error.message[:MAX_MESSAGE_CHARACTERS])
        if fault not in seen:
            seen.add(fault)
            yield list(error.absolute_path), error.message


def _abridged(value: Any, *, names: bool) -> Any:
    """A schema with short enums: some drafts want their items unique, which `jsonschema` checks pair by pair."""
    if isinstance(value, list):
        return [_abridged(item, names=False) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: (item[:1] if key == "enum" and isinstance(item, list) else item)
        if key in _DATA and not names
        else _abridged(item, names=key in _NAMES and not names)
        for key, item in value.items()
    }


def _keyword_faults(objects: Sequence[tuple[list[str | int], Mapping[str, Any]]]) -> Iterator[Fault]:
    has_pattern_properties = any("patternProperties" in item for _, item in objects)
    for path, item in objects:
        if path and "$schema" in item:
            yield [*path, "$schema"], "only the top of a schema may name its draft; remove it"
        if has_pattern_properties and "unevaluatedProperties" in item:
            yield [*path, "unevaluatedProperties"], "cannot be used in one schema with patternProperties"
    patterns = list(_patterns(objects))
    if len(patterns) > MAX_SCHEMA_PATTERNS:
        yield [], f"has more than {MAX_SCHEMA_PATTERNS} patterns"
        return
    for place, pattern in patterns:
        fault = _pattern_fault(pattern)
        if fault:
            yield place, f"the pattern {show(pattern)} cannot be used: {fault}"


def _patterns(objects: Sequence[tuple[list[str | int], Mapping[str, Any]]]) -> Iterator[tuple[list[str | int], str]]:
    for path, item in objects:
        pattern, patterns = item.get("pattern"), item.get("patternProperties")
        if isinstance(pattern, str):
            yield [*path, "pattern"], pattern
        if isinstance(patterns, Mapping):
            yield from (([*path, "patternProperties"], name) for name in patterns if isinstance(name, str))


def _reference_faults(
    draft: Any, schema: Mapping[str, Any], objects: Sequence[tuple[list[str | int], Mapping[str, Any]]]
) -> Iterator[Fault]:
    from referencing.exceptions import Unresolvable

    top = _resource(draft, schema)
    resolver = _registry(top).resolver_with_root(top)
    known = {id(item) for _, item in objects}
    for path, item in objects:
        for key in ("$ref", "$dynamicRef"):
            reference = item.get(key)
            if not isinstance(reference, str):
                continue
            try:
                target = _enter(resolver, draft, schema, path).lookup(reference).contents
                found = isinstance(target, bool) or id(target) in known
            except (Unresolvable, ValueError):
                found = False
            if not found:
                yield [*path, key], f"{show(reference)} is not in this schema; only references within it are followed"


def _enter(resolver: Any, draft: Any, schema: Any, path: Sequence[str | int]) -> Any:
    """The resolver for what stands at `path`: every `$id` on the way changes what references are relative to."""
    for segment in path:
        schema = schema[segment]
        if isinstance(schema, Mapping) and isinstance(schema.get("$id"), str):
            resolver = resolver.in_subresource(_resource(draft, schema))
    return resolver


def _resource(draft: Any, schema: Any) -> Any:
    from referencing.jsonschema import specification_with

    return specification_with(draft.META_SCHEMA.get("$id") or draft.META_SCHEMA["id"]).create_resource(schema)


def _registry(top: Any) -> Any:
    """The schema's own resources, all found beforehand: otherwise each lookup would search for them again."""
    from referencing.jsonschema import EMPTY_REGISTRY

    return EMPTY_REGISTRY.with_resource(top.id() or "", top).crawl()


# --- a validator that cannot be held up -----------------------------------------------------------


class _TooManySteps(Exception):
    """The work of one validation is more than allowed."""


class _TooDeep(Exception):
    """Keywords are checked within keywords deeper than allowed."""


class SchemaChecker:
    """Checks values against one schema, all of them together in a bounded number of steps."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = _validator(schema)

    def faults(self, value: Any) -> Iterator[tuple[list[str | int], str, str]]:
        """The first so many faults: (keys and indexes down to it, the schema's keyword, message).

        Raises whatever comes of a schema that `check_input_schema` would refuse, and when there is too much to do.
        """
        for error in islice(self._validator.iter_errors(_quiet(value)), MAX_SCHEMA_PROBLEMS):
            yield list(error.absolute_path), str(error.validator), error.message[:MAX_MESSAGE_CHARACTERS]


class _Work:
    """Counts the work of one validation: steps of about a microsecond or two, and keywords within keywords.

    The depth ends before Python's own limit, because the extension modules below may abort when they
    meet that. `jsonschema` hands one value of ours from validator to validator, the format checker: this
    stands in its place, and formats are not checked.
    """

    def __init__(self) -> None:
        self.steps = MAX_SCHEMA_STEPS
        self.levels = MAX_SCHEMA_LEVELS

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise _TooManySteps

    def check(self, _instance: object, _format: str) -> None:
        return


def _validator(schema: Mapping[str, Any]) -> Validator:
    from jsonschema import Draft202012Validator

    draft = _draft(schema) or Draft202012Validator
    # Wherever `jsonschema` meets a `$schema` it changes to that draft's own validator, which is not guarded.
    top = _quiet({key: value for key, value in schema.items() if key != "$schema"})
    validator: Validator = _guarded(draft)(top, registry=_registry(_resource(draft, top)), format_checker=_Work())
    return validator


@lru_cache(maxsize=16)
def _guarded(draft: Any) -> Any:
    from jsonschema import validators

    checks = {
        **draft.VALIDATORS,
        "pattern": _check_pattern,
        "patternProperties": _check_pattern_properties,
        "additionalProperties": _check_additional_properties,
        "uniqueItems": _check_unique_items,
    }
    return validators.extend(draft, {keyword: _counted(keyword, check) for keyword, check in checks.items()})  # type: ignore[no-untyped-call]


def _counted(keyword: str, check: Callable[..., Any]) -> Callable[..., Any]:
    pairwise = keyword.startswith("unevaluated")
    least = 3 if keyword.endswith("Ref") or keyword == "$ref" else 1

    def counted(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
        steps = least
        if isinstance(value, (dict, list)):
            steps += len(value) // 10
        if isinstance(instance, (dict, list, str)):
            steps += len(instance) ** 2 // 200 if pairwise else len(instance) // 100
        work = validator.format_checker
        work.spend(steps)
        work.levels -= 1
        if work.levels < 0:
            raise _TooDeep
        try:
            yield from check(validator, value, instance, schema) or ()
        finally:
            work.levels += 1

    return counted


class _QuietObject(dict[str, Any]):
    def __repr__(self) -> str:
        shown = [f"{show(key)}: {show(item)}" for key, item in islice(self.items(), MAX_SHOWN_ITEMS)]
        return "{" + ", ".join(shown) + (", ..." if len(self) > MAX_SHOWN_ITEMS else "") + "}"


class _QuietList(list[Any]):
    def __repr__(self) -> str:
        shown = [show(item) for item in islice(self, MAX_SHOWN_ITEMS)]
        return "[" + ", ".join(shown) + (", ..." if len(self) > MAX_SHOWN_ITEMS else "") + "]"


class _QuietText(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return show(str(self))


def _quiet(value: Any) -> Any:
    """The same value, which shows little of itself: `jsonschema` puts values into messages that nobody may read."""
    if isinstance(value, str):
        return _QuietText(value)
    if isinstance(value, Mapping):
        return _QuietObject((_quiet(key), _quiet(item)) for key, item in value.items())
    if isinstance(value, list):
        return _QuietList(map(_quiet, value))
    return value


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> Any:
    import re2  # type: ignore[import-untyped]

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    return re2.compile(pattern, options=options)


def _pattern_fault(pattern: str) -> str:
    import re2

    try:
        _compiled(pattern)
    except re2.error as error:
        reason = error.args[0] if error.args else "invalid"
        return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
    return ""


def _check_pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not _compiled(pattern).search(instance):
        yield ValidationError(f"{show(instance)} does not match {pattern[:MAX_MESSAGE_CHARACTERS]}")


def _check_pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    validator.format_checker.spend(len(patterns) * len(instance))
    for pattern, subschema in patterns.items():
        for key, value in instance.items():
            if _compiled(pattern).search(key):
                yield from validator.descend(value, subschema, path=key, schema_path=pattern)


def _check_additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if not isinstance(instance, dict) or allowed is True:
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    validator.format_checker.spend(len(patterns) * len(instance))
    others = [
        key for key in instance if key not in known and not any(_compiled(pattern).search(key) for pattern in patterns)
    ]
    if allowed is not False:
        for key in others:
            yield from validator.descend(instance[key], allowed, path=key)
    elif others:
        shown = ", ".join(map(show, sorted(others)[:5]))
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        verb = "was" if len(others) == 1 else "were"
        yield ValidationError(f"Additional properties are not allowed ({shown}{more} {verb} unexpected)")


def _check_unique_items(validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    from jsonschema.exceptions import ValidationError

    if not wanted or not isinstance(instance, list):
        return
    validator.format_checker.spend(len(instance))
    seen: dict[str, int] = {}
    for index, item in enumerate(instance):
        first = seen.setdefault(json.dumps(_comparable(item), sort_keys=True), index)
        if first != index:
            yield ValidationError(f"items {first} and {index} are the same; items must be unique")
            return


def _comparable(value: Any) -> Any:
    """A value of which equal ones have equal JSON: in JSON Schema 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return value
