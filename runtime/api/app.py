"""The aiohttp application."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from ..engine import Engine
from ..ports import Store
from .health_routes import HealthRoutes
from .problems import problems_middleware
from .workflow_routes import WorkflowRoutes


def build_app(
    engine: Engine,
    *,
    store: Store,
    version: str,
    owner_works: Callable[[], bool],
    set_aside: Callable[[], int],
    slots: int,
) -> web.Application:
    """The API over one engine. The last three arguments are for the health report."""
    app = web.Application(middlewares=[problems_middleware])
    WorkflowRoutes(engine).register(app)
    HealthRoutes(store=store, version=version, owner_works=owner_works, set_aside=set_aside, slots=slots).register(app)
    return app
