"""The kinds of values that settings have: their bounds, their units, and how a text becomes one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from ..runtime.core import limits
from .addresses import HTTP_FORM, POSTGRES_FORM, REDIS_FORM, check_http_url, postgres_parts, redis_parts

Role = Literal["api", "orchestrator", "worker"]
ROLES: tuple[Role, ...] = ("api", "orchestrator", "worker")


class Unit(NamedTuple):
    """What a number counts, in words; it stands behind the description."""

    name: str


class Allowed(NamedTuple):
    """What a value may be, in words, where its type does not say it."""

    text: str


def _empty_is_unset(value: Any) -> Any:
    """A variable that is set to nothing, as `${NAME:-}` in a compose file leaves it, says nothing."""
    return None if value == "" else value


def _split_roles(value: Any) -> Any:
    if value == "all":
        return ROLES
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _in_order(value: tuple[Role, ...]) -> tuple[Role, ...]:
    if len(set(value)) != len(value) or not value:
        raise ValueError("at least one, and each once")
    return tuple(role for role in ROLES if role in value)


def _split_names(value: Any) -> Any:
    if value == "":
        return None
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


_BETWEEN_REQUIREMENTS = re.compile(r",(?!\s*[<>=!~])")


def _no_name_is_empty(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    if value is not None and not all(value):
        raise ValueError("a name is empty")
    return value


def _split_requirements(value: Any) -> Any:
    """What stands between commas; those of a version, as in `a>=1,<2`, do not separate."""
    if value == "":
        return None
    return tuple(part.strip() for part in _BETWEEN_REQUIREMENTS.split(value)) if isinstance(value, str) else value


def _are_requirements(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for each in value or ():
        if each == "*":
            continue
        try:
            requirement = Requirement(each)
        except InvalidRequirement as error:
            raise ValueError(f"{each!r} is none: {str(error).partition(chr(10))[0]}") from None
        if requirement.marker or requirement.url or requirement.extras:
            raise ValueError(f"{each!r} says more than a name and versions")
    return value


def _checked_by(read: Callable[[str], Any]) -> Callable[[SecretStr | None], SecretStr | None]:
    def check(value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read(value.get_secret_value())
        return value

    return check


def _check_http_url(value: str | None) -> str | None:
    return None if value is None else check_http_url(value)


def _names_a_file(value: Any) -> Any:
    if isinstance(value, str) and Path(value).name in ("", ".."):
        raise ValueError
    return value


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), Unit("seconds")]
PositiveSeconds = Annotated[float, Field(ge=0.01, le=limits.MAX_TIMEOUT_SECONDS, allow_inf_nan=False), Unit("seconds")]
DelaySeconds = Annotated[float, Field(ge=0, le=limits.MAX_DELAY_SECONDS, allow_inf_nan=False), Unit("seconds")]
Port = Annotated[int, Field(ge=1, le=65_535)]
PortOrFree = Annotated[int, Field(ge=0, le=65_535)]
OptionalPort = Annotated[PortOrFree | None, BeforeValidator(_empty_is_unset)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Roles = Annotated[
    tuple[Role, ...],
    NoDecode,
    BeforeValidator(_split_roles),
    AfterValidator(_in_order),
    Allowed("all, or some of api, orchestrator and worker with commas between them"),
]
OptionalNames = Annotated[
    tuple[str, ...] | None,
    NoDecode,
    BeforeValidator(_split_names),
    AfterValidator(_no_name_is_empty),
    Allowed("names with commas between them"),
]
OptionalReplicaId = Annotated[
    Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")] | None,
    BeforeValidator(_empty_is_unset),
    Allowed("letters, digits, `_`, `.` and `-`, at most 128, beginning with a letter or digit"),
]
OptionalRequirements = Annotated[
    tuple[str, ...] | None,
    NoDecode,
    BeforeValidator(_split_requirements),
    AfterValidator(_are_requirements),
    Allowed("*, or distributions with commas between them, such as acme-handlers>=1,<2"),
]
OptionalFolder = Annotated[Path | None, BeforeValidator(_empty_is_unset), Allowed("the path of a folder")]
FilePath = Annotated[Path, BeforeValidator(_names_a_file), Allowed("the path of a file")]
OptionalText = Annotated[str | None, BeforeValidator(_empty_is_unset)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(_empty_is_unset)]
OptionalBool = Annotated[bool | None, BeforeValidator(_empty_is_unset)]
HttpUrl = Annotated[OptionalText, AfterValidator(_check_http_url), Allowed(HTTP_FORM)]
RedisUrl = Annotated[OptionalSecret, AfterValidator(_checked_by(redis_parts)), Allowed(REDIS_FORM)]
PostgresUrl = Annotated[OptionalSecret, AfterValidator(_checked_by(postgres_parts)), Allowed(POSTGRES_FORM)]
