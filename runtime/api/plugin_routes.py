"""The routes that plugins add, below `/v1/plugins/`: admitted, read, checked and described as the engine's own are."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import Any

from aiohttp import web

from ...observability.rare_log import RareLog
from ...plugins.offers import NamedRoute
from ...plugins.values import MAX_ROUTE_BODY_BYTES, ApiCaller, PluginCall, RouteRefused
from ..core.json_text import encode
from ..core.limits import MAX_NODE_OUTPUT_BYTES
from .errors import RefusedByPlugin
from .problems import problem_document, problem_response, title_of
from .responses import bytes_response
from .routing import Answer, Call, Handler, JsonBody, NoQuery, Principal, Route, Scope

log = logging.getLogger(__name__)


def plugin_routes(named: Iterable[NamedRoute]) -> Sequence[Route]:
    """The routes of plugins as the engine serves routes."""
    rare_log = RareLog(log)
    return [_route(each, rare_log) for each in named]


def _route(named: NamedRoute, rare_log: RareLog) -> Route:
    route = named.route
    answers = {200: Answer(description="as the plugin says", model=route.answer or Any)}
    if route.answer is None:
        answers[204] = Answer(description="the plugin says nothing")
    return Route(
        method=route.method,
        path=named.path,
        scope=Scope(route.scope),
        operation=re.sub(r"\W+", "_", f"{named.path.removeprefix('/v1/')}_{route.method.lower()}"),
        handler=_serving(named, rare_log),
        tag="plugins",
        summary=route.summary,
        description=route.description,
        query=route.query or NoQuery,
        body=None if route.body is None else JsonBody(model=route.body, max_bytes=MAX_ROUTE_BODY_BYTES),
        answers=answers,
        errors=(RefusedByPlugin,),
    )


def _serving(named: NamedRoute, rare_log: RareLog) -> Handler:
    route = named.route

    async def serve(call: Call) -> web.StreamResponse:
        given = PluginCall(
            path=dict(call.request.match_info),
            query=call.query if route.query is not None else None,
            body=call.body,
            caller=None if route.scope == "public" else _caller(call.principal),
        )
        try:
            answer = await route.run(given)
            if answer is None and route.answer is None:
                return web.Response(status=204)
            if route.answer is not None:
                answer = route.answer.model_validate(answer).model_dump(mode="json")
            return bytes_response(200, encode(answer, MAX_NODE_OUTPUT_BYTES) + b"\n")
        except RouteRefused as refused:
            title = title_of(RefusedByPlugin)
            return problem_response(problem_document(refused.status, RefusedByPlugin.code, title, str(refused)))
        except Exception:
            rare_log.write(logging.ERROR, named.path, f"a route of plugin {named.plugin} failed: {named.path}")
            raise

    return serve


def _caller(principal: Principal) -> ApiCaller:
    return ApiCaller(name=principal.name, scope=principal.scope.value)  # type: ignore[arg-type]
