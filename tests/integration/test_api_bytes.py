"""Bodies by size and encoding, HTTP that is none, and clients that are slow or gone."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging

import pytest
from api_client import (
    HELLO,
    JSON,
    NO_SUCH_ID,
    SUBMIT,
    Client,
    exchange,
    head,
    problem,
    results,
    submit,
)

from workflow_engine.runtime.core.limits import MAX_DEFINITION_BYTES, MAX_INPUT_BYTES

LIMITS = [
    (SUBMIT, MAX_DEFINITION_BYTES),
    (f"/v1/workflow/trigger/{NO_SUCH_ID}", MAX_INPUT_BYTES + 1024),
    (f"/v1/workflows/{NO_SUCH_ID}/cancel", 1024),
]


@pytest.mark.parametrize(("path", "limit"), LIMITS)
async def test_too_large_by_its_length_is_refused_before_it_is_sent(client: Client, path: str, limit: int) -> None:
    for length in (limit + 1, 10**12, 10**18):
        status, body = await exchange(client, head(path, f"Content-Length: {length}"))
        assert status == 413
        assert json.loads(body)["type"] == "urn:workflow-engine:problem:payload-too-large"
        assert str(length) in json.loads(body)["detail"]


@pytest.mark.parametrize(("path", "limit"), LIMITS)
async def test_too_large_in_chunks_is_refused_before_it_ends(client: Client, path: str, limit: int) -> None:
    chunk = b"%x\r\n" % (limit + 1) + b" " * (limit + 1) + b"\r\n"
    status, body = await exchange(client, head(path, "Transfer-Encoding: chunked"), chunk)
    assert status == 413
    assert str(limit) in json.loads(body)["detail"]


@pytest.mark.parametrize(("path", "limit"), LIMITS)
async def test_what_unpacks_to_too_much_is_refused(client: Client, path: str, limit: int) -> None:
    packed = gzip.compress(b" " * 50_000_000, 9)
    headers = (f"Content-Length: {len(packed)}", "Content-Encoding: gzip")
    status, body = await exchange(client, head(path, *headers), packed)
    assert status == 413
    assert str(limit) in json.loads(body)["detail"]


async def test_a_packed_body_of_reasonable_size_is_taken(client: Client) -> None:
    headers = {**JSON, "Content-Encoding": "gzip"}
    async with client.post(SUBMIT, data=gzip.compress(json.dumps(HELLO).encode()), headers=headers) as response:
        assert response.status == 202


async def test_a_body_at_the_limit_is_read(client: Client) -> None:
    text = json.dumps(HELLO).encode().ljust(MAX_DEFINITION_BYTES)
    async with client.post(SUBMIT, data=io.BytesIO(text), headers=JSON) as response:
        assert response.status == 202


async def test_input_parameters_that_are_too_large(client: Client) -> None:
    execution_id = await submit(client)
    path = f"/v1/workflow/trigger/{execution_id}"
    most = MAX_INPUT_BYTES - len('{"text":""}')

    def body(length: int) -> io.BytesIO:
        return io.BytesIO(json.dumps({"input_params": {"text": "x" * length}}).encode())

    response = await client.post(path, data=body(most + 1), headers=JSON)
    assert "input_params" in (await problem(response, 413, "payload-too-large"))["detail"]
    async with client.post(path, data=body(most), headers=JSON) as response:
        assert response.status == 200
    assert (await results(client, execution_id))["output_data"] == {"text": "x" * most}


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (["Content-Length: 8", "Content-Encoding: gzip"], b"not gzip"),
        (["Content-Length: 8", "Content-Encoding: deflate"], b"\xff" * 8),
        (["Content-Length: 2", "Content-Encoding: br"], b"{}"),
        (["Content-Length: 2", "Content-Length: 3"], b"{} "),
        (["Content-Length: 2", "Transfer-Encoding: chunked"], b"2\r\n{}\r\n0\r\n\r\n"),
        (["Content-Length: -2"], b"{}"),
        (["Content-Length: two"], b"{}"),
        (["Transfer-Encoding: chunked"], b"ZZ\r\n{}\r\n"),
        (["Transfer-Encoding: chunked"], b"2\r\n{}\r\nQ\r\n"),
        (["Transfer-Encoding: chunked"], b"-2\r\n{}\r\n"),
        (["Transfer-Encoding: gzip"], b"{}"),
        (["X: " + "x" * 100_000], b""),
        (["No colon"], b""),
        (["X: a\x00b"], b""),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[-1][:30],
)
async def test_a_request_that_is_no_sound_http_is_the_clients_fault(
    client: Client, headers: list[str], body: bytes
) -> None:
    status, _ = await exchange(client, head(SUBMIT, *headers), body)
    assert 400 <= status < 500
    assert (await client.get("/v1/health")).status == 200


async def test_a_body_that_cannot_be_unpacked_is_a_problem_document(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = await client.post(SUBMIT, data=b"not gzip", headers={**JSON, "Content-Encoding": "gzip"})
    assert "Content-Encoding" in (await problem(response, 400, "bad-request"))["detail"]
    # The end of the connection says that the server has seen all of the body, whoever read it.
    for path in (SUBMIT, "/nowhere"):
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(head(path, "Content-Length: 8", "Content-Encoding: gzip") + b"not gzip")
        assert (await reader.read()).startswith(b"HTTP/1.1 4")
        writer.close()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_clients_that_send_slowly_or_leave_disturb_nobody(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    writers = []
    for part in (b"POST /v1", head(SUBMIT, "Content-Length: 100"), head(SUBMIT, "Content-Length: 100") + b"{"):
        for _ in range(20):
            _, writer = await asyncio.open_connection(client.host, client.port)
            writer.write(part)
            await writer.drain()
            writers.append(writer)
    assert (await client.get("/v1/health")).status == 200
    await submit(client)
    for writer in writers:
        writer.close()
        await writer.wait_closed()
    await submit(client)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
