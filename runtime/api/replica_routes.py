"""How the replicas share the work: the partitions, and who is there."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aiohttp import web

from ..clock import Clock
from ..core.deliveries import DeliveryKey
from ..core.shares import NOBODY, PartitionRecord
from . import models
from .options import HealthSources
from .responses import json_response
from .routing import Answer, Call, Route, Scope
from .sights import ReplicaSeen, see_partitions, see_replicas
from .values import format_moment


class ReplicaRoutes:
    """`/v1/partitions` and `/v1/workers`."""

    def __init__(self, sources: HealthSources, clock: Clock) -> None:
        self._sources = sources
        self._clock = clock

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [
            Route(
                method="GET",
                path="/v1/partitions",
                scope=Scope.READ,
                operation="partitions",
                handler=self.partitions,
                tag="replicas",
                summary="Who owns which executions",
                description="Executions are spread over partitions, each owned by one orchestrator at a time.",
                answers={200: Answer(description="all of them, by number", model=models.PartitionList)},
            ),
            Route(
                method="GET",
                path="/v1/workers",
                scope=Scope.READ,
                operation="workers",
                handler=self.workers,
                tag="replicas",
                summary="The replicas and what they run",
                description="Every replica of the last minutes, whatever its roles are, by its heartbeat. Where there "
                "are none, with the backend postgres or while Redis does not answer, by what it has last written to "
                "the database, every ORCHESTRATOR_CHECKPOINT_INTERVAL: `source` says so.",
                answers={200: Answer(description="all of them, by id", model=models.WorkerList)},
            ),
        ]

    async def partitions(self, _call: Call) -> web.Response:
        """Every partition, and how long the oldest execution has waited that nobody serves."""
        seen = await see_partitions(self._sources.store, self._clock.now())
        items = [_partition_item(each, seen.unserved_seconds.get(each.partition)) for each in seen.records]
        oldest = _rounded(seen.oldest_unserved_seconds)
        return json_response(200, {"items": items, "oldest_unserved_seconds": oldest})

    async def workers(self, _call: Call) -> web.Response:
        """Every replica."""
        seen = await see_replicas(self._sources)
        return json_response(200, {"source": seen.source, "items": [self._worker_item(each) for each in seen.items]})

    def _worker_item(self, seen: ReplicaSeen) -> dict[str, object]:
        heartbeat = seen.heartbeat
        return {
            "id": heartbeat.replica,
            "host": heartbeat.host,
            "version": heartbeat.version,
            "started_at": format_moment(heartbeat.started_at),
            "alive": seen.is_alive,
            "age_seconds": _rounded(seen.age_seconds),
            "roles": list(heartbeat.roles),
            "handlers": sorted(heartbeat.handlers),
            "slots": heartbeat.slots,
            "free_slots": heartbeat.free_slots,
            "partitions": heartbeat.partitions,
            "attempts": [self._attempt_item(key) for key in sorted(heartbeat.attempts)],
        }

    def _attempt_item(self, key: DeliveryKey) -> dict[str, object]:
        live = self._sources.live(key.execution_id)
        node_id = None if live is None else live.graph.node_ids[key.node]
        return {"execution_id": key.execution_id, "node_id": node_id, "attempt": key.attempt}


def _partition_item(record: PartitionRecord, unserved_seconds: float | None) -> dict[str, object]:
    leased = record.owner != NOBODY and record.expires_in_seconds != math.inf
    return {
        "partition": record.partition,
        "owner": None if record.owner == NOBODY else record.owner,
        "version": record.version,
        "expires_in_seconds": _rounded(record.expires_in_seconds) if leased else None,
        "unserved_seconds": _rounded(unserved_seconds),
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
