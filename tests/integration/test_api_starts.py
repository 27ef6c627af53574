"""One-call start, bulk start and idempotency keys, over HTTP."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from api_client import GATED, HELLO, JSON, SUBMIT, Client, Gate, Make, error_paths, problem, results, submit

from workflow_engine.runtime.api import bulk as bulk_start
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.core.limits import MAX_INPUT_BYTES
from workflow_engine.runtime.process import Runtime

START = "/v1/definitions/hello/executions"
BULK = f"{START}/bulk"
LINES = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
async def defined(client: Client) -> Client:
    """A client of an API that has the definition "hello"."""
    assert (await client.post("/v1/definitions", json=HELLO)).status == 201
    return client


async def bulk(client: Client, body: Any, **headers: str) -> list[dict[str, Any]]:
    async with client.post(BULK, data=body, headers={**LINES, **headers}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/x-ndjson"
        return [json.loads(line) for line in (await response.text()).splitlines()]


async def execution_count(client: Client) -> int:
    async with client.get("/v1/workflows", params={"limit": 200}) as response:
        return len((await response.json())["items"])


# --- one call -----------------------------------------------------------------------------------------------


async def test_starting_in_one_call(defined: Client) -> None:
    async with defined.post(START, json={"input_params": {"n": 1}}) as response:
        assert response.status == 202
        started = await response.json()
    assert set(started) == {"workflow_definition_id", "execution_id", "message"}
    assert (await results(defined, started["execution_id"]))["output_data"] == {"n": 1}


async def test_starting_and_waiting_for_the_end(defined: Client) -> None:
    async with defined.post(f"{START}?wait=60", json={"input_params": {"n": 2}}) as response:
        assert response.status == 200
        ended = await response.json()
    assert (ended["state"], ended["output_data"]) == ("COMPLETED", {"n": 2})
    assert ended == await results(defined, ended["id"])


async def test_what_does_not_end_in_time_was_started(client: Client, gate: Gate) -> None:
    await client.post("/v1/definitions", json=GATED)
    async with client.post("/v1/definitions/gated/executions?wait=0.001") as response:
        assert response.status == 202
        started = await response.json()
    gate.open.set()
    assert (await results(client, started["execution_id"]))["state"] == "COMPLETED"


async def test_the_version_that_is_asked_for_is_started(defined: Client) -> None:
    second = {**HELLO, "dag": {"nodes": [{"id": "only", "handler": "output"}]}}
    await defined.post("/v1/definitions", json=second)
    for query, output in (("?wait=60&version=1", {"n": 1}), ("?wait=60", {})):
        async with defined.post(f"{START}{query}", json={"input_params": {"n": 1}}) as response:
            assert (await response.json())["output_data"] == output


@pytest.mark.parametrize("path", ["/v1/definitions/nobody/executions", f"{START}?version=2"])
async def test_what_is_not_there_is_not_started(defined: Client, path: str) -> None:
    await problem(await defined.post(path), 404, "definition-not-found")
    bulk_path = path.replace("executions", "executions/bulk")
    await problem(await defined.post(bulk_path, data=b"{}\n", headers=LINES), 404, "definition-not-found")
    assert await execution_count(defined) == 0


# --- bulk ---------------------------------------------------------------------------------------------------


async def test_one_answer_for_each_line_in_order(defined: Client) -> None:
    count = 600
    body = b"".join(b'{"input_params": {"n": %d}}\n' % n for n in range(count))
    answers = await bulk(defined, body)
    assert [answer["line"] for answer in answers] == [*range(1, count + 1)]
    for n in (0, 255, 256, count - 1):
        assert (await results(defined, answers[n]["execution_id"]))["output_data"] == {"n": n}


async def test_a_bad_line_does_not_stop_the_others(defined: Client) -> None:
    lines = [
        b'{"input_params": {"n": 1}}',
        b"{",
        b"",
        b"[]",
        b'{"input_parms": {}}',
        b'{"input_params": {"n": NaN}}',
        b'{"a": 1, "a": 2}',
        b"\xff",
        b'"' + b"x" * (MAX_INPUT_BYTES + 2000) + b'"',
        b"{}\r",
        b"{}",
    ]
    answers = await bulk(defined, io.BytesIO(b"\n".join(lines)))
    assert [answer["line"] for answer in answers] == [*range(1, len(lines) + 1)]
    good = [answer["line"] for answer in answers if "execution_id" in answer]
    assert good == [1, 10, 11]
    statuses = [answer["problem"]["status"] for answer in answers if "problem" in answer]
    assert statuses == [400, 400, 400, 400, 400, 400, 400, 413]
    assert error_paths(answers[4]["problem"]) == ["input_parms"]
    assert await execution_count(defined) == len(good)


async def test_nothing_is_answered_with_nothing(defined: Client) -> None:
    assert await bulk(defined, b"") == []


async def test_a_line_that_does_not_fit_the_input_schema(client: Client) -> None:
    schema = {"type": "object", "required": ["n"]}
    await client.post("/v1/definitions", json={**HELLO, "input_schema": schema})
    answers = await bulk(client, b'{"input_params": {}}\n{"input_params": {"n": 1}}\n')
    assert (answers[0]["problem"]["status"], answers[1].get("problem")) == (422, None)


async def test_answers_come_while_lines_are_still_sent(defined: Client) -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while line := await lines.get():
            yield line

    lines.put_nowait(b"{}\n")
    async with defined.post(BULK, data=body(), headers=LINES) as response:
        for number in range(1, 4):
            answer = json.loads(await response.content.readline())
            assert (answer["line"], set(answer)) == (number, {"line", "execution_id"})
            lines.put_nowait(b"{}\n" if number < 3 else b"")
        assert await response.content.read() == b""


async def test_all_lines_start_the_version_of_the_first(defined: Client) -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while line := await lines.get():
            yield line

    lines.put_nowait(b"{}\n")
    async with defined.post(BULK, data=body(), headers=LINES) as response:
        await response.content.readline()
        await defined.post("/v1/definitions", json={**HELLO, "description": "newer"})
        lines.put_nowait(b"{}\n")
        lines.put_nowait(b"")
        await response.content.read()
    async with defined.get("/v1/workflows") as response:
        assert [item["version"] for item in (await response.json())["items"]] == [1, 1]


async def test_a_large_line_is_read_in_a_thread(defined: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    read_by: list[tuple[bool, bool]] = []

    def noted(line: bytes) -> Any:
        read_by.append((len(line) > 500_000, threading.current_thread() is threading.main_thread()))
        return decode(line)

    monkeypatch.setattr(bulk_start, "decode", noted)
    large = json.dumps({"input_params": {"list": [{}] * 150_000}}).encode()
    answers = await bulk(defined, io.BytesIO(b"{}\n" + large + b"\n{}\n"))
    assert [(answer["line"], "execution_id" in answer) for answer in answers] == [(1, True), (2, True), (3, True)]
    assert sorted(read_by) == [(False, True), (False, True), (True, False)]


async def test_a_bulk_of_another_type(defined: Client) -> None:
    await problem(await defined.post(BULK, data=b"{}", headers=JSON), 415, "unsupported-media-type")


async def test_a_bulk_while_the_engine_stops(defined: Client, runtime: Runtime) -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def body() -> AsyncIterator[bytes]:
        while line := await lines.get():
            yield line

    lines.put_nowait(b"{}\n")
    async with defined.post(BULK, data=body(), headers=LINES) as response:
        await response.content.readline()
        runtime.engine.stop_accepting()
        lines.put_nowait(b"{}\n")
        lines.put_nowait(b"")
        assert json.loads(await response.content.readline())["problem"]["status"] == 503
    await problem(await defined.post(BULK, data=b"{}\n", headers=LINES), 503, "shutting-down")


async def test_a_bulk_that_comes_to_a_halt_is_ended(make_api: Make, runtime: Runtime) -> None:
    client = await make_api(runtime, request_timeout_seconds=0.05)
    await client.post("/v1/definitions", json=HELLO)
    forever: asyncio.Event = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"{}\n{"
        await forever.wait()

    async with client.post(BULK, data=body(), headers=LINES) as response:
        assert "execution_id" in json.loads(await response.content.readline())
        last = json.loads(await response.content.readline())
        assert (last["line"], last["problem"]["status"]) == (2, 408)
        assert await response.content.read() == b""


# --- idempotency keys ---------------------------------------------------------------------------------------


async def test_the_same_request_under_a_key_is_done_once(defined: Client) -> None:
    for path, body in ((SUBMIT, HELLO), (START, {"input_params": {"n": 1}}), (START, None)):
        before = await execution_count(defined)
        answers = [await defined.post(path, json=body, headers={"Idempotency-Key": f"key {body}"}) for _ in range(3)]
        texts = {(answer.status, await answer.text()) for answer in answers}
        assert len(texts) == 1
        assert next(iter(texts))[0] == 202
        assert await execution_count(defined) == before + 1


async def test_a_trigger_under_a_key_is_done_once(client: Client) -> None:
    execution_id = await submit(client)
    path, key = f"/v1/workflow/trigger/{execution_id}", {"Idempotency-Key": "a"}
    first = await client.post(path, json={"input_params": {"n": 1}}, headers=key)
    await results(client, execution_id)
    again = await client.post(path, json={"input_params": {"n": 1}}, headers=key)
    assert (await again.text(), again.status) == (await first.text(), 200)
    assert await execution_count(client) == 1


async def test_another_request_under_the_same_key_is_a_conflict(defined: Client) -> None:
    key = {"Idempotency-Key": "a"}
    assert (await defined.post(START, json={"input_params": {"n": 1}}, headers=key)).status == 202
    for path, body in (
        (START, {"input_params": {"n": 2}}),
        (f"{START}?version=1", {"input_params": {"n": 1}}),
    ):
        await problem(await defined.post(path, json=body, headers=key), 409, "idempotency-conflict")
    assert await execution_count(defined) == 1


async def test_operations_and_callers_do_not_share_keys(make_api: Make, runtime: Runtime, defined: Client) -> None:
    key = {"Idempotency-Key": "a"}
    assert (await defined.post(START, headers=key)).status == 202
    assert (await defined.post(SUBMIT, json=HELLO, headers=key)).status == 202
    async with defined.post("/v1/keys", json={"name": "b", "scope": "run"}) as response:
        other = {"X-API-Key": (await response.json())["key"]}
    keyed = await make_api(runtime, keys_required=True)
    assert (await keyed.post(START, headers={**key, **other})).status == 202
    assert await execution_count(defined) == 3


async def test_a_bulk_under_a_key_is_done_once_line_by_line(defined: Client) -> None:
    body = b'{"input_params": {"n": 1}}\n{\n{"input_params": {"n": 3}}\n'
    first = await bulk(defined, body, **{"Idempotency-Key": "a"})
    again = await bulk(defined, body, **{"Idempotency-Key": "a"})
    assert again == first
    assert await execution_count(defined) == 2
    other = await bulk(defined, b'{"input_params": {"n": 1}}\n{}\n{}\n', **{"Idempotency-Key": "a"})
    assert other[0] == first[0]
    assert [answer.get("problem", {}).get("status") for answer in other] == [None, None, 409]


async def test_of_many_requests_at_once_under_one_key_one_is_done(defined: Client) -> None:
    posts = (defined.post(START, json={}, headers={"Idempotency-Key": "a"}) for _ in range(20))
    answers = {await answer.text() for answer in await asyncio.gather(*posts)}
    assert len(answers) == 1
    assert await execution_count(defined) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ä"])
async def test_a_key_that_is_not_allowed(defined: Client, key: str) -> None:
    response = await defined.post(START, headers={"Idempotency-Key": key})
    assert error_paths(await problem(response, 400, "bad-request")) == ["header.Idempotency-Key"]
    response = await defined.post(BULK, data=b"{}", headers={**LINES, "Idempotency-Key": key})
    await problem(response, 400, "bad-request")
    assert await execution_count(defined) == 0
