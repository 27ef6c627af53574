"""The aiohttp application: every route there is, and what stands around all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from ..clock import Clock
from ..engine import Engine
from . import openapi
from .access import Access
from .dead_letter_routes import DeadLetterRoutes
from .definition_routes import DefinitionRoutes
from .dispatch import Dispatcher
from .docs_routes import DocsRoutes
from .execution_routes import ExecutionRoutes
from .function_routes import FunctionRoutes
from .health_routes import HealthRoutes
from .history_routes import HistoryRoutes
from .key_routes import KeyRoutes
from .keys import Keys
from .node_routes import NodeRoutes
from .options import ApiOptions, HealthSources
from .plugin_routes import plugin_routes
from .problems import problems_middleware
from .replica_routes import ReplicaRoutes
from .responses import SERVER_NAME, add_default_headers
from .routing import Route
from .start_routes import StartRoutes
from .submit_routes import SubmitRoutes

ROUTES: web.AppKey[Sequence[Route]] = web.AppKey("routes", Sequence[Route])


def build_app(
    engine: Engine,
    *,
    health: HealthSources,
    clock: Clock,
    version: str,
    options: ApiOptions,
) -> web.Application:
    """The API over one engine."""
    keys = Keys(health.store, clock)
    routes = build_routes(engine, health=health, clock=clock, version=version, options=options, keys=keys)
    return _serving(routes, keys, clock, options)


def create_health_app(health: HealthSources, *, clock: Clock, version: str, options: ApiOptions) -> web.Application:
    """Health alone, with the same access: for a process that does not serve the API."""
    return _serving(HealthRoutes(health, clock, version).routes(), Keys(health.store, clock), clock, options)


def _serving(routes: Sequence[Route], keys: Keys, clock: Clock, options: ApiOptions) -> web.Application:
    access = Access(keys if options.keys_required else None, options.own_host, options.authenticate)
    dispatcher = Dispatcher(
        access,
        clock,
        max_concurrent_requests=options.max_concurrent_requests,
        request_timeout_seconds=options.request_timeout_seconds,
    )
    app = web.Application(middlewares=[problems_middleware(show_faults=options.show_faults)])
    app.on_response_prepare.append(add_default_headers)
    app[ROUTES] = routes
    dispatcher.register(app, routes)
    return app


def build_routes(
    engine: Engine,
    *,
    health: HealthSources,
    clock: Clock,
    version: str,
    options: ApiOptions,
    keys: Keys,
) -> Sequence[Route]:
    """Every route, the description of all of them included."""
    routes: list[Route] = [
        *SubmitRoutes(engine, options).routes(),
        *ExecutionRoutes(engine).routes(),
        *NodeRoutes(engine, health, clock).routes(),
        *HistoryRoutes(engine, SERVER_NAME).routes(),
        *DeadLetterRoutes(engine).routes(),
        *DefinitionRoutes(engine, options).routes(),
        *StartRoutes(engine, clock, options).routes(),
        *FunctionRoutes(engine, health, options).routes(),
        *KeyRoutes(keys).routes(),
        *ReplicaRoutes(health, clock).routes(),
        *HealthRoutes(health, clock, version).routes(),
        *plugin_routes(options.plugin_routes),
    ]
    # The description describes itself too.
    routes += DocsRoutes(lambda: openapi.describe(routes, version), engine).routes()
    return routes


def declared_routes() -> Sequence[Route]:
    """Every route as it is declared, without an engine to serve it: for the documentation."""
    nothing: Any = None
    return build_routes(nothing, health=nothing, clock=nothing, version="", options=ApiOptions(), keys=nothing)
