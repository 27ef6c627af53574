"""The API of a runtime, as its settings say: for `serve`, and for benchmarks that serve in their own process."""

from __future__ import annotations

import socket

from ... import __version__
from ...config import Settings
from ..api.app import build_app
from ..api.options import ApiOptions, HealthSources, alone
from ..api.server import ApiRunner
from ..core.deliveries import DeliveryKey, Heartbeat
from ..process import Runtime

SHUTDOWN_SECONDS = 5.0


def api_runner(runtime: Runtime) -> ApiRunner:
    """What serves the API, once it is set up and given an address."""
    options = api_options(runtime.settings)
    app = build_app(
        runtime.engine,
        health=health_sources(runtime),
        clock=runtime.clock,
        version=__version__,
        options=options,
    )
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
    started_at = runtime.clock.now()
    return HealthSources(
        store=runtime.store,
        accepting=lambda: runtime.engine.accepting,
        read_replicas=alone(lambda: describe(runtime, started_at), runtime.clock.now),
        heartbeat_timeout_seconds=runtime.settings.worker_heartbeat_timeout,
        on_postgres=runtime.settings.backend != "embedded",
        owner_works=runtime.is_healthy,
        set_aside=lambda: len(runtime.owner.set_aside),
        owned=lambda: len(runtime.owner.owned),
        live=runtime.owner.live,
    )


def describe(runtime: Runtime, started_at: int) -> Heartbeat:
    """What a process says of itself at this moment. `started_at` in epoch milliseconds."""
    attempts = [DeliveryKey(*attempt) for attempt in runtime.pool.attempts_in_hand]
    slots = runtime.settings.worker_concurrency
    return Heartbeat(
        replica=runtime.replica,
        roles=runtime.settings.runtime_roles,
        handlers=sorted(runtime.catalogue),
        slots=slots,
        free_slots=max(0, slots - len(attempts)),
        partitions=len(runtime.owner.owned),
        host=socket.gethostname(),
        version=__version__,
        started_at=started_at,
        attempts=attempts,
    )
