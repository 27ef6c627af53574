"""What settings mean together: what contradicts, what this version does not have, what deserves a warning."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from pydantic import BaseModel

from . import distributed
from .families import STALE_TIMEOUTS
from .kinds import ROLES
from .settings import Settings, SettingsError
from .unknown import unknown_handlers, unknown_variables

# The groups that each backend makes no use of.
_UNUSED_GROUPS: Mapping[str, tuple[type[BaseModel], ...]] = {
    "embedded": (
        distributed.RedisSettings,
        distributed.PostgresSettings,
        distributed.ReplicaSettings,
        distributed.OrchestratorSettings,
    ),
    "postgres": (distributed.RedisSettings, distributed.ReplicaSettings, distributed.OrchestratorSettings),
}


def check_supported(settings: Settings) -> None:
    """Raise `SettingsError` for a backend or roles that this version does not have."""
    problems = []
    if settings.backend == "distributed":
        problems.append(
            "BACKEND: distributed is not there yet; this version has embedded (SQLite) and postgres, each with one "
            "process"
        )
    if settings.runtime_roles != ROLES:
        problems.append(
            f"RUNTIME_ROLES: {','.join(settings.runtime_roles)} needs the backend distributed, which is not there yet; "
            "leave it unset or set it to all"
        )
    if problems:
        raise SettingsError("\n".join(problems))


def setting_warnings(settings: Settings, handlers: Iterable[str]) -> list[str]:
    """What a user may have meant otherwise, one line each. `handlers` are the names of the handlers there are."""
    environment = {name.upper(): text for name, text in os.environ.items()}
    return [
        *unknown_variables(environment),
        *unknown_handlers(environment, handlers),
        *_without_effect(settings, environment),
    ]


def _without_effect(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    groups = _UNUSED_GROUPS.get(settings.backend, ())
    fields = [name.upper() for group in groups for name in group.model_fields]
    if settings.backend != "embedded":
        fields.append("SQLITE_PATH")
    unused = [name for name in fields if name in environment]
    unused += [name for name, _ in STALE_TIMEOUTS.members(environment)]
    if unused:
        yield f"without effect with BACKEND={settings.backend}: {', '.join(unused)}"
    if settings.debug and settings.environment == "prod" and "DEBUG" in environment:
        yield "DEBUG has no effect with ENVIRONMENT=prod"
    if settings.retry_initial_delay > settings.retry_max_delay and "RETRY_INITIAL_DELAY" in environment:
        yield (
            f"RETRY_INITIAL_DELAY ({settings.retry_initial_delay:g}) is above RETRY_MAX_DELAY "
            f"({settings.retry_max_delay:g}), so every delay is RETRY_MAX_DELAY"
        )
