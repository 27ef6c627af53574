"""API keys over the API: make, list, revoke."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from ..ports import KeyRecord
from . import models
from .bodies import KeyRequest
from .errors import KeyNotFound
from .keys import Keys, scope_of
from .responses import json_response
from .routing import Answer, Call, JsonBody, Route, Scope
from .values import format_moment

KEY_BODY_BYTES = 4096


class KeyRoutes:
    """`/v1/keys`."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [
            Route(
                method="GET",
                path="/v1/keys",
                scope=Scope.ADMIN,
                operation="list_keys",
                handler=self.list_keys,
                tag="keys",
                summary="List API keys",
                description="Every key, oldest first, without its text, which is not kept.",
                answers={200: Answer(description="all of them", model=models.KeyList)},
            ),
            Route(
                method="POST",
                path="/v1/keys",
                scope=Scope.ADMIN,
                operation="create_key",
                handler=self.create_key,
                tag="keys",
                summary="Make an API key",
                description="The answer is the only place where the key's text is shown.",
                body=JsonBody(model=KeyRequest, max_bytes=KEY_BODY_BYTES, example={"name": "ci", "scope": "run"}),
                answers={
                    201: Answer(
                        description="the key with its text",
                        model=models.CreatedKey,
                        links={"revoke_key": ("key_id", "id")},
                    )
                },
            ),
            Route(
                method="DELETE",
                path="/v1/keys/{key_id}",
                scope=Scope.ADMIN,
                operation="revoke_key",
                handler=self.revoke_key,
                tag="keys",
                summary="Revoke an API key",
                description="It is refused from then on: at once by this process, within 5 seconds by others.",
                answers={204: Answer(description="it is revoked")},
                errors=(KeyNotFound,),
            ),
        ]

    async def list_keys(self, _call: Call) -> web.Response:
        """Every key."""
        return json_response(200, {"items": [key_item(record) for record in await self._keys.list()]})

    async def create_key(self, call: Call) -> web.Response:
        """A new key."""
        body: KeyRequest = call.body
        text, record = await self._keys.create(body.name, Scope(body.scope), body.expires_at)
        return json_response(201, {**key_item(record), "key": text})

    async def revoke_key(self, call: Call) -> web.Response:
        """End a key."""
        await self._keys.revoke(call.path("key_id"))
        return web.Response(status=204)


def key_item(record: KeyRecord) -> dict[str, object]:
    """A key as the API shows it."""
    return {
        "id": record.key_id,
        "name": record.name,
        "scope": scope_of(record),
        "created_at": format_moment(record.created_at),
        "expires_at": format_moment(record.expires_at),
        "revoked_at": format_moment(record.revoked_at),
    }
