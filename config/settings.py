"""All settings in one object, loaded from the environment and checked.

Only the composition root reads this; everything else is given values.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from . import distributed, groups
from .addresses import PARTS_OF
from .families import FAMILIES, HANDLER_TIMEOUTS, STALE_TIMEOUTS
from .messages import describe

GROUPS: tuple[type[BaseModel], ...] = (
    groups.CoreSettings,
    groups.ApiSettings,
    groups.StoreSettings,
    groups.WorkerSettings,
    groups.RetrySettings,
    groups.LimitSettings,
    groups.HandlerSettings,
    groups.PluginSettings,
    distributed.RedisSettings,
    distributed.PostgresSettings,
    distributed.ReplicaSettings,
    distributed.OrchestratorSettings,
    groups.FailpointSettings,
)


class SettingsError(Exception):
    """An environment variable has a value that is not allowed; the message names each one and what is."""


class Settings(
    groups.CoreSettings,
    groups.ApiSettings,
    groups.StoreSettings,
    groups.WorkerSettings,
    groups.RetrySettings,
    groups.LimitSettings,
    groups.HandlerSettings,
    groups.PluginSettings,
    distributed.RedisSettings,
    distributed.PostgresSettings,
    distributed.ReplicaSettings,
    distributed.OrchestratorSettings,
    groups.FailpointSettings,
    BaseSettings,
):
    """The runtime's settings. A field's name in upper case is its environment variable."""

    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True)

    # Made of the families' variables; a variable of the field's own name is not decoded, so it cannot fail, and is
    # replaced.
    handler_timeouts_seconds: Annotated[dict[str, float], NoDecode] = Field(
        default_factory=lambda: dict(HANDLER_TIMEOUTS.defaults), exclude=True
    )
    stale_timeouts_seconds: Annotated[dict[str, float], NoDecode] = Field(
        default_factory=lambda: dict(STALE_TIMEOUTS.defaults), exclude=True
    )

    @property
    def allow_private_addresses(self) -> bool:
        """Whether handlers may call private addresses: as set, or by environment."""
        return self.environment != "prod" if self.http_allow_private is None else self.http_allow_private

    @property
    def allowed_plugins(self) -> tuple[str, ...]:
        """The distributions whose plugins are loaded: as set, or by environment. The engine's own always is."""
        if self.plugins_allow is not None:
            return self.plugins_allow
        return () if self.environment == "prod" else ("*",)

    @property
    def keys_required(self) -> bool:
        """Whether the API asks for keys: as set, or by environment and address."""
        if self.api_keys_required is not None:
            return self.api_keys_required
        return self.environment == "prod" or not self.listens_to_this_machine_only

    @property
    def listens_to_this_machine_only(self) -> bool:
        """Whether the API's address is a loopback one."""
        return _is_loopback(self.api_host)

    @property
    def own_port(self) -> tuple[str, int | None]:
        """The variable that says where this process listens, and the port; None when it does not."""
        return ("API_PORT", self.api_port) if "api" in self.runtime_roles else ("HEALTH_PORT", self.health_port)

    @property
    def shows_faults(self) -> bool:
        """Whether the answer to a request that met a fault names the exception."""
        return self.debug and self.environment != "prod"

    def handler_timeout_seconds(self, handler: str) -> float:
        """The longest time of one attempt of `handler`, in seconds."""
        return HANDLER_TIMEOUTS.of(self.handler_timeouts_seconds, handler)


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings from the environment, `overrides` first. Raises `SettingsError` naming every bad value."""
    families: dict[str, dict[str, float]] = {}
    problems: list[str] = []
    for family in FAMILIES:
        families[family.field], found = family.read(os.environ)
        problems += found
    try:
        settings = Settings(**{**(overrides or {}), **families})
    except ValidationError as error:
        order = [name for group in GROUPS for name in group.model_fields]
        found_here = sorted(error.errors(include_url=False), key=lambda detail: order.index(str(detail["loc"][0])))
        problems = [describe(detail, Settings) for detail in found_here] + problems
    else:
        settings, found = _with_parts(settings)
        problems += found
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _with_parts(settings: Settings) -> tuple[Settings, list[str]]:
    """The settings with what the URLs say, and a line for each thing that contradicts another."""
    problems = []
    said: dict[str, Any] = {}
    for url_name, read in PARTS_OF.items():
        url: SecretStr | None = getattr(settings, url_name)
        parts = {} if url is None else read(url.get_secret_value())
        said |= parts
        for name, value in parts.items():
            if name in settings.model_fields_set and getattr(settings, name) != value:
                problems.append(f"{name.upper()}: contradicts {url_name.upper()}; set only one of the two")
    if settings.worker_heartbeat_timeout <= settings.worker_heartbeat_interval:
        problems.append(_heartbeats(settings))
    return settings.model_copy(update=said), problems


def _heartbeats(settings: Settings) -> str:
    """The line for a heartbeat timeout that is not above the interval: of the one that was set."""
    names = ("WORKER_HEARTBEAT_INTERVAL", "WORKER_HEARTBEAT_TIMEOUT")
    interval, timeout = f"{settings.worker_heartbeat_interval:g}", f"{settings.worker_heartbeat_timeout:g}"
    why = "or every worker counts as dead between two heartbeats"
    if "worker_heartbeat_timeout" in settings.model_fields_set:
        return f"{names[1]}: must be above {names[0]} ({interval}), {why}, got '{timeout}'"
    return f"{names[0]}: must be below {names[1]} ({timeout}), {why}, got '{interval}'"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
