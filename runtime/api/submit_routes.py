"""The specification's two steps: submit, then trigger."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from ..core.definition import WorkflowDefinition
from ..engine import Engine
from ..errors import (
    ExecutionConflict,
    ExecutionNotFound,
    IdempotencyConflict,
    InvalidDefinition,
    InvalidInput,
    NotAccepting,
)
from . import models
from .bodies import TriggerRequest
from .options import ApiOptions
from .responses import json_response
from .routing import Answer, Call, JsonBody, Route, Scope

EXAMPLE = {
    "name": "hello",
    "dag": {
        "nodes": [
            {"id": "input", "handler": "input"},
            {"id": "output", "handler": "output", "dependencies": ["input"]},
        ]
    },
}
INPUT_EXAMPLE = {"input_params": {"user_id": 123}}
EXECUTION_LINKS = dict.fromkeys(("trigger", "status", "results", "cancel"), ("execution_id", "execution_id"))
ENVELOPE_BYTES = 1024
"""What may stand around the input parameters."""


class SubmitRoutes:
    """Submit a workflow, trigger its execution."""

    def __init__(self, engine: Engine, options: ApiOptions) -> None:
        self._engine = engine
        self._options = options

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [
            Route(
                method="POST",
                path="/v1/workflow",
                scope=Scope.RUN,
                operation="submit",
                handler=self.submit,
                tag="workflows",
                summary="Submit a workflow",
                description="Stores the definition, unless its name has the very same one, and a PENDING execution "
                "of it, which waits to be triggered.",
                body=JsonBody(
                    model=WorkflowDefinition,
                    max_bytes=self._options.max_definition_bytes,
                    engine_checks=True,
                    example=EXAMPLE,
                ),
                answers={
                    202: Answer(
                        description="the definition and its execution", model=models.Submitted, links=EXECUTION_LINKS
                    )
                },
                errors=(InvalidDefinition, IdempotencyConflict, NotAccepting),
                idempotent=True,
            ),
            Route(
                method="POST",
                path="/v1/workflow/trigger/{execution_id}",
                scope=Scope.RUN,
                operation="trigger",
                handler=self.trigger,
                tag="workflows",
                summary="Trigger an execution",
                description="Starts an execution. One that has ended starts anew, under a new id.",
                body=JsonBody(
                    model=TriggerRequest,
                    max_bytes=self._options.max_input_bytes + ENVELOPE_BYTES,
                    optional=True,
                    example=INPUT_EXAMPLE,
                ),
                answers={
                    200: Answer(
                        description="the execution that was started", model=models.Triggered, links=EXECUTION_LINKS
                    )
                },
                errors=(ExecutionNotFound, ExecutionConflict, InvalidInput, IdempotencyConflict, NotAccepting),
                idempotent=True,
            ),
        ]

    async def submit(self, call: Call) -> web.Response:
        """Store a definition and a PENDING execution of it."""
        submitted = await self._engine.submit(call.body, call.claim)
        return json_response(
            202,
            {
                "workflow_definition_id": submitted.definition_id,
                "execution_id": submitted.execution_id,
                "message": "Workflow submitted successfully",
            },
        )

    async def trigger(self, call: Call) -> web.Response:
        """Start an execution."""
        body: TriggerRequest = call.body
        execution_id = await self._engine.trigger(call.path("execution_id"), body.input_params, call.claim)
        return json_response(200, {"execution_id": execution_id, "message": "Workflow started successfully"})
