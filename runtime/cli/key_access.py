"""API keys at a server, or in the database of the settings when no server is meant. Both answer as the API does."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from ..clock import SystemClock
from .errors import CommandError, UsageError
from .http_client import HttpClient
from .server import in_path, server_of, server_url

DAY_MILLISECONDS = 86_400_000

Result = TypeVar("Result")


class KeyAccess(Protocol):
    """Where keys are made, listed and revoked."""

    def create(self, name: str, scope: str, expires_days: int | None) -> Any:
        """A new key with its text. Raises `CommandError`."""

    def list(self) -> Any:
        """Every key. Raises `CommandError`."""

    def revoke(self, key_id: str) -> None:
        """End a key. Raises `CommandError`."""


def key_access(options: argparse.Namespace) -> KeyAccess:
    """The keys of the server that is meant, or of the database when none is."""
    return ServerKeys(server_of(options)) if server_url(options) else DatabaseKeys()


class ServerKeys:
    """Keys over the API."""

    def __init__(self, server: HttpClient) -> None:
        self._server = server

    def create(self, name: str, scope: str, expires_days: int | None) -> Any:
        body: dict[str, Any] = {"name": name, "scope": scope}
        if expires_days is not None:
            from ..api.values import format_moment

            body["expires_at"] = format_moment(_end(expires_days))
        return self._server.send_once("POST", "/v1/keys", body)

    def list(self) -> Any:
        return self._server.get("/v1/keys")

    def revoke(self, key_id: str) -> None:
        self._server.send_once("DELETE", f"/v1/keys/{in_path(key_id)}")


class DatabaseKeys:
    """Keys in the database itself, which no other process may be using."""

    def create(self, name: str, scope: str, expires_days: int | None) -> Any:
        from pydantic import ValidationError

        from ..api.bodies import KeyRequest
        from ..api.key_routes import key_item
        from ..api.routing import Scope
        from ..core.shape import describe_errors

        try:
            KeyRequest.model_validate({"name": name, "scope": scope})
        except ValidationError as error:
            raise UsageError("the key is not valid", describe_errors(error, KeyRequest)) from None
        expires_at = None if expires_days is None else _end(expires_days)

        async def create(keys: Any) -> Any:
            text, record = await keys.create(name, Scope(scope), expires_at)
            return {**key_item(record), "key": text}

        return _with_keys(create)

    def list(self) -> Any:
        from ..api.key_routes import key_item

        async def read(keys: Any) -> Any:
            return {"items": [key_item(record) for record in await keys.list()]}

        return _with_keys(read)

    def revoke(self, key_id: str) -> None:
        _with_keys(lambda keys: keys.revoke(key_id))


def _with_keys(use: Callable[[Any], Awaitable[Result]]) -> Result:
    """Use the keys of the settings' database, opened for this."""
    import asyncio

    from ...config import load_settings
    from ..api.keys import Keys
    from ..errors import StoreUnusable
    from ..parts import build_store

    async def run() -> Result:
        clock = SystemClock()
        settings = load_settings()
        store = build_store(settings, clock)
        try:
            await store.open()
        except StoreUnusable as error:
            raise CommandError(
                f"{error}. While a server uses the database, keys are made through it: "
                f"--url http://{settings.api_host}:{settings.api_port} --api-key-file FILE, with a key of scope admin"
            ) from None
        try:
            return await use(Keys(store, clock))
        finally:
            await store.close()

    return asyncio.run(run())


def _end(days: int) -> int:
    return SystemClock().now() + days * DAY_MILLISECONDS
