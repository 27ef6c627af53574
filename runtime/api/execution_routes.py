"""Executions: look at them, list them, cancel them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aiohttp import web

from ..core.waiting import unserved_message
from ..engine import Engine, ExecutionResults, ExecutionStatus
from ..errors import ExecutionConflict, ExecutionNotFound, NotAccepting
from ..ports import ExecutionSummary
from . import models
from .bodies import CancelManyRequest, ListExecutionsQuery, NothingRequest, WaitQuery
from .pages import cursor_of_id, id_of_cursor, page
from .responses import bytes_response, json_response
from .routing import Answer, Call, JsonBody, Route, Scope
from .values import format_moment

CANCEL_BYTES = 1024
CANCEL_MANY_BYTES = 16 * 1024


class ExecutionRoutes:
    """Status, results, lists and cancelling of executions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [*self._reading(), *self._cancelling()]

    def _reading(self) -> Sequence[Route]:
        return [
            Route(
                method="GET",
                path="/v1/workflows",
                scope=Scope.READ,
                operation="list_executions",
                handler=self.list_executions,
                tag="executions",
                summary="List executions",
                description="Newest first. `next_cursor` leads to the next page.",
                query=ListExecutionsQuery,
                answers={200: Answer(description="a page", model=models.ExecutionPage)},
            ),
            Route(
                method="GET",
                path="/v1/workflows/{execution_id}",
                scope=Scope.READ,
                operation="status",
                handler=self.status,
                tag="executions",
                summary="The state of an execution and of its nodes",
                answers={200: Answer(description="as it stands", model=models.ExecutionStatus)},
                errors=(ExecutionNotFound,),
            ),
            Route(
                method="GET",
                path="/v1/workflows/{execution_id}/results",
                scope=Scope.READ,
                operation="results",
                handler=self.results,
                tag="executions",
                summary="The output of an execution",
                description="With `wait`, the answer comes when the execution has ended or the time has passed.",
                query=WaitQuery,
                answers={200: Answer(description="what it came to so far", model=models.ExecutionResults)},
                errors=(ExecutionNotFound,),
            ),
        ]

    def _cancelling(self) -> Sequence[Route]:
        return [
            Route(
                method="POST",
                path="/v1/workflows/{execution_id}/cancel",
                scope=Scope.RUN,
                operation="cancel",
                handler=self.cancel,
                tag="executions",
                summary="Cancel an execution",
                description="A RUNNING execution starts no more nodes from then on and is CANCELLED shortly after.",
                body=JsonBody(model=NothingRequest, max_bytes=CANCEL_BYTES, optional=True),
                answers={202: Answer(description="it was asked to stop", model=models.CancelRequested)},
                errors=(ExecutionNotFound, ExecutionConflict, NotAccepting),
            ),
            Route(
                method="POST",
                path="/v1/workflows/cancel",
                scope=Scope.ADMIN,
                operation="cancel_many",
                handler=self.cancel_many,
                tag="executions",
                summary="Cancel executions by filter",
                description="Cancels the newest PENDING and RUNNING executions that meet every condition of the body.",
                body=JsonBody(
                    model=CancelManyRequest, max_bytes=CANCEL_MANY_BYTES, example={"name": "hello", "limit": 100}
                ),
                answers={200: Answer(description="how many", model=models.CancelledMany)},
                errors=(NotAccepting,),
            ),
        ]

    async def list_executions(self, call: Call) -> web.Response:
        """A page of executions."""
        query: ListExecutionsQuery = call.query
        found = await self._engine.list_executions(
            query.wanted, before=id_of_cursor(query.cursor), limit=query.limit + 1
        )
        return json_response(
            200, page(found, query.limit, execution_item, lambda item: cursor_of_id(item.execution_id))
        )

    async def status(self, call: Call) -> web.Response:
        """The state of an execution and of its nodes."""
        return json_response(200, _status(await self._engine.status(call.path("execution_id"))))

    async def results(self, call: Call) -> web.Response:
        """The output of an execution."""
        query: WaitQuery = call.query
        return results_response(await self._engine.results(call.path("execution_id"), query.wait, call.is_waited_for))

    async def cancel(self, call: Call) -> web.Response:
        """Ask for an execution to be cancelled."""
        execution_id = call.path("execution_id")
        state = await self._engine.cancel(execution_id)
        return json_response(202, {"execution_id": execution_id, "state": state, "message": "Cancellation requested"})

    async def cancel_many(self, call: Call) -> web.Response:
        """Ask for all executions that meet a filter to be cancelled."""
        body: CancelManyRequest = call.body
        return json_response(200, (await self._engine.cancel_many(body.wanted, body.limit))._asdict())


def results_response(results: ExecutionResults) -> web.Response:
    """The answer with the stored output text put in as it is: it is JSON already."""
    head = json.dumps({"id": results.execution_id, "state": results.state})[:-1]
    tail = json.dumps({"completed_at": format_moment(results.completed_at), "error": results.error})[1:]
    output = results.output_text if results.output_text is not None else b"null"
    return bytes_response(200, head.encode() + b', "output_data": ' + output + b", " + tail.encode() + b"\n")


def _status(status: ExecutionStatus) -> dict[str, object]:
    shown: dict[str, object] = {
        "id": status.execution_id,
        "state": status.state,
        "started_at": format_moment(status.started_at),
        "completed_at": format_moment(status.completed_at),
        "node_states": status.node_states,
        "error": status.error,
    }
    if status.unserved:
        shown["waiting"] = {node_id: unserved_message(handler) for node_id, handler in status.unserved.items()}
    return shown if status.retry_of is None else {**shown, "retry_of": status.retry_of}


def execution_item(item: ExecutionSummary) -> dict[str, object]:
    """An execution as a list shows it."""
    shown: dict[str, object] = {
        "id": item.execution_id,
        "state": item.state,
        "workflow_definition_id": item.definition_id,
        "name": item.name,
        "version": item.version,
        "created_at": format_moment(item.created_at),
        "started_at": format_moment(item.started_at),
        "completed_at": format_moment(item.completed_at),
        "error": None if item.error is None else json.loads(item.error),
    }
    return shown if item.retry_of is None else {**shown, "retry_of": item.retry_of}
