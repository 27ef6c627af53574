"""Every setting of the runtime: one environment variable each, typed, with default, unit and meaning.

Only the composition root reads this; everything else is given values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

HANDLER_TIMEOUT_PREFIX = "HANDLER_TIMEOUT_"
HANDLER_TIMEOUTS_SECONDS: Mapping[str, float] = {
    "INPUT": 30.0,
    "OUTPUT": 30.0,
    "CALL_EXTERNAL_SERVICE": 60.0,
    "LLM_SERVICE": 120.0,
    "DEFAULT": 60.0,
}

_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_DelaySeconds = Annotated[float, Field(ge=0, le=30 * 86_400, allow_inf_nan=False)]


class SettingsError(Exception):
    """An environment variable has a value that is not allowed; the message names each one and what is."""


class Settings(BaseSettings):
    """The runtime's settings. A field's name in upper case is its environment variable."""

    model_config = SettingsConfigDict(env_file=None, extra="ignore", frozen=True)

    environment: Literal["dev", "test", "prod"] = Field("dev", description="dev, test or prod")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe level logged")
    log_format: Literal["console", "json"] = Field("console", description="one line for people, or one JSON object")

    api_host: str = Field("127.0.0.1", description="address the API listens on")
    api_port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="port of the API; 0 picks a free one")
    sqlite_path: Path = Field(Path("workflow-engine.db"), description="the database file")

    worker_concurrency: Annotated[int, Field(ge=1, le=10_000)] = Field(
        10, description="attempts that run at the same time, of all handlers together"
    )
    worker_graceful_shutdown_timeout: _Seconds = Field(
        30.0, description="seconds that running attempts may take to finish at shutdown"
    )

    retry_max_retries: Annotated[int, Field(ge=0, le=100)] = Field(3, description="attempts after the first one")
    retry_initial_delay: _DelaySeconds = Field(1.0, description="seconds before the first retry")
    retry_max_delay: _DelaySeconds = Field(60.0, description="longest delay between attempts, in seconds")
    retry_exponential_base: Annotated[float, Field(ge=1, le=100)] = Field(
        2.0, description="factor from one delay to the next"
    )
    retry_jitter: bool = Field(True, description="draw each delay evenly between zero and the backoff")

    demo_mode: bool = Field(False, description="replace call_external_service and llm_service by mocks")
    http_allow_private: bool | None = Field(
        None, description="let handlers call private and loopback addresses (true in dev and test, false in prod)"
    )
    llm_base_url: str | None = Field(None, description="OpenAI-compatible service, such as http://localhost:11434/v1")
    llm_api_key: SecretStr | None = Field(None, description="its key, sent as a bearer token")

    failpoints: str = Field("", description="for tests: places where this process fails on purpose")

    # Made of the HANDLER_TIMEOUT_ variables; the variable of its own name (not decoded, so it cannot fail) is replaced.
    handler_timeouts_seconds: Annotated[dict[str, float], NoDecode] = Field(
        default_factory=lambda: dict(HANDLER_TIMEOUTS_SECONDS), exclude=True
    )

    @property
    def allow_private_addresses(self) -> bool:
        """Whether handlers may call private addresses: as set, or by environment."""
        return self.environment != "prod" if self.http_allow_private is None else self.http_allow_private

    def handler_timeout_seconds(self, handler: str) -> float:
        """The longest time of one attempt of `handler`, in seconds."""
        name = handler.upper().replace("-", "_").replace(".", "_")
        return self.handler_timeouts_seconds.get(name) or self.handler_timeouts_seconds["DEFAULT"]


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """The settings from the environment, `overrides` first. Raises `SettingsError` naming every bad value."""
    timeouts, problems = _handler_timeouts(os.environ)
    try:
        settings = Settings(**{**(overrides or {}), "handler_timeouts_seconds": timeouts})
    except ValidationError as error:
        problems = [_describe(detail) for detail in error.errors(include_url=False)] + problems
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _handler_timeouts(environment: Mapping[str, str]) -> tuple[dict[str, float], list[str]]:
    timeouts = dict(HANDLER_TIMEOUTS_SECONDS)
    problems = []
    for name, text in environment.items():
        if not name.upper().startswith(HANDLER_TIMEOUT_PREFIX):
            continue
        try:
            seconds = float(text)
        except ValueError:
            seconds = 0.0
        if 0 < seconds <= 7 * 86_400:
            timeouts[name.upper().removeprefix(HANDLER_TIMEOUT_PREFIX)] = seconds
        else:
            problems.append(f"{name}: must be a number of seconds above 0 and at most 604800, got {text!r}")
    return timeouts, problems


def _describe(detail: Any) -> str:
    name = ".".join(str(part) for part in detail["loc"]).upper()
    return f"{name}: {detail['msg'][:1].lower()}{detail['msg'][1:]}, got {str(detail['input'])[:80]!r}"
