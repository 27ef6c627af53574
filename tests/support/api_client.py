"""Speak to the API in a test: the usual calls, and bytes that no client library would send."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp.test_utils import TestClient

from workflow_engine.plugins import NodeContext, handler

Make = Callable[..., Awaitable[Any]]
Client = TestClient[Any, Any]

JSON = {"Content-Type": "application/json"}
SUBMIT = "/v1/workflow"
NO_SUCH_ID = "00000000-0000-7000-8000-000000000000"

HELLO: dict[str, Any] = {"name": "hello", "dag": {"nodes": [{"id": "input", "handler": "input"}]}}
GATED: dict[str, Any] = {"name": "gated", "dag": {"nodes": [{"id": "gate", "handler": "gate"}]}}


class Gate:
    """A handler "gate" that waits until it is opened, and says when it has begun."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.open = asyncio.Event()

        @handler("gate")
        async def wait(_config: dict[str, Any], context: NodeContext) -> Any:
            self.started.set()
            await self.open.wait()
            return context.parameters

        self.handler = wait


async def submit(client: Client, document: Any = HELLO) -> str:
    async with client.post(SUBMIT, json=document) as response:
        assert response.status == 202
        return str((await response.json())["execution_id"])


async def trigger(client: Client, execution_id: str, **body: Any) -> str:
    async with client.post(f"/v1/workflow/trigger/{execution_id}", json=body) as response:
        assert response.status == 200
        return str((await response.json())["execution_id"])


async def results(client: Client, execution_id: str, wait: float = 60) -> Any:
    async with client.get(f"/v1/workflows/{execution_id}/results", params={"wait": wait}) as response:
        assert response.status == 200
        return await response.json()


async def status(client: Client, execution_id: str) -> Any:
    async with client.get(f"/v1/workflows/{execution_id}") as response:
        assert response.status == 200
        return await response.json()


async def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    """The problem document of a response, which must be a whole one."""
    body = json.loads(await response.text())
    assert (response.status, body["status"]) == (status, status)
    assert response.headers["Content-Type"] == "application/problem+json"
    assert body["type"] == f"urn:workflow-engine:problem:{code}"
    assert body["title"]
    assert body["detail"]
    more = {"execution_id", "error"} if code == "function-failed" else {"errors"}
    assert set(body) <= {"type", "title", "status", "detail", *more}
    for error in body.get("errors", ()):
        assert set(error) == {"path", "message"}
        assert error["path"]
        assert error["message"]
    assert ("Retry-After" in response.headers) == (status == 503)
    return dict(body)


def error_paths(body: dict[str, Any]) -> list[str]:
    return [error["path"] for error in body.get("errors", ())]


async def exchange(client: Client, *parts: bytes, end: bool = False) -> tuple[int, bytes]:
    """Send bytes over a connection of its own; the status and the body of what comes back before it is read on."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    try:
        for part in parts:
            writer.write(part)
        if end:
            writer.write_eof()
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.lower().splitlines() if line.startswith("content-length:"))
        return int(head.split()[1]), await reader.readexactly(int(length.split(":")[1]))
    finally:
        writer.close()
        await writer.wait_closed()


def head(path: str, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: test", "Content-Type: application/json", *headers, "", ""]
    return "\r\n".join(lines).encode()
