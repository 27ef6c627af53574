"""The settings of the backends `postgres` and `distributed`, and of several replicas beside each other.

All are read and checked whatever the backend is; `checks.py` says which ones a backend has no use for.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, SecretStr

from .kinds import (
    Count,
    OptionalNames,
    OptionalReplicaId,
    OptionalSecret,
    Port,
    PositiveSeconds,
    PostgresUrl,
    RedisUrl,
)


class RedisSettings(BaseModel):
    """Redis"""

    redis_host: str = Field("redis", min_length=1, description="Redis hostname")
    redis_port: Port = Field(6379, description="Redis port")
    redis_db: Annotated[int, Field(ge=0, le=1_000_000)] = Field(0, description="number of the Redis database")
    redis_password: OptionalSecret = Field(None, description="Redis password")
    redis_url: RedisUrl = Field(
        None,
        description="instead of the four above: `redis://[user][:password]@host:port/db`, `rediss://` for TLS",
    )
    redis_cluster: bool = Field(False, description="whether the address is that of a node of a Redis Cluster")
    redis_max_connections: Count = Field(50, description="most connections of one process to Redis")
    redis_socket_timeout: PositiveSeconds = Field(10.0, description="longest wait for an answer of Redis")


class PostgresSettings(BaseModel):
    """PostgreSQL"""

    postgres_host: str = Field("postgres", min_length=1, description="PostgreSQL hostname")
    postgres_port: Port = Field(5432, description="PostgreSQL port")
    postgres_user: str = Field("postgres", min_length=1, description="PostgreSQL user")
    postgres_password: SecretStr = Field(SecretStr("postgres"), description="PostgreSQL password")
    postgres_database: str = Field("workflow_engine", min_length=1, description="name of the database")
    postgres_url: PostgresUrl = Field(
        None,
        description="instead of the five above: `postgresql://user:password@host:port/database?sslmode=verify-full`",
    )
    postgres_pool_size: Annotated[int, Field(ge=4, le=1_000)] = Field(
        10, description="most connections of one process to PostgreSQL"
    )


class ReplicaSettings(BaseModel):
    """Replicas"""

    replica_id: OptionalReplicaId = Field(
        None,
        description="this process's name among its replicas, of which there must be one at a time; a process that "
        "starts again under its name takes what it owned back at once; unless set, a new one at every start",
    )
    worker_handlers: OptionalNames = Field(
        None, description="the handlers whose nodes this process runs; unless set, all it has"
    )

    partitions: Annotated[int, Field(ge=1, le=1024)] = Field(
        16, description="parts that executions are spread over, each owned by one orchestrator; fixed once stored"
    )
    worker_heartbeat_interval: PositiveSeconds = Field(
        5.0, description="how often a process says by a heartbeat that it is there and what it runs, at least"
    )
    worker_heartbeat_timeout: PositiveSeconds = Field(
        15.0, description="when a worker that sent no heartbeat counts as dead, and what it ran as lost"
    )
    worker_stale_claim_interval: PositiveSeconds = Field(
        30.0,
        description="how often an orchestrator looks after what others run for it, at least: also when a delivery that "
        "it knows of may have been lost",
    )


class OrchestratorSettings(BaseModel):
    """Orchestrator"""

    orchestrator_checkpoint_interval: PositiveSeconds = Field(
        10.0,
        description="how often a process writes to the database what it runs: what is shown of it where heartbeats "
        "cannot be heard",
    )
    orchestrator_recovery_timeout: PositiveSeconds = Field(
        60.0,
        description="how long a running execution may be in nobody's hands before its owner takes it up, at most: that "
        "one looks every 5 seconds at least, and more often when this is less",
    )
    orchestrator_stale_claim_interval: PositiveSeconds = Field(
        15.0,
        description="how often an orchestrator looks for what a dead one has left, at least: also when a lease "
        "runs out",
    )
    orchestrator_stale_result_timeout: PositiveSeconds = Field(
        30.0, description="how long an orchestrator that is silent keeps what it owns"
    )
    unknown_handler_timeout: PositiveSeconds = Field(
        3600.0,
        description="how long a node waits for a process that has its handler, before its execution fails and becomes "
        "a dead letter",
    )
