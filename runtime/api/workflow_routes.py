"""Submit, trigger, status, results, cancel."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from aiohttp import web

from ..core.limits import MAX_DEFINITION_BYTES, MAX_INPUT_BYTES
from ..engine import Engine, ExecutionResults, ExecutionStatus
from .requests import TriggerRequest, check_query, parse_body, read_json, wait_seconds
from .responses import json_response

ENVELOPE_BYTES = 1024


class WorkflowRoutes:
    """The routes of workflows and their executions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def register(self, app: web.Application) -> None:
        """Add the routes to `app`."""
        app.router.add_post("/v1/workflow", self.submit)
        app.router.add_post("/v1/workflow/trigger/{execution_id}", self.trigger)
        app.router.add_get("/v1/workflows/{execution_id}", self.status)
        app.router.add_get("/v1/workflows/{execution_id}/results", self.results)
        app.router.add_post("/v1/workflows/{execution_id}/cancel", self.cancel)

    async def submit(self, request: web.Request) -> web.Response:
        """Store a workflow definition and a PENDING execution of it."""
        check_query(request, ())
        submitted = await self._engine.submit(await read_json(request, MAX_DEFINITION_BYTES))
        return json_response(
            202,
            {
                "workflow_definition_id": submitted.definition_id,
                "execution_id": submitted.execution_id,
                "message": "Workflow submitted successfully",
            },
        )

    async def trigger(self, request: web.Request) -> web.Response:
        """Start an execution; one that has ended starts anew, under a new id."""
        check_query(request, ())
        body = await read_json(request, MAX_INPUT_BYTES + ENVELOPE_BYTES, optional=True)
        parameters = parse_body(body, TriggerRequest).input_params
        execution_id = await self._engine.trigger(_execution_id(request), parameters)
        return json_response(200, {"execution_id": execution_id, "message": "Workflow started successfully"})

    async def status(self, request: web.Request) -> web.Response:
        """The state of an execution and of its nodes."""
        check_query(request, ())
        return json_response(200, _status(await self._engine.status(_execution_id(request))))

    async def results(self, request: web.Request) -> web.Response:
        """The output of an execution; `?wait=SECONDS` waits for its end."""
        check_query(request, ("wait",))
        results = await self._engine.results(_execution_id(request), wait_seconds(request))
        return web.Response(body=_results(results), content_type="application/json")

    async def cancel(self, request: web.Request) -> web.Response:
        """Ask for an execution to be cancelled."""
        check_query(request, ())
        await read_json(request, ENVELOPE_BYTES, optional=True)
        execution_id = _execution_id(request)
        state = await self._engine.cancel(execution_id)
        return json_response(202, {"execution_id": execution_id, "state": state, "message": "Cancellation requested"})


def _execution_id(request: web.Request) -> str:
    return request.match_info["execution_id"]


def _status(status: ExecutionStatus) -> dict[str, object]:
    return {
        "id": status.execution_id,
        "state": status.state,
        "started_at": _time(status.started_at),
        "completed_at": _time(status.completed_at),
        "node_states": status.node_states,
        "error": status.error,
    }


def _results(results: ExecutionResults) -> bytes:
    """The answer with the stored output text put in as it is: it is JSON already."""
    head = json.dumps({"id": results.execution_id, "state": results.state})[:-1]
    tail = json.dumps({"completed_at": _time(results.completed_at), "error": results.error})[1:]
    output = results.output_text if results.output_text is not None else b"null"
    return head.encode() + b', "output_data": ' + output + b", " + tail.encode() + b"\n"


def _time(milliseconds: int | None) -> str | None:
    """RFC 3339, UTC, with milliseconds."""
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
