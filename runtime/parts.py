"""The parts that the settings choose: store, broker, handlers, and what nodes get where they say nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from .. import __version__
from ..config import Settings
from ..config.families import HANDLER_TIMEOUTS, STALE_TIMEOUTS
from ..plugins.discovery import Catalogue
from ..plugins.handler import Handler
from ..plugins.values import EngineProcess
from .broker import Broker
from .clock import Clock
from .core.graph import NodeDefaults
from .core.retry import RetryPolicy
from .errors import SetupError
from .known_handlers import KnownHandlers
from .plugin_hooks import PluginHooks
from .ports import Store
from .store.sqlite import SqliteStore
from .transport.kept_permits import MemoryPermits
from .worker.assignment import ChildSettings
from .worker.isolated import LANE_IDLE_SECONDS, Isolation
from .worker.limited import LimitedHandler, limits_of
from .worker.limits import LimitedHandlers
from .worker.waiting import Gate, Gates

if TYPE_CHECKING:
    from .audit import Histories
    from .store.postgres_connections import PostgresAddress
    from .transport.redis_connections import RedisAddress

POSTGRES_TIMEOUT_SECONDS = 10.0
"""Of a statement, and of the wait for a connection."""


def build_isolation(settings: Settings) -> Isolation:
    """What runs suspects in processes of their own."""
    return Isolation(_child_settings(settings))


def build_process_lane(settings: Settings) -> Isolation:
    """What runs the attempts of handlers whose lane is `process`."""
    return Isolation(
        _child_settings(settings),
        is_for_suspects=False,
        memory_bytes=settings.worker_process_memory * 1024 * 1024,
        idle_seconds=LANE_IDLE_SECONDS,
    )


def _child_settings(settings: Settings) -> ChildSettings:
    return ChildSettings(
        plugin_settings(settings), settings.allow_private_addresses, settings.log_level, settings.log_format
    )


def postgres_address(settings: Settings) -> PostgresAddress:
    """Where PostgreSQL is, by the settings."""
    from .store.postgres_connections import PostgresAddress

    return PostgresAddress(
        settings.postgres_host,
        settings.postgres_port,
        settings.postgres_user,
        settings.postgres_password.get_secret_value(),
        settings.postgres_database,
        None if settings.postgres_url is None else settings.postgres_url.get_secret_value(),
    )


def build_store(settings: Settings, clock: Clock) -> Store:
    """The store of the backend that the settings name."""
    if settings.backend == "embedded":
        return SqliteStore(settings.sqlite_path, clock, skip_migrations=settings.skip_migrations)
    # Imported where it is used: the driver takes a moment, and an embedded process has no use for it.
    from .store.postgres import PostgresStore

    return PostgresStore(
        postgres_address(settings),
        clock,
        pool_size=settings.postgres_pool_size,
        timeout_seconds=POSTGRES_TIMEOUT_SECONDS,
        owner_timeout_seconds=min(POSTGRES_TIMEOUT_SECONDS, settings.orchestrator_stale_result_timeout / 3),
        partitions=settings.partitions,
        skip_migrations=settings.skip_migrations,
    )


def build_histories(settings: Settings) -> Histories:
    """The store of the backend that the settings name, as the audit reads it."""
    if settings.backend == "embedded":
        from .store.sqlite_histories import SqliteHistories

        return SqliteHistories(settings.sqlite_path)
    from .store.postgres_histories import PostgresHistories

    return PostgresHistories(postgres_address(settings), timeout_seconds=POSTGRES_TIMEOUT_SECONDS)


def redis_address(settings: Settings) -> RedisAddress:
    """Where Redis is, by the settings."""
    from .transport.redis_connections import RedisAddress

    password, url = settings.redis_password, settings.redis_url
    return RedisAddress(
        settings.redis_host,
        settings.redis_port,
        settings.redis_db,
        None if password is None else password.get_secret_value(),
        None if url is None else url.get_secret_value(),
    )


def build_broker(settings: Settings) -> Broker:
    """The broker that the settings name."""
    from .transport.redis import RedisBroker

    return RedisBroker(
        redis_address(settings),
        cluster=settings.redis_cluster,
        max_connections=settings.redis_max_connections,
        timeout_seconds=settings.redis_socket_timeout,
        strict=settings.environment == "prod",
    )


def build_hooks(settings: Settings, catalogue: Catalogue, replica: str) -> PluginHooks:
    """What calls the hooks of the plugins of this process."""
    process = EngineProcess(
        replica=replica,
        roles=settings.runtime_roles,
        engine_version=__version__,
        settings=MappingProxyType(plugin_settings(settings)),
    )
    return PluginHooks(catalogue.plugins, process, settings.secrets_dir)


def served_handlers(settings: Settings, catalogue: Catalogue) -> Mapping[str, Handler]:
    """The handlers whose nodes this process runs. Raises `SetupError` for one that it does not have."""
    if "worker" not in settings.runtime_roles:
        return {}
    if settings.worker_handlers is None:
        return catalogue
    missing = [name for name in settings.worker_handlers if name not in catalogue]
    if missing:
        there = ", ".join(sorted(catalogue))
        raise SetupError(f"WORKER_HANDLERS: no plugin here has {', '.join(missing)}; there are {there}")
    return {name: catalogue[name] for name in settings.worker_handlers}


def build_limited(
    settings: Settings, handlers: Mapping[str, Handler], broker: Broker | None, clock: Clock
) -> LimitedHandlers:
    """What holds back the attempts of handlers that have limits for all replicas, by handler.

    Without a broker they are kept in memory: limits are those of this process then.
    """
    found = {name: limits for name, handler in handlers.items() if (limits := limits_of(handler)) is not None}
    limited: dict[str, LimitedHandler] = {}
    keeper = broker or MemoryPermits(lambda: round(clock.monotonic() * 1_000_000), lambda name: limited[name].hear())
    for name, limits in found.items():
        limited[name] = LimitedHandler(
            handlers[name],
            limits,
            keeper=keeper,
            clock=clock,
            lease_seconds=math.inf if broker is None else settings.worker_heartbeat_timeout,
            renew_seconds=settings.worker_heartbeat_interval,
        )
    return LimitedHandlers(limited)


def build_gates(settings: Settings, handlers: Mapping[str, Handler], limited: LimitedHandlers) -> Mapping[str, Gates]:
    """What attempts have to pass that run in this process, by handler."""
    of_lane = Gate(settings.worker_processes)
    gates: dict[str, Gates] = {name: (each.tally,) for name, each in limited.by_name.items()}
    for name, handler in handlers.items():
        if handler.max_running_per_process is not None:
            gates[name] = (*gates.get(name, ()), Gate(handler.max_running_per_process))
        if handler.lane == "process":
            gates[name] = (*gates.get(name, ()), of_lane)
    return gates


def node_defaults(settings: Settings) -> NodeDefaults:
    """What nodes get where their definition is silent, by the settings."""
    policy = RetryPolicy(
        settings.retry_max_retries,
        settings.retry_initial_delay,
        settings.retry_max_delay,
        settings.retry_exponential_base,
        settings.retry_jitter,
    )
    return NodeDefaults(
        policy,
        settings.handler_timeout_seconds,
        lambda handler: HANDLER_TIMEOUTS.own(settings.handler_timeouts_seconds, handler),
    )


def stale_timeouts(settings: Settings, known: KnownHandlers) -> Callable[[str], float]:
    """How long a delivery may be out while nobody can say whether its worker lives, by handler."""

    def of(handler: str) -> float:
        own = STALE_TIMEOUTS.own(settings.stale_timeouts_seconds, handler)
        declared = known.declared_of(handler).stale_timeout_seconds
        return own or declared or STALE_TIMEOUTS.of(settings.stale_timeouts_seconds, handler)

    return of


def plugin_settings(settings: Settings) -> dict[str, object]:
    """The settings as plugins see them: by lower-case name, secrets as text."""
    secret = settings.llm_api_key
    return {
        **settings.model_dump(),
        "llm_api_key": secret.get_secret_value() if secret else None,
        "plugins_allow": settings.allowed_plugins,
    }
