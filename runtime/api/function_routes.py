"""Functions: the node types that definitions may name, each of which may also be called by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from aiohttp import web

from ..core.function import CALL_NODE
from ..core.state import TERMINAL_WORKFLOW_STATES, WorkflowState
from ..core.waiting import unserved_message
from ..engine import Engine, ExecutionResults, Submitted
from ..errors import FunctionNotFound, IdempotencyConflict, InvalidInput, NotAccepting
from ..ports import HandlerRecord
from . import models
from .bodies import CallQuery, FunctionConfig
from .errors import FunctionFailed
from .options import ApiOptions, HealthSources
from .responses import bytes_response, json_response
from .routing import Answer, Call, JsonBody, Route, Scope
from .sights import ReplicaSeen, see_replicas
from .submit_routes import EXECUTION_LINKS

TAG = "functions"
LINKS = dict.fromkeys(("function", "call"), ("name", "name"))


class FunctionRoutes:
    """`/v1/functions`."""

    def __init__(self, engine: Engine, sources: HealthSources, options: ApiOptions) -> None:
        self._engine = engine
        self._sources = sources
        self._max_input_bytes = options.max_input_bytes

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [*self._looking(), self._calling()]

    def _looking(self) -> Sequence[Route]:
        return [
            Route(
                method="GET",
                path="/v1/functions",
                scope=Scope.READ,
                operation="functions",
                handler=self.functions,
                tag=TAG,
                summary="The node types",
                description="What a node's `handler` may be, what its `config` takes, and who runs it.",
                answers={200: Answer(description="all of them, by name", model=models.FunctionList)},
            ),
            Route(
                method="GET",
                path="/v1/functions/{name}",
                scope=Scope.READ,
                operation="function",
                handler=self.function,
                tag=TAG,
                summary="A node type",
                answers={200: Answer(description="what is known of it", model=models.FunctionItem, links=LINKS)},
                errors=(FunctionNotFound,),
            ),
        ]

    def _calling(self) -> Route:
        return Route(
            method="POST",
            path="/v1/functions/{name}",
            scope=Scope.RUN,
            operation="call",
            handler=self.call,
            tag=TAG,
            summary="Call a function",
            description="Runs one handler durably, as a node of an execution of its own. The body is the handler's "
            "configuration, taken literally: there are no templates in it. With `wait`, the answer is the function's "
            "output if it ends within that time. The executions are those of the definition `function:` and the name.",
            query=CallQuery,
            body=JsonBody(model=FunctionConfig, max_bytes=self._max_input_bytes, optional=True, engine_checks=True),
            answers={
                200: Answer(description="the output of the function; only with `wait`", model=models.FunctionOutput),
                202: Answer(description="it was called", model=models.Called, links=EXECUTION_LINKS),
            },
            errors=(FunctionNotFound, InvalidInput, IdempotencyConflict, FunctionFailed, NotAccepting),
            idempotent=True,
        )

    async def functions(self, _call: Call) -> web.Response:
        """All node types by name, those of other processes too where they run nodes for this one."""
        records = await self._engine.definitions.handlers.records()
        return json_response(200, {"items": await self._items(records)})

    async def function(self, call: Call) -> web.Response:
        """One node type."""
        record = await self._engine.definitions.handlers.record(call.path("name"))
        [item] = await self._items([record])
        return json_response(200, item)

    async def call(self, call: Call) -> web.Response:
        """Call a function, and wait for its end if asked to."""
        query: CallQuery = call.query
        called = await self._engine.call(call.path("name"), call.body, options=query.options, claim=call.claim)
        if query.wait:
            results = await self._engine.results(called.execution_id, query.wait, call.is_waited_for)
            if results.state in TERMINAL_WORKFLOW_STATES:
                return _output_response(results)
            status = await self._engine.status(called.execution_id)
            return _called_response(called, status.unserved.get(CALL_NODE))
        return _called_response(called, None)

    async def _items(self, records: Sequence[HandlerRecord]) -> Sequence[dict[str, object]]:
        alive = [each for each in (await see_replicas(self._sources)).items if each.is_alive]
        running = self._running(alive)
        queued = self._sources.queued()
        return [
            {
                **function_item(record),
                "workers": [each.heartbeat.replica for each in alive if record.name in each.heartbeat.handlers],
                "running": running[record.name],
                "queued": queued.get(record.name, 0),
            }
            for record in records
        ]

    def _running(self, replicas: Sequence[ReplicaSeen]) -> Counter[str]:
        """How many attempts run, by handler: of what these replicas name, and this process can tell the handler of."""
        keys = {key for each in replicas for key in each.heartbeat.attempts}
        return Counter(filter(None, map(self._engine.handler_of, keys)))


def function_item(record: HandlerRecord) -> dict[str, object]:
    """A handler as it is known wherever it is known."""
    return {
        "name": record.name,
        "description": record.description,
        "config_schema": _decoded(record.config_schema),
        "output_schema": _decoded(record.output_schema),
        "distribution": record.distribution,
        "version": record.version,
        "declared": _decoded(record.declared) or {},
    }


def _decoded(text: str | None) -> object:
    return None if text is None else json.loads(text)


def _location(execution_id: str) -> dict[str, str]:
    return {"Location": f"/v1/workflows/{execution_id}"}


def _output_response(results: ExecutionResults) -> web.Response:
    """The output as it was stored: it is JSON already. Raises `FunctionFailed`."""
    if results.state is not WorkflowState.COMPLETED or results.output_text is None:
        raise FunctionFailed(results.execution_id, results.error)
    return bytes_response(200, results.output_text + b"\n", headers=_location(results.execution_id))


def _called_response(called: Submitted, unserved: str | None) -> web.Response:
    """`unserved`: the handler, when no live worker has it."""
    body = {
        "workflow_definition_id": called.definition_id,
        "execution_id": called.execution_id,
        "message": "Function called successfully",
        "waiting": None if unserved is None else unserved_message(unserved),
    }
    return json_response(202, body, headers=_location(called.execution_id))
