"""Is this process alive, does it take work, and is everything well?"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from . import models
from .options import HealthSources
from .responses import json_response
from .routing import Answer, Call, Route, Scope

NOT_USED = "not used"


class HealthRoutes:
    """`/livez`, `/readyz`, and `/v1/health`, which says more."""

    def __init__(self, sources: HealthSources, version: str) -> None:
        self._sources = sources
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
                answers={
                    200: Answer(description="everything is well", model=models.Health),
                    503: Answer(description="something is not", model=models.Health),
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
        if not self._sources.owner_works():
            return "the orchestrator does not work"
        store = await self._sources.store.health()
        return None if store.ok else "the store does not work"

    async def health(self, _call: Call) -> web.Response:
        """Each part with one word, and why when it is not well."""
        store = await self._sources.store.health()
        owner_works = self._sources.owner_works()
        healthy = store.ok and owner_works
        of_store = f"healthy ({store.detail})" if store.ok else f"unhealthy ({store.detail})"
        body = {
            "status": "healthy" if healthy else "unhealthy",
            "version": self._version,
            "services": {
                "redis": NOT_USED,
                "postgres": of_store if self._sources.on_postgres else NOT_USED,
                "store": of_store,
                "orchestrator": self._orchestrator(owner_works),
                "workers": f"healthy ({self._sources.slots} slots)" if owner_works else "unhealthy",
            },
        }
        return json_response(200 if healthy else 503, body)

    def _orchestrator(self, works: bool) -> str:
        if not works:
            return "unhealthy"
        notes = []
        partitions = self._sources.store.partitions
        if partitions > 1:
            notes.append(f"{self._sources.owned()} of {partitions} partitions")
        if count := self._sources.set_aside():
            notes.append(f"{count} executions set aside, the log says why")
        return f"healthy ({'; '.join(notes)})" if notes else "healthy"
