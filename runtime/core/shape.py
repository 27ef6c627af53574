"""Pydantic's errors in our words: where, what the value is, and how to mend it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .limits import MAX_PROBLEMS
from .problem import Problem, did_you_mean, join_path, show


def describe_errors(error: ValidationError, model: type[BaseModel], base: str = "") -> list[Problem]:
    """One problem for each of the first `MAX_PROBLEMS` errors, with paths below `base`.

    `model` is where key names are looked up.
    """
    return [
        Problem(join_path(base, detail["loc"]) or "$", describe_error(detail, model))
        for detail in error.errors(include_url=False)[:MAX_PROBLEMS]
    ]


def describe_error(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """What one error means and how to mend it."""
    words = _WORDS.get(detail["type"])
    if detail["type"] == "extra_forbidden":
        keys = _keys_at(model, detail["loc"][:-1])
        key = str(detail["loc"][-1])
        return f"unknown key{did_you_mean(key, keys) or _known(keys)}"
    if words is None:
        return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}, got {show(detail['input'])}"
    return words(detail.get("ctx", {}), detail["input"])


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def _known(keys: list[str]) -> str:
    return f"; the keys are {', '.join(keys)}" if keys else ""


def _wanted(what: str) -> Callable[[Mapping[str, Any], Any], str]:
    return lambda _context, value: f"must be {what}, got {show(value)}"


_WORDS: Mapping[str, Callable[[Mapping[str, Any], Any], str]] = {
    "missing": lambda _context, _value: "is required; add it",
    "string_type": _wanted("text"),
    "int_type": _wanted("a whole number"),
    "float_type": _wanted("a number"),
    "bool_type": _wanted("true or false"),
    "list_type": _wanted("a list"),
    "dict_type": _wanted("an object"),
    "model_type": _wanted("an object"),
    "model_attributes_type": _wanted("an object"),
    "string_pattern_mismatch": lambda context, value: f"{show(value)} does not match {context['pattern']}",
    "string_too_short": lambda context, _value: f"must have at least {context['min_length']} characters",
    "string_too_long": lambda context, _value: f"must have at most {context['max_length']} characters",
    "too_short": lambda context, _value: f"must have at least {_items(context['min_length'])}",
    "too_long": lambda context, _value: f"has more than the {context['max_length']} items allowed",
    "greater_than": lambda context, value: f"must be greater than {context['gt']}, got {show(value)}",
    "greater_than_equal": lambda context, value: f"must be at least {context['ge']}, got {show(value)}",
    "less_than": lambda context, value: f"must be less than {context['lt']}, got {show(value)}",
    "less_than_equal": lambda context, value: f"must be at most {context['le']}, got {show(value)}",
    "value_error": lambda context, _value: str(context.get("error", "is not valid")),
}


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at `location` below `model` knows."""
    current: Any = model
    for segment in location:
        if isinstance(segment, int):
            continue
        field = current.model_fields.get(segment) if _is_model(current) else None
        current = _model_within(field.annotation) if field is not None else None
    if not _is_model(current):
        return []
    return [field.alias or name for name, field in current.model_fields.items()]


def _model_within(annotation: Any) -> Any:
    if _is_model(annotation):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_within(part)) is not None), None)


def _is_model(candidate: Any) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)
