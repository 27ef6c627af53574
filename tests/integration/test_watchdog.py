"""The watchdog in a whole process: a handler that holds the event loop is named, and where others can take over, the
process ends and they do."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from commands import Process
from postgres_server import PostgresServer

Serve = Callable[..., Awaitable[tuple[Process, str]]]

BLOCKING = '''
import socket
import sys

from workflow_engine.plugins import handler, hookimpl


@handler("block")
async def block(config, context):
    """Hold the event loop until somebody answers."""
    with socket.create_connection(("127.0.0.1", config["port"])) as connection:
        return connection.recv(16).decode()


@hookimpl
def workflow_engine_handlers():
    return [block]
'''


class Answers:
    """Whom the handler asks: connections wait in `asked` for an answer."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def answer(self) -> None:
        """Answer the next one."""
        async with asyncio.timeout(60):
            writer = await self.asked.get()
        writer.write(b"go on")
        writer.close()


@pytest.fixture
async def answers(install_plugin: Callable[..., None]) -> AsyncIterator[Answers]:
    """With the plugin that asks installed."""
    install_plugin("blocking", BLOCKING)
    answers = Answers()
    kept: list[asyncio.StreamWriter] = []

    async def ask(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)
        answers.asked.put_nowait(writer)

    server = await asyncio.start_server(ask, "127.0.0.1")
    answers.port = server.sockets[0].getsockname()[1]
    async with server:
        yield answers
        for writer in kept:
            writer.close()


@pytest.fixture
async def start_blocking(answers: Answers) -> AsyncIterator[Callable[[str], Awaitable[str]]]:
    """`await start_blocking(url)`: start an execution of one node that blocks, whose id is returned.

    Nobody waits for what the server says to that: its loop may be blocked by then.
    """
    node = {"id": "wait", "handler": "block", "config": {"port": answers.port}}
    document = {"name": "x", "dag": {"nodes": [node]}}
    async with aiohttp.ClientSession() as session:
        triggering: list[asyncio.Task[aiohttp.ClientResponse]] = []

        async def start(url: str) -> str:
            async with session.post(f"{url}/v1/workflow", json=document) as response:
                execution_id: str = (await response.json())["execution_id"]

            async def trigger() -> aiohttp.ClientResponse:
                return await session.post(f"{url}/v1/workflow/trigger/{execution_id}", json={})

            triggering.append(asyncio.create_task(trigger()))
            return execution_id

        yield start
        for task in triggering:
            task.cancel()
        await asyncio.gather(*triggering, return_exceptions=True)


async def result_of(url: str, execution_id: str) -> Any:
    async with (
        aiohttp.ClientSession(url) as session,
        session.get(f"/v1/workflows/{execution_id}/results", params={"wait": "60"}) as response,
    ):
        return (await response.json())["output_data"]


async def test_a_handler_that_holds_the_loop_is_named(
    serve: Serve, answers: Answers, start_blocking: Callable[[str], Awaitable[str]]
) -> None:
    process, url = await serve()
    execution_id = await start_blocking(url)
    line = await process.line("stderr", "the event loop is blocked for ")
    assert f"by the handler block, in attempt 1 of node wait of execution {execution_id}" in line
    assert "    return connection.recv(16).decode()" in await process.line("stderr", "connection.recv")
    await answers.answer()
    assert await result_of(url, execution_id) == "go on"
    process.signal(signal.SIGTERM)
    assert await process.end() == 0


@pytest.mark.campaign
async def test_where_others_can_take_over_the_process_ends_and_they_do(
    serve: Serve,
    answers: Answers,
    start_blocking: Callable[[str], Awaitable[str]],
    postgres_server: PostgresServer,
) -> None:
    variables = {
        name.upper(): str(value) for name, value in postgres_server.settings(postgres_server.create_database()).items()
    }
    variables["ORCHESTRATOR_STALE_RESULT_TIMEOUT"] = "3"
    first, url = await serve(**variables)
    execution_id = await start_blocking(url)
    async with asyncio.timeout(60):
        await answers.asked.get()
    _, other = await serve(**variables)
    assert "so it ends" in await first.line("stderr", "the event loop has been blocked for ")
    assert await first.end() == 1
    await answers.answer()
    assert await result_of(other, execution_id) == "go on"
