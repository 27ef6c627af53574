"""Is this process well?"""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from ..ports import Store
from .requests import check_query
from .responses import json_response

NOT_USED = "not used"


class HealthRoutes:
    """`GET /v1/health`: 200 when every part works, 503 when one does not."""

    def __init__(
        self, *, store: Store, version: str, owner_works: Callable[[], bool], set_aside: Callable[[], int], slots: int
    ) -> None:
        self._store = store
        self._version = version
        self._owner_works = owner_works
        self._set_aside = set_aside
        self._slots = slots

    def register(self, app: web.Application) -> None:
        """Add the route to `app`."""
        app.router.add_get("/v1/health", self.health)

    async def health(self, request: web.Request) -> web.Response:
        """Each part with one word, and why when it is not well."""
        check_query(request, ())
        store = await self._store.health()
        owner_works = self._owner_works()
        healthy = store.ok and owner_works
        body = {
            "status": "healthy" if healthy else "unhealthy",
            "version": self._version,
            "services": {
                "redis": NOT_USED,
                "postgres": NOT_USED,
                "store": f"healthy ({store.detail})" if store.ok else f"unhealthy ({store.detail})",
                "orchestrator": self._orchestrator(owner_works),
                "workers": f"healthy ({self._slots} slots)" if owner_works else "unhealthy",
            },
        }
        return json_response(200 if healthy else 503, body)

    def _orchestrator(self, works: bool) -> str:
        if not works:
            return "unhealthy"
        count = self._set_aside()
        return f"healthy ({count} executions set aside, the log says why)" if count else "healthy"
