"""A workflow's input schema (JSON Schema, draft 2020-12 unless `$schema` says otherwise).

Two things a user's schema must not be able to do: fetch anything (references stay inside the
document) and hold the process with a regular expression (patterns run in linear time, in RE2).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .problem import Problem, join_path, show

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MAX_SCHEMA_PROBLEMS = 50


def check_input_schema(schema: Mapping[str, Any]) -> list[tuple[list[str | int], str]]:
    """What keeps `schema` from being used: pairs of (keys and indexes down to the fault, message)."""
    from jsonschema import Draft202012Validator, validators

    validator_class = validators.validator_for(schema, default=Draft202012Validator)
    problems = [
        (list(error.absolute_path), error.message)
        for error in validator_class(validator_class.META_SCHEMA).iter_errors(schema)
    ]
    problems += list(_pattern_problems(schema))
    if not problems:
        problems += _reference_problems(schema)
    return problems[:MAX_SCHEMA_PROBLEMS]


def validate_input(schema: Mapping[str, Any], parameters: Mapping[str, Any], base: str) -> list[Problem]:
    """Every way in which `parameters` do not fit `schema`, with paths below `base`."""
    found = []
    try:
        for error in _validator(schema).iter_errors(parameters):
            found.append(Problem(join_path(base, error.absolute_path), error.message[:500]))
            if len(found) >= MAX_SCHEMA_PROBLEMS:
                break
    except RecursionError:
        return [Problem(base, "input_schema refers to itself without end")]
    return found


def _validator(schema: Mapping[str, Any]) -> Validator:
    from jsonschema import Draft202012Validator, validators
    from referencing.jsonschema import EMPTY_REGISTRY

    plain = validators.validator_for(schema, default=Draft202012Validator)
    checks = {"pattern": _check_pattern, "patternProperties": _check_pattern_properties}
    guarded: type[Validator] = validators.extend(plain, checks)  # type: ignore[no-untyped-call]
    return guarded(schema, registry=EMPTY_REGISTRY)


def _reference_problems(schema: Mapping[str, Any]) -> list[tuple[list[str | int], str]]:
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012, EMPTY_REGISTRY

    resource = DRAFT202012.create_resource(schema)
    resolver = EMPTY_REGISTRY.with_resource("", resource).resolver()
    problems: list[tuple[list[str | int], str]] = []
    for path, key, value in _walk(schema):
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            try:
                resolver.lookup(value)
            except (Unresolvable, ValueError):
                problems.append((path, f"{show(value)} is not in this schema; only references within it are followed"))
    return problems


def _pattern_problems(schema: Mapping[str, Any]) -> Iterator[tuple[list[str | int], str]]:
    for path, key, value in _walk(schema):
        patterns = [value] if key == "pattern" else list(value) if key == "patternProperties" else []
        for pattern in patterns:
            if isinstance(pattern, str):
                fault = _pattern_fault(pattern)
                if fault:
                    yield path, f"the pattern {show(pattern)} cannot be used: {fault}"


def _walk(schema: object) -> Iterator[tuple[list[str | int], str, Any]]:
    """Every key below `schema` whose value is not what `enum`, `const` or the like hold as data."""
    stack: list[tuple[list[str | int], Any]] = [([], schema)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, Mapping):
            for key, value in item.items():
                if key in ("enum", "const", "default", "examples"):
                    continue
                is_names = bool(path) and path[-1] in ("properties", "$defs", "definitions", "patternProperties")
                if not is_names:
                    yield [*path, key], key, value
                stack.append(([*path, key], value))
        elif isinstance(item, list):
            stack.extend(([*path, index], child) for index, child in enumerate(item))


@lru_cache(maxsize=1_000)
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
        yield ValidationError(f"{show(instance)} does not match {pattern}")


def _check_pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        for key, value in instance.items():
            if _compiled(pattern).search(key):
                yield from validator.descend(value, subschema, path=key, schema_path=pattern)
