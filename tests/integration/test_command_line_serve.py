"""`serve` as a process of its own: signals, shutdown, addresses, databases that cannot be used."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from commands import Meeting

from workflow_engine import __version__
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.store.sqlite import SqliteStore

Make = Callable[..., Awaitable[Any]]


async def trigger(http: aiohttp.ClientSession, address: str, *nodes: dict[str, Any]) -> str:
    document = {"name": "a test", "dag": {"nodes": nodes}}
    async with http.post(f"{address}/v1/workflow", json=document) as response:
        execution_id = str((await response.json())["execution_id"])
    async with http.post(f"{address}/v1/workflow/trigger/{execution_id}") as response:
        assert response.status == 200
    return execution_id


async def test_serve_answers_and_ends_at_a_signal(serve: Make, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    process, address = await serve()
    async with http.get(f"{address}/v1/health") as response:
        assert (response.status, (await response.json())["version"]) == (200, __version__)
    execution_id = await trigger(http, address, {"id": "a", "handler": "input"})
    async with http.get(f"{address}/v1/workflows/{execution_id}/results?wait=60") as response:
        assert (await response.json())["state"] == "COMPLETED"
    process.signal(signal.SIGTERM)
    assert await process.end() == 0
    assert "Traceback" not in process.errors
    assert (tmp_path / "workflow-engine.db").exists()
    assert not (tmp_path / "workflow-engine.db-wal").exists(), "closed properly"


async def test_serve_finishes_what_runs_before_it_ends(
    serve: Make,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    install_plugin: Callable[..., None],
    meeting: Meeting,
) -> None:
    install_plugin()
    process, address = await serve()
    nodes = [
        {"id": "meet", "handler": "meet", "config": {"port": meeting.port}},
        {"id": "next", "handler": "meet", "config": {"port": meeting.port}, "dependencies": ["meet"]},
    ]
    execution_id = await trigger(http, address, *nodes)
    attempt = await meeting.begun()
    waiting_reader, waiting_writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    waiting_writer.write(f"GET /v1/workflows/{execution_id}/results?wait=300 HTTP/1.0\r\n\r\n".encode())
    await waiting_writer.drain()
    # An answer to what was sent later says that the server has read this one.
    async with http.get(f"{address}/v1/workflows/{execution_id}") as response:
        assert (await response.json())["node_states"] == {"meet": "RUNNING", "next": "PENDING"}
    process.signal(signal.SIGTERM)
    await process.line("stderr", "waiting for 1 running attempts, at most 30 s")
    answer = json.loads((await waiting_reader.read()).partition(b"\r\n\r\n")[2])
    assert (answer["state"], answer["output_data"]) == ("RUNNING", None)
    waiting_writer.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(f"{address}/v1/health")
    attempt.write(b"done\n")
    assert await process.end() == 0

    store = SqliteStore(tmp_path / "workflow-engine.db", SystemClock())
    await store.open()
    [loaded] = await store.load([execution_id])
    await store.close()
    recorded = [(row.node_id, row.attempt, row.state, row.output) for row in loaded.attempts]
    assert recorded == [("meet", 1, "COMPLETED", b'"done"')]
    assert loaded.record.state == "RUNNING"

    process, address = await serve()
    (await meeting.begun()).write(b"done too\n")
    async with http.get(f"{address}/v1/workflows/{execution_id}/results?wait=60") as response:
        assert (await response.json())["output_data"] == "done too"
    process.signal(signal.SIGINT)
    assert await process.end() == 0


async def test_serve_hands_back_what_does_not_finish_in_time(
    serve: Make,
    http: aiohttp.ClientSession,
    install_plugin: Callable[..., None],
    meeting: Meeting,
) -> None:
    install_plugin()
    process, address = await serve(WORKER_GRACEFUL_SHUTDOWN_TIMEOUT="0.05")
    execution_id = await trigger(
        http,
        address,
        {"id": "meet", "handler": "meet", "config": {"port": meeting.port}},
        {"id": "s", "handler": "swallow"},
    )
    await meeting.begun()
    process.signal(signal.SIGTERM)
    assert await process.end() == 0, "also with a handler that swallows cancellation"
    assert "Traceback" not in process.errors
    _, address = await serve()
    async with http.get(f"{address}/v1/workflows/{execution_id}") as response:
        assert (await response.json())["state"] == "RUNNING"
    await meeting.begun()


async def test_a_second_signal_ends_it_at_once(
    serve: Make, http: aiohttp.ClientSession, install_plugin: Callable[..., None], meeting: Meeting
) -> None:
    install_plugin()
    process, address = await serve()
    await trigger(http, address, {"id": "meet", "handler": "meet", "config": {"port": meeting.port}})
    await meeting.begun()
    process.signal(signal.SIGTERM)
    await process.line("stderr", "waiting for 1 running attempts")
    process.signal(signal.SIGTERM)
    assert await process.end() == 1


async def test_serve_on_a_port_that_is_taken(run: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output, errors = await run("serve", "--port", port)
    assert (code, output) == (1, "")
    last = errors.splitlines()[-1]
    assert f"cannot listen on 127.0.0.1:{port}" in last
    assert "address already in use" in last
    assert "set API_HOST and API_PORT" in last


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 100, "256.256.256.256"])
async def test_serve_on_an_address_that_is_none(run: Make, host: str) -> None:
    code, output, errors = await run("serve", "--port", 0, "--host", host)
    assert (code, output) == (1, "")
    assert f"cannot listen on {host}:0" in errors.splitlines()[-1]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
async def test_serve_on_an_ipv6_address(serve: Make, http: aiohttp.ClientSession) -> None:
    _, address = await serve("--host", "::1")
    assert address.startswith("http://[::1]:")
    async with http.get(f"{address}/v1/health") as response:
        assert response.status == 200


async def test_a_second_serve_on_the_same_database(serve: Make, run: Make, http: aiohttp.ClientSession) -> None:
    first, address = await serve()
    code, output, errors = await run("serve", "--port", 0)
    assert (code, output) == (1, "")
    last = errors.splitlines()[-1]
    assert "another process (pid " in last
    assert "SQLITE_PATH" in last
    async with http.get(f"{address}/v1/health") as response:
        assert response.status == 200, "the first one goes on"
    first.signal(signal.SIGTERM)
    assert await first.end() == 0


async def test_serve_on_a_file_that_is_no_database(run: Make, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but long enough to be looked at" * 100)
    code, output, errors = await run("serve", "--port", 0, SQLITE_PATH="text.db")
    assert (code, output) == (1, "")
    assert "text.db: this file is not a sound SQLite database" in errors.splitlines()[-1]


async def test_serve_goes_on_when_its_partition_was_taken_from_it(
    serve: Make, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """What it had decided and not committed is decided anew from the rows."""
    process, address = await serve()
    with closing(sqlite3.connect(tmp_path / "workflow-engine.db")) as connection, connection:
        connection.execute("UPDATE partitions SET version = version + 1")
    execution_id = await trigger(http, address, {"id": "a", "handler": "input"})
    async with http.get(f"{address}/v1/workflows/{execution_id}/results?wait=60") as response:
        assert (await response.json())["state"] == "COMPLETED"
    process.signal(signal.SIGTERM)
    assert await process.end() == 0
    assert "is no longer at version" in process.errors


async def test_json_logs(serve: Make) -> None:
    process, _ = await serve(LOG_FORMAT="json", DEMO_MODE="true")
    process.signal(signal.SIGTERM)
    assert await process.end() == 0
    lines = [json.loads(line) for line in process.errors.splitlines()]
    assert [line["level"] for line in lines] == ["WARNING", "INFO"]
    assert lines[0]["message"].startswith("demo mode")
    assert lines[1]["message"] == "stopped"
