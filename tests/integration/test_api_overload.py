"""Too many requests, slow clients, broken HTTP, and whether the process is alive and ready."""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from api_client import (
    GATED,
    HELLO,
    JSON,
    NO_SUCH_ID,
    SUBMIT,
    Client,
    Gate,
    Make,
    exchange,
    head,
    problem,
    submit,
    trigger,
)

from workflow_engine.runtime.api.server import ApiRunner
from workflow_engine.runtime.cli.api import health_sources
from workflow_engine.runtime.ports import StoreHealth
from workflow_engine.runtime.process import Runtime


async def test_more_requests_than_are_taken_are_refused_at_once(make_api: Make, runtime: Runtime, gate: Gate) -> None:
    client = await make_api(runtime, max_concurrent_requests=2)
    execution_id = await submit(client, GATED)
    await trigger(client, execution_id)
    await gate.started.wait()
    path = f"/v1/workflows/{execution_id}/results?wait=300"
    waiting = [asyncio.create_task(client.get(path)) for _ in range(2)]
    while len(runtime.transport._followers.get(execution_id, ())) < 2:  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    for refused in (await client.get(f"/v1/workflows/{execution_id}"), await client.post(SUBMIT, json=HELLO)):
        await problem(refused, 503, "overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
    for path in ("/livez", "/readyz", "/v1/health"):
        assert (await client.get(path)).status == 200

    gate.open.set()
    assert [(await answer).status for answer in waiting] == [200, 200]
    await submit(client)


async def test_a_request_that_fails_or_is_given_up_makes_room(make_api: Make, runtime: Runtime, gate: Gate) -> None:
    client = await make_api(runtime, max_concurrent_requests=1)
    for _ in range(3):
        await problem(await client.get(f"/v1/workflows/{NO_SUCH_ID}"), 404, "execution-not-found")
    await submit(client)


async def test_a_client_that_stops_waiting_makes_room(make_api: Make, runtime: Runtime, gate: Gate) -> None:
    client = await make_api(runtime, max_concurrent_requests=1)
    execution_id = await submit(client, GATED)
    waits = [
        f"GET /v1/workflows/{execution_id}/results?wait=300 HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        head("/v1/definitions/gated/executions?wait=300", "Content-Length: 2") + b"{}",
    ]
    followers = runtime.transport._followers  # type: ignore[attr-defined]
    for wait in waits:
        _, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(wait)
        async with asyncio.timeout(30):
            while not followers:
                await asyncio.sleep(0)
            await problem(await client.get("/v1/workflows"), 503, "overloaded")
            writer.transport.abort()
            while followers:
                await asyncio.sleep(0)
        assert (await client.get("/v1/workflows")).status == 200
    gate.open.set()


async def test_a_body_that_does_not_come_is_given_up(make_api: Make, runtime: Runtime) -> None:
    client = await make_api(runtime, request_timeout_seconds=0.05)
    for start in (head(SUBMIT, "Content-Length: 100"), head(SUBMIT, "Transfer-Encoding: chunked") + b"1\r\n{\r\n"):
        status, body = await exchange(client, start)
        assert status == 408
        assert json.loads(body)["type"] == "urn:workflow-engine:problem:request-timeout"
    await submit(client)


@pytest.mark.parametrize("part", [b"POST", b"GET /livez HTTP/1.1\r\n", b"GET /livez HTTP/1.1\r\nHost: a\r\nX: "])
async def test_a_head_that_does_not_end_is_given_up(make_api: Make, runtime: Runtime, part: bytes) -> None:
    client = await make_api(runtime, request_timeout_seconds=0.05)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(part)
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 408
    writer.close()


async def test_a_second_head_that_does_not_end_is_given_up_too(make_api: Make, runtime: Runtime) -> None:
    client = await make_api(runtime, request_timeout_seconds=0.05)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    await reader.readuntil(b"}\n")
    writer.write(b"GET /li")
    assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_head_in_pieces_is_taken(make_api: Make, runtime: Runtime) -> None:
    client = await make_api(runtime, request_timeout_seconds=60)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    for byte in b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G\x00T / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(1000)) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
    ],
    ids=lambda text: text[:24].decode("latin-1").encode("unicode_escape").decode(),
)
async def test_what_is_no_http_gets_a_problem_and_no_trace(
    client: Client, caplog: pytest.LogCaptureFixture, text: bytes
) -> None:
    with caplog.at_level(logging.INFO):
        status, body = await exchange(client, text)
        assert 400 <= status < 500
        document = json.loads(body)
        assert (document["status"], document["type"]) == (status, "urn:workflow-engine:problem:bad-request")
        assert len(document["detail"]) < 300
        assert (await client.get("/livez")).status == 200
    assert [record for record in caplog.records if record.levelno > logging.INFO or record.exc_info] == []


@pytest.mark.parametrize("path", [SUBMIT, "/nowhere"])
async def test_an_expectation_that_cannot_be_met_is_a_problem_document(client: Client, path: str) -> None:
    response = await client.post(path, json=HELLO, headers={"Expect": "miracles"})
    assert "miracles" in (await problem(response, 417, "expectation-failed"))["detail"]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_path_that_is_no_utf8_or_no_url_is_not_there(client: Client) -> None:
    for path in ("/%ff", "/%", "/%zz", "//", "/../..", "/v1/../etc", "/v1/workflows/%2e%2e"):
        status, body = await exchange(client, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert (status, json.loads(body)["status"]) == (404, 404)


@pytest.mark.parametrize("method", ["PROPFIND", "TRACE", "get"])
async def test_a_method_that_nothing_knows(client: Client, method: str) -> None:
    status, body = await exchange(client, f"{method} {SUBMIT} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert 400 <= status < 500
    assert json.loads(body)["status"] == status


async def test_clients_that_go_leave_no_trace_in_the_log(
    client: Client, runtime: Runtime, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    execution_id = await submit(client, GATED)
    await trigger(client, execution_id)
    await gate.started.wait()
    parts = [
        head(SUBMIT, "Content-Length: 100") + b"{",
        f"GET /v1/workflows/{execution_id}/results?wait=300 HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
        head("/v1/definitions/gated/executions/bulk", "Transfer-Encoding: chunked").replace(b"/json", b"/x-ndjson"),
    ]
    for part in parts:
        _, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(part)
        await writer.drain()
        writer.transport.abort()
    assert (await client.get("/livez")).status == 200
    gate.open.set()
    await submit(client)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_alive_and_ready(client: Client, runtime: Runtime) -> None:
    async with client.get("/livez") as response:
        assert (response.status, await response.json()) == (200, {"status": "alive"})
    async with client.get("/readyz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ready", "reason": None})
    runtime.engine.stop_accepting()
    async with client.get("/readyz") as response:
        assert (response.status, (await response.json())["reason"]) == (503, "shutting down")
    assert (await client.get("/livez")).status == 200


async def test_not_ready_when_a_part_does_not_work(
    make_api: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ill() -> StoreHealth:
        return StoreHealth(False, "secret path is full")

    sources = replace(health_sources(runtime), owner_works=lambda: False)
    async with (await make_api(runtime, health=sources)).get("/readyz") as response:
        assert (response.status, (await response.json())["reason"]) == (503, "the orchestrator does not work")
    monkeypatch.setattr(runtime.store, "health", ill)
    async with (await make_api(runtime)).get("/readyz") as response:
        text = await response.text()
    assert response.status == 503
    assert "secret" not in text


async def test_a_fault_names_the_exception_only_where_that_is_wanted(
    make_api: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_arguments: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(runtime.store, "create_execution", fail)
    for shown in (True, False):
        client = await make_api(runtime, show_faults=shown)
        response = await client.post(SUBMIT, data=json.dumps(HELLO), headers=JSON)
        detail = (await problem(response, 500, "internal-error"))["detail"]
        assert ("RuntimeError: secret detail" in detail) is shown
    assert "secret detail" in caplog.text


async def test_the_runner_serves_as_serve_does(make_api: Make, runtime: Runtime) -> None:
    client = await make_api(runtime)
    assert isinstance(client.server.runner, ApiRunner)
