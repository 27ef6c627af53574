"""Start executions of stored definitions: one in a call, or one for each line of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiohttp import web

from ..clock import Clock
from ..core.state import TERMINAL_WORKFLOW_STATES
from ..engine import Engine
from ..errors import DefinitionNotFound, IdempotencyConflict, InvalidInput, NotAccepting
from . import models
from .bodies import StartQuery, TriggerRequest, VersionQuery
from .bulk import BulkStart
from .execution_routes import results_response
from .options import ApiOptions
from .requests import check_media_type
from .responses import json_response
from .routing import Answer, Call, JsonBody, LinesBody, Route, Scope
from .submit_routes import ENVELOPE_BYTES, EXECUTION_LINKS, INPUT_EXAMPLE

LINES_MEDIA_TYPE = "application/x-ndjson"


class StartRoutes:
    """One-call start and bulk start."""

    def __init__(self, engine: Engine, clock: Clock, options: ApiOptions) -> None:
        self._engine = engine
        self._clock = clock
        self._options = options

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [
            Route(
                method="POST",
                path="/v1/definitions/{name}/executions",
                scope=Scope.RUN,
                operation="start",
                handler=self.start,
                tag="definitions",
                summary="Start an execution of a definition",
                description="With `wait`, the answer is the results if the execution ends within that time.",
                query=StartQuery,
                body=JsonBody(
                    model=TriggerRequest,
                    max_bytes=self._options.max_input_bytes + ENVELOPE_BYTES,
                    optional=True,
                    example=INPUT_EXAMPLE,
                ),
                answers={
                    200: Answer(description="it has ended; only with `wait`", model=models.ExecutionResults),
                    202: Answer(description="it was started", model=models.Submitted, links=EXECUTION_LINKS),
                },
                errors=(DefinitionNotFound, InvalidInput, IdempotencyConflict, NotAccepting),
                idempotent=True,
            ),
            Route(
                method="POST",
                path="/v1/definitions/{name}/executions/bulk",
                scope=Scope.RUN,
                operation="start_bulk",
                handler=self.start_bulk,
                tag="definitions",
                summary="Start an execution for each line",
                description="The body is a stream of JSON lines, and so is the answer: one line for each, in order, as "
                "soon as its execution is stored. A line that is wrong gets a problem and does not stop the "
                "others. With an `Idempotency-Key`, each line counts as a request under the key, a slash and the "
                "number of the line.",
                query=VersionQuery,
                body=LinesBody(line=TriggerRequest),
                answers={200: Answer(description="a line for each line", model=models.BulkAnswer, lines=True)},
                errors=(DefinitionNotFound, NotAccepting),
                idempotent=True,
            ),
        ]

    async def start(self, call: Call) -> web.Response:
        """Create and start an execution, and wait for its end if asked to."""
        query: StartQuery = call.query
        body: TriggerRequest = call.body
        started = await self._engine.start(
            call.path("name"), body.input_params, version=query.version, claim=call.claim
        )
        if query.wait:
            results = await self._engine.results(started.execution_id, query.wait, call.is_waited_for)
            if results.state in TERMINAL_WORKFLOW_STATES:
                return results_response(results)
        return json_response(
            202,
            {
                "workflow_definition_id": started.definition_id,
                "execution_id": started.execution_id,
                "message": "Workflow started successfully",
            },
        )

    async def start_bulk(self, call: Call) -> web.StreamResponse:
        """Start an execution for each line, while lines come in."""
        query: VersionQuery = call.query
        check_media_type(call.request, LINES_MEDIA_TYPE)
        if not self._engine.accepting:
            raise NotAccepting("this process is shutting down; try again in a moment")
        # All lines start the same version, whatever is stored meanwhile.
        found = await self._engine.definitions.find(call.path("name"), query.version)
        bulk = BulkStart(self._engine, self._clock, self._options, call, found.version)
        response = web.StreamResponse()
        response.content_type = LINES_MEDIA_TYPE
        await response.prepare(call.request)
        async for answers in bulk.answers():
            await self._write(response, answers, call.request)
        await response.write_eof()
        return response

    async def _write(self, response: web.StreamResponse, answers: bytes, request: web.Request) -> None:
        """Send answers to a client that may not be reading them; such a one is left."""
        try:
            async with asyncio.timeout(self._options.request_timeout_seconds):
                await response.write(answers)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("the client does not read its answers") from None
