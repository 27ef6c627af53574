"""The API of a runtime, as its settings say: for `serve`, and for benchmarks that serve in their own process."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

from ... import __version__
from ...config import Settings
from ...plugins.offers import routes_of
from ..api.app import build_app, create_health_app
from ..api.options import ApiOptions, HealthSources
from ..api.server import ApiRunner
from ..process import HOT_SECONDS, Runtime

SHUTDOWN_SECONDS = 5.0


def api_runner(runtime: Runtime) -> ApiRunner:
    """What serves the API, once it is set up and given an address; health alone in a process without the role `api`."""
    options = replace(
        api_options(runtime.settings),
        plugin_routes=routes_of(runtime.catalogue.plugins) if runtime.has_role("api") else (),
        authenticate=runtime.hooks.authenticate,
    )
    health = health_sources(runtime)
    if runtime.has_role("api"):
        app = build_app(
            runtime.engine,
            health=health,
            clock=runtime.clock,
            version=__version__,
            options=options,
        )
    else:
        app = create_health_app(health, clock=runtime.clock, version=__version__, options=options)
    return ApiRunner(app, request_timeout_seconds=options.request_timeout_seconds, shutdown_timeout=SHUTDOWN_SECONDS)


def api_options(settings: Settings) -> ApiOptions:
    """The settings that the API is given."""
    names_matter = settings.listens_to_this_machine_only and not settings.keys_required
    return ApiOptions(
        keys_required=settings.keys_required,
        own_host=settings.api_host if names_matter else None,
        max_concurrent_requests=settings.api_max_concurrent_requests,
        request_timeout_seconds=settings.api_request_timeout,
        max_definition_bytes=settings.max_definition_bytes,
        max_input_bytes=settings.max_input_bytes,
        show_faults=settings.shows_faults,
    )


def health_sources(runtime: Runtime) -> HealthSources:
    """What the health report and its neighbours ask."""
    broker, owner, heartbeats = runtime.broker, runtime.owner, runtime.heartbeats
    return HealthSources(
        store=runtime.store,
        accepting=lambda: runtime.engine.accepting,
        read_heartbeats=None if heartbeats is None else partial(heartbeats.replicas, HOT_SECONDS),
        heartbeat_timeout_seconds=runtime.settings.worker_heartbeat_timeout,
        read_checkpoints=runtime.checkpoints.replicas,
        checkpoint_timeout_seconds=runtime.checkpoints.timeout_seconds,
        broker_health=None if broker is None else broker.health,
        on_postgres=runtime.settings.backend != "embedded",
        owner_works=None if owner is None else runtime.is_healthy,
        set_aside=lambda: 0 if owner is None else len(owner.set_aside),
        owned=lambda: 0 if owner is None else len(owner.owned),
        live=lambda execution_id: None if owner is None else owner.live(execution_id),
        unserved=lambda: runtime.deliveries.unserved,
        plugins_left_out=[plugin.name for plugin in runtime.catalogue.plugins if plugin.error is not None],
        held_up=lambda: runtime.pool.held_up,
        progress=runtime.pool.progress,
        queued=lambda: runtime.pool.queued_by_handler() + Counter(runtime.deliveries.waiting),
    )
