"""Fixtures for tests that speak HTTP: servers, names that resolve, and handlers' contexts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from workflow_engine.handlers.external_service import call_external_service
from workflow_engine.handlers.external_service_config import ExternalServiceConfig
from workflow_engine.plugins import NodeContext
from workflow_engine.runtime.worker.egress import create_session

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def make_context() -> AsyncIterator[Callable[..., NodeContext]]:
    """`make_context(allow_private=True)`: an attempt's context with the engine's own session."""
    async with AsyncExitStack() as sessions:
        opened = {
            allow_private: await sessions.enter_async_context(create_session(allow_private=allow_private))
            for allow_private in (True, False)
        }

        def make(*, allow_private: bool = True) -> NodeContext:
            return NodeContext(
                execution_id="execution-1",
                node_id="fetch",
                attempt=2,
                timeout_seconds=60.0,
                input_text=b"{}",
                dependency_outputs=list,
                http=lambda: opened[allow_private],
            )

        yield make


@pytest.fixture
def call_service(make_context: Callable[..., NodeContext]) -> Callable[..., Awaitable[Any]]:
    """`await call_service(url=...)`: what one attempt of `call_external_service` returns or raises."""

    async def call(*, allow_private: bool = True, **config: Any) -> Any:
        model = ExternalServiceConfig.model_validate(config | {"url": str(config["url"])})
        return await call_external_service.run(model, make_context(allow_private=allow_private))

    return call


@pytest.fixture
def make_server(aiohttp_server: Callable[..., Any]) -> Callable[..., Awaitable[TestServer]]:
    """`await make_server(answer)`: a server on the loopback address, the same for each method and path.

    Instead of `answer`, the arguments of `web.Response` may be given.
    """

    async def make(answer: Answer | None = None, **response: Any) -> TestServer:
        async def respond(_request: web.Request) -> web.StreamResponse:
            return web.Response(**response)

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer or respond)
        server: TestServer = await aiohttp_server(application)
        return server

    return make


@pytest.fixture
async def make_raw_server() -> AsyncIterator[Callable[[bytes], Awaitable[str]]]:
    """`await make_raw_server(b"...")`: the URL of a server that answers each request with these bytes.

    Without any it keeps the client waiting.
    """
    async with AsyncExitStack() as servers:

        async def make(answer: bytes) -> str:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                if not answer:
                    await reader.read()
                writer.close()
                await writer.wait_closed()

            server = await servers.enter_async_context(await asyncio.start_server(serve, "127.0.0.1"))
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

        yield make


@pytest.fixture
def host_addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """`host_addresses["one.test"] = ["127.0.0.1"]`: what names resolve to; other names as usual."""
    addresses: dict[str, list[str]] = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host not in addresses:
            return resolve(host, port, *arguments, **options)
        return [information(address, port) for address in addresses[host]]

    def information(address: str, port: Any) -> tuple[Any, ...]:
        if ":" in address:
            return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return addresses
