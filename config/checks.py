"""What settings mean together: what contradicts, what this version does not have, what deserves a warning."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping

from . import distributed
from .families import STALE_TIMEOUTS
from .kinds import ROLES
from .settings import Settings, SettingsError
from .unknown import unknown_handlers, unknown_variables

_REDIS = tuple(distributed.RedisSettings.model_fields)
_UNUSED: Mapping[str, tuple[str, ...]] = {
    "embedded": (
        *_REDIS,
        *distributed.PostgresSettings.model_fields,
        "partitions",
        "worker_heartbeat_interval",
        "worker_heartbeat_timeout",
        "worker_stale_claim_interval",
        "orchestrator_checkpoint_interval",
        "orchestrator_stale_claim_interval",
        "orchestrator_stale_result_timeout",
    ),
    "postgres": (
        *_REDIS,
        "sqlite_path",
        "worker_heartbeat_interval",
        "worker_heartbeat_timeout",
        "worker_stale_claim_interval",
    ),
    "distributed": ("sqlite_path",),
}
"""What each backend makes no use of; only `distributed` has a use for the stale timeouts, too."""


def check_supported(settings: Settings) -> None:
    """Raise `SettingsError` for roles that the backend has no use for."""
    if settings.runtime_roles != ROLES and settings.backend != "distributed":
        raise SettingsError(
            f"RUNTIME_ROLES: {','.join(settings.runtime_roles)} needs other processes for the rest, and BACKEND="
            f"{settings.backend} has no way to them; leave it unset or set it to all, or set BACKEND=distributed"
        )
    if settings.worker_handlers is not None and settings.backend != "distributed":
        raise SettingsError(
            f"WORKER_HANDLERS: with BACKEND={settings.backend} every process runs the nodes of all handlers; leave it "
            "unset, or set BACKEND=distributed"
        )


def setting_warnings(settings: Settings, handlers: Iterable[str]) -> list[str]:
    """What a user may have meant otherwise, one line each. `handlers` are the names of the handlers there are."""
    environment = {name.upper(): text for name, text in os.environ.items()}
    # Where processes have the same settings and different handlers, another one may have it.
    unknown = [] if settings.backend == "distributed" else unknown_handlers(environment, handlers)
    return [*unknown_variables(environment), *unknown, *_without_effect(settings, environment)]


def _without_effect(settings: Settings, environment: Mapping[str, str]) -> Iterator[str]:
    # A variable that is set to nothing, as `${NAME:-}` in a compose file leaves it, says nothing.
    unused = [name.upper() for name in _UNUSED[settings.backend] if environment.get(name.upper())]
    if settings.backend != "distributed":
        unused += [name for name, _ in STALE_TIMEOUTS.members(environment)]
    if unused:
        yield f"without effect with BACKEND={settings.backend}: {', '.join(unused)}"
    if "api" in settings.runtime_roles and settings.health_port not in (None, settings.api_port):
        yield "HEALTH_PORT has no effect in a process with the role api, which answers the same on API_PORT"
    if "worker" not in settings.runtime_roles and settings.worker_handlers is not None:
        yield "WORKER_HANDLERS has no effect in a process without the role worker"
    if settings.debug and settings.environment == "prod" and "DEBUG" in environment:
        yield "DEBUG has no effect with ENVIRONMENT=prod"
    if settings.retry_initial_delay > settings.retry_max_delay and "RETRY_INITIAL_DELAY" in environment:
        yield (
            f"RETRY_INITIAL_DELAY ({settings.retry_initial_delay:g}) is above RETRY_MAX_DELAY "
            f"({settings.retry_max_delay:g}), so every delay is RETRY_MAX_DELAY"
        )
