"""What is allowed for a setting, in words, and what is wrong with a value that is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from .addresses import mask_url
from .kinds import Allowed

SHOWN_CHARACTERS = 80
_KUBERNETES_LINK = re.compile(r"(tcp|udp|sctp)://")


def describe(detail: Mapping[str, Any], model: type[BaseModel]) -> str:
    """One line for one of pydantic's errors: the variable, what is allowed, and what was given."""
    name = str(detail["loc"][0])
    field = model.model_fields[name]
    line = f"{name.upper()}: must be {allowed(field)}"
    if detail["type"] == "value_error" and str(detail["ctx"]["error"]):
        line += f": {detail['ctx']['error']}"
    if is_secret(field):
        return f"{line}; the value is not shown"
    given = mask_url(str(detail["input"])) if name.endswith("_url") else str(detail["input"])
    line = f"{line}, got {given[:SHOWN_CHARACTERS]!r}"
    if name.endswith("_port") and _KUBERNETES_LINK.match(given):
        prefix = name.removesuffix("_port")
        line += (
            f"; Kubernetes sets this for a service called {prefix!r}: put enableServiceLinks: false into the pod's "
            f"spec, or set {name.upper()} there yourself"
        )
    return line


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting's value is never to be shown."""
    return SecretStr in _types(field)


def allowed(field: FieldInfo) -> str:
    """What a setting's value may be: `a whole number from 0 to 65535`."""
    for each in field.metadata:
        if isinstance(each, Allowed):
            return each.text
    kind = next(each for each in _types(field) if each is not NoneType)
    if get_origin(kind) is Literal:
        *first, last = map(str, get_args(kind))
        return f"{', '.join(first)} or {last}"
    if kind is bool:
        return "true or false"
    if kind in (int, float):
        return f"{'a whole number' if kind is int else 'a number'}{_range(field)}"
    return "the path of a file" if kind is Path else "a text that is not empty"


def _types(field: FieldInfo) -> tuple[Any, ...]:
    kind = field.annotation
    return (kind,) if get_origin(kind) is Literal or not get_args(kind) else get_args(kind)


def _range(field: FieldInfo) -> str:
    """The bounds; of two of a kind the last one counts, as a setting narrows what its kind allows."""
    low = high = None
    for each in field.metadata:
        low = getattr(each, "ge", low)
        high = getattr(each, "le", high)
    if high is None:
        return f" of at least {low:.15g}"
    return f" from {low:.15g} to {high:.15g}"
