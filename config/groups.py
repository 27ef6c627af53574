"""Every setting, by group: its variable (the name in upper case), its default, its unit and its meaning.

The groups that only several replicas need are in `distributed.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ..runtime.core import limits
from .kinds import (
    ROLES,
    Count,
    DelaySeconds,
    FilePath,
    HttpUrl,
    OptionalBool,
    OptionalFolder,
    OptionalPort,
    OptionalRequirements,
    OptionalSecret,
    PortOrFree,
    PositiveSeconds,
    Roles,
    Seconds,
    Unit,
)


class CoreSettings(BaseModel):
    """Core"""

    environment: Literal["dev", "test", "prod"] = Field(
        "dev",
        description="where this runs; `prod` requires API keys, turns `HTTP_ALLOW_PRIVATE` off and makes `DEBUG` "
        "have no effect",
    )
    debug: bool = Field(True, description="a fault's problem document (500) names the exception; never in `prod`")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least severe level logged")
    log_format: Literal["console", "json"] = Field("console", description="one line for people, or one JSON object")
    backend: Literal["embedded", "postgres", "distributed"] = Field(
        "embedded",
        description="where executions are kept and how replicas talk: `embedded` is SQLite in one process, `postgres` "
        "PostgreSQL, where processes share the executions, `distributed` PostgreSQL and Redis, where they share the "
        "work and may have a role each",
    )
    runtime_roles: Roles = Field(
        ROLES,
        description="what this process does: some of `api`, `orchestrator` and `worker`, with commas between them; "
        "without all three only with `BACKEND=distributed`",
    )
    demo_mode: bool = Field(False, description="replace `call_external_service` and `llm_service` by mocks")


class ApiSettings(BaseModel):
    """API"""

    api_host: str = Field("127.0.0.1", description="address the API listens on")
    api_port: PortOrFree = Field(8000, description="port of the API; 0 picks a free one")
    health_port: OptionalPort = Field(
        None,
        description="where a process without the role `api` answers `/livez`, `/readyz` and `/v1/health`, on "
        "`API_HOST`; unless set, it does not",
    )
    api_keys_required: OptionalBool = Field(
        None,
        description="whether requests need an API key; unless set, when `ENVIRONMENT` is `prod` or `API_HOST` is not "
        "a loopback address",
    )
    api_max_concurrent_requests: Annotated[int, Field(ge=1, le=100_000)] = Field(
        1000, description="requests served at the same time; more are answered 503 with Retry-After"
    )
    api_request_timeout: Annotated[PositiveSeconds, Field(le=3600)] = Field(
        30.0, description="longest time that a client may take to send its request"
    )
    idempotency_key_hours: Annotated[int, Field(ge=1, le=8760), Unit("hours")] = Field(
        24, description="how long an `Idempotency-Key` is remembered"
    )


class StoreSettings(BaseModel):
    """Store"""

    sqlite_path: FilePath = Field(
        Path("workflow-engine.db"),
        description="the database file, made with its folder when missing; one process at a time",
    )
    skip_migrations: bool = Field(
        False, description="do not migrate the database at the start; one that needs it is refused"
    )
    retention_days: Annotated[int, Field(ge=0, le=36_500), Unit("days")] = Field(
        0, description="how long executions are kept after their end; 0 keeps them for ever"
    )


class WorkerSettings(BaseModel):
    """Worker"""

    worker_concurrency: Count = Field(10, description="attempts that run at the same time, of all handlers together")
    worker_processes: Count = Field(
        4, description="processes for handlers of the lane `process`, of some 50 MB each; so many of their attempts run"
    )
    worker_process_memory: Annotated[int, Field(ge=64, le=1_048_576), Unit("MiB")] = Field(
        1024, description="memory that each of these may take; an attempt that wants more fails"
    )
    worker_graceful_shutdown_timeout: Seconds = Field(
        30.0, description="how long running attempts may take to finish at shutdown"
    )


class RetrySettings(BaseModel):
    """Retry"""

    retry_max_retries: Annotated[int, Field(ge=0, le=limits.MAX_RETRIES)] = Field(
        3, description="attempts after the first one"
    )
    retry_initial_delay: DelaySeconds = Field(1.0, description="delay before the first retry")
    retry_max_delay: DelaySeconds = Field(60.0, description="longest delay between attempts")
    retry_exponential_base: Annotated[float, Field(ge=1, le=100)] = Field(
        2.0, description="factor from one delay to the next"
    )
    retry_jitter: bool = Field(True, description="draw each delay evenly between zero and the backoff")


class LimitSettings(BaseModel):
    """Size limits"""

    max_definition_bytes: Annotated[int, Field(ge=1024, le=64 * 1024 * 1024), Unit("bytes")] = Field(
        limits.MAX_DEFINITION_BYTES, description="largest workflow definition"
    )
    max_input_bytes: Annotated[int, Field(ge=1024, le=limits.MAX_ATTEMPT_INPUT_BYTES), Unit("bytes")] = Field(
        limits.MAX_INPUT_BYTES, description="largest input parameters of an execution"
    )
    max_node_output_bytes: Annotated[int, Field(ge=1024, le=limits.MAX_ATTEMPT_INPUT_BYTES), Unit("bytes")] = Field(
        limits.MAX_NODE_OUTPUT_BYTES, description="largest output of a node"
    )


class HandlerSettings(BaseModel):
    """Built-in handlers"""

    http_allow_private: OptionalBool = Field(
        None,
        description="let handlers call private and loopback addresses; unless set, when `ENVIRONMENT` is not `prod`",
    )
    llm_base_url: HttpUrl = Field(
        None, description="the OpenAI-compatible service, such as `http://localhost:11434/v1`"
    )
    llm_api_key: OptionalSecret = Field(None, description="its key, sent as a bearer token")


class PluginSettings(BaseModel):
    """Plugins"""

    plugins_allow: OptionalRequirements = Field(
        None,
        description="the distributions whose plugins are loaded, with versions if wanted: "
        "`acme-handlers>=1,<2, other==3.1`, or `*` for all; what it does not name is not even imported; unless set, "
        "all, and none but the engine's own when `ENVIRONMENT` is `prod`",
    )
    plugins_dir: OptionalFolder = Field(
        None,
        description="a folder that `pip install --target` has filled, searched for plugins after what is installed",
    )
    plugins_on_error: Literal["stop", "skip"] = Field(
        "stop", description="whether a plugin that cannot be used stops the start, or is done without"
    )
    secrets_dir: OptionalFolder = Field(
        None, description="a folder with a file for each secret that handlers may ask for, named like it"
    )


class FailpointSettings(BaseModel):
    """Tests of the engine itself"""

    failpoints: str = Field("", description="places where this process fails on purpose (`runtime/failpoints.py`)")
