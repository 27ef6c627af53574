"""Is this process alive, does it take work, and is everything well?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal, NamedTuple

from aiohttp import web

from ..broker import BrokerHealth
from ..clock import Clock
from ..errors import BackendError
from . import models
from .options import HealthSources
from .responses import json_response
from .routing import Answer, Call, Route, Scope
from .sights import ANSWER_SECONDS, PartitionsSeen, see_partitions, see_replicas

Level = Literal["healthy", "degraded", "unhealthy"]
LEVELS: Sequence[Level] = ("healthy", "degraded", "unhealthy")
"""From well to ill: the whole is as its worst part is."""


class _Part(NamedTuple):
    """One part of the report. `level` is what it makes of the whole."""

    level: Level
    text: str


def _part(level: Level, detail: str) -> _Part:
    return _Part(level, f"{level} ({detail})" if detail else level)


NOT_USED = _Part("healthy", "not used")
NO_ROLE = _Part("healthy", "not a role of this process")


class HealthRoutes:
    """`/livez`, `/readyz`, and `/v1/health`, which says more."""

    def __init__(self, sources: HealthSources, clock: Clock, version: str) -> None:
        self._sources = sources
        self._clock = clock
        self._version = version

    def routes(self) -> Sequence[Route]:
        """The routes. None of them is counted: they answer under overload too."""
        return [
            Route(
                method="GET",
                path="/livez",
                scope=Scope.PUBLIC,
                operation="livez",
                handler=self.livez,
                tag="health",
                summary="Whether this process answers",
                answers={200: Answer(description="it does", model=models.Alive)},
                counted=False,
            ),
            Route(
                method="GET",
                path="/readyz",
                scope=Scope.PUBLIC,
                operation="readyz",
                handler=self.readyz,
                tag="health",
                summary="Whether this process takes work",
                description="Not while it shuts down, and not when its store or its owner does not work.",
                answers={
                    200: Answer(description="it does", model=models.Ready),
                    503: Answer(description="it does not", model=models.Ready),
                },
                counted=False,
            ),
            Route(
                method="GET",
                path="/v1/health",
                scope=Scope.READ,
                operation="health",
                handler=self.health,
                tag="health",
                summary="Each part of this process",
                description="Work goes on without Redis, and waits without a worker: both is degraded, not unhealthy.",
                answers={
                    200: Answer(description="everything is well, or degraded", model=models.Health),
                    503: Answer(description="something is unhealthy", model=models.Health),
                },
                counted=False,
            ),
        ]

    async def livez(self, _call: Call) -> web.Response:
        """That this is answered at all is the answer."""
        return json_response(200, {"status": "alive"})

    async def readyz(self, _call: Call) -> web.Response:
        """Ready, or why not."""
        reason = await self._reason_not_ready()
        if reason is None:
            return json_response(200, {"status": "ready", "reason": None})
        return json_response(503, {"status": "not ready", "reason": reason})

    async def _reason_not_ready(self) -> str | None:
        if not self._sources.accepting():
            return "shutting down"
        if not self._owner_is_well():
            return "the orchestrator does not work"
        store = await self._sources.store.health()
        return None if store.ok else "the store does not work"

    async def health(self, _call: Call) -> web.Response:
        """Each part in a word, and what there is to say of it."""
        store = await self._sources.store.health()
        of_store = _part("healthy" if store.ok else "unhealthy", store.detail)
        seen = await self._see_partitions() if store.ok else None
        parts = {
            "redis": await self._redis(),
            "postgres": of_store if self._sources.on_postgres else NOT_USED,
            "store": of_store,
            "orchestrator": self._orchestrator(seen),
            "workers": await self._workers(executions_wait=seen is not None and seen.executions_wait),
            "plugins": self._plugins(),
        }
        status = max((part.level for part in parts.values()), key=LEVELS.index)
        services = {name: part.text for name, part in parts.items()}
        body = {"status": status, "version": self._version, "services": services}
        return json_response(503 if status == "unhealthy" else 200, body)

    def _owner_is_well(self) -> bool:
        return self._sources.owner_works is None or self._sources.owner_works()

    async def _see_partitions(self) -> PartitionsSeen | None:
        try:
            return await see_partitions(self._sources.store, self._clock.now())
        except BackendError:
            return None

    async def _redis(self) -> _Part:
        if self._sources.broker_health is None:
            return NOT_USED
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                broker = await self._sources.broker_health()
        except TimeoutError:
            broker = BrokerHealth(ok=False, detail=f"no answer for {ANSWER_SECONDS:g} s")
        return _part("healthy", broker.detail) if broker.ok else _Part("degraded", f"unhealthy ({broker.detail})")

    def _orchestrator(self, seen: PartitionsSeen | None) -> _Part:
        if self._sources.owner_works is None:
            return NO_ROLE
        if not self._owner_is_well():
            return _part("unhealthy", "")
        notes = []
        partitions = self._sources.store.partitions
        if partitions > 1:
            notes.append(f"{self._sources.owned()} of {partitions} partitions")
            if seen is not None:
                notes.append(f"{sum(record.is_owned for record in seen.records)} owned by anybody")
        if seen is not None and seen.oldest_unserved_seconds is not None:
            notes.append(f"oldest unserved {seen.oldest_unserved_seconds:.0f} s")
        if count := self._sources.set_aside():
            notes.append(f"{count} executions set aside, the log says why")
        return _part("healthy", "; ".join(notes))

    def _plugins(self) -> _Part:
        left_out = self._sources.plugins_left_out
        return _part("degraded", f"left out: {', '.join(left_out)}") if left_out else _part("healthy", "")

    async def _workers(self, *, executions_wait: bool) -> _Part:
        try:
            seen = await see_replicas(self._sources)
        except BackendError as error:
            return _part("degraded", f"what they say of themselves cannot be read: {error}")
        alive = [each.heartbeat for each in seen.items if each.is_alive and "worker" in each.heartbeat.roles]
        slots, free = sum(each.slots for each in alive), sum(each.free_slots for each in alive)
        counts = f"{len(alive)} alive, {slots} slots, {free} free"
        if seen.source == "checkpoints" and self._sources.read_heartbeats is not None:
            counts += ", by what they last wrote to the database"
        if not alive and executions_wait:
            return _part("degraded", f"{counts}; executions wait")
        if unserved := self._sources.unserved():
            waiting = ", ".join(f"{count} for {handler}" for handler, count in sorted(unserved.items()))
            return _part("degraded", f"{counts}; nodes wait for handlers that no live process has: {waiting}")
        return _part("healthy", counts)
