"""A node of an execution: where it stands, and what it waits for."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from ..clock import Clock
from ..core.shares import PartitionRecord
from ..core.state import TERMINAL_WORKFLOW_STATES, WorkflowState
from ..core.waiting import NOT_TRIGGERED, Surroundings, Waiting, what_it_waits_for
from ..engine import Engine, NodeSeen
from ..errors import ExecutionNotFound, NodeNotFound
from . import models
from .options import HealthSources
from .responses import json_response
from .routing import Answer, Call, Route, Scope
from .sights import see_replicas
from .values import format_moment


class NodeRoutes:
    """`/v1/workflows/{execution_id}/nodes/{node_id}`."""

    def __init__(self, engine: Engine, sources: HealthSources, clock: Clock) -> None:
        self._engine = engine
        self._sources = sources
        self._clock = clock

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [
            Route(
                method="GET",
                path="/v1/workflows/{execution_id}/nodes/{node_id}",
                scope=Scope.READ,
                operation="node",
                handler=self.node,
                tag="executions",
                summary="The state of a node, and what it waits for",
                answers={200: Answer(description="as it stands", model=models.NodeStatus)},
                errors=(ExecutionNotFound, NodeNotFound),
            )
        ]

    async def node(self, call: Call) -> web.Response:
        """The state of a node, and why it does not run."""
        seen = await self._engine.node(call.path("execution_id"), call.path("node_id"))
        waiting = await self._waiting(seen)
        execution = seen.execution
        return json_response(
            200,
            {
                "execution_id": seen.record.execution_id,
                "node_id": execution.graph.node_ids[seen.node],
                "handler": execution.graph.handlers[seen.node],
                "state": seen.state,
                "attempt": 0 if seen.record.started_at is None else execution.attempts[seen.node],
                "waiting": None if waiting is None else _waiting_item(waiting),
                "progress": self._sources.progress(seen.record.execution_id, seen.node),
            },
        )

    async def _waiting(self, seen: NodeSeen) -> Waiting | None:
        if seen.record.state is WorkflowState.PENDING:
            return NOT_TRIGGERED
        if seen.record.state in TERMINAL_WORKFLOW_STATES:
            return None
        handler = seen.execution.graph.handlers[seen.node]
        partitions = {each.partition: each for each in await self._sources.store.read_partitions()}
        partition = partitions[seen.record.partition]
        around = Surroundings(
            cancelled=seen.cancelled,
            unowned=not partition.is_owned,
            unserved=() if await self._is_served(handler, partition) else {handler},
            limited=self._sources.held_up(),
        )
        return what_it_waits_for(seen.execution, seen.node, around, self._clock.now())

    async def _is_served(self, handler: str, partition: PartitionRecord) -> bool:
        """Whether a live worker has the handler. Where replicas do not hand each other work, the owner has to be it."""
        alive = [each.heartbeat for each in (await see_replicas(self._sources)).items if each.is_alive]
        apart = self._sources.read_heartbeats is None
        return any(handler in each.handlers for each in alive if not apart or each.replica == partition.owner)


def _waiting_item(waiting: Waiting) -> dict[str, object]:
    return {
        "for": waiting.kind,
        "message": waiting.message,
        "nodes": list(waiting.nodes),
        "until": format_moment(waiting.until),
    }
