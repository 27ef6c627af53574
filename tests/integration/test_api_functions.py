"""Functions on call, over HTTP: one handler run durably, without a workflow."""

from __future__ import annotations

import asyncio
import io
from typing import Any, Literal

import pytest
from api_client import GATED, JSON, Client, Gate, Make, error_paths, problem, results
from openapi_spec_validator import validate
from pydantic import BaseModel, Field

from workflow_engine.plugins import NodeContext, PermanentError, handler
from workflow_engine.runtime.api import models
from workflow_engine.runtime.core.function import FUNCTION_PREFIX
from workflow_engine.runtime.core.limits import MAX_INPUT_BYTES
from workflow_engine.runtime.process import Runtime


class Line(BaseModel):
    """A part of the configuration."""

    text: str
    count: int = Field(default=1, ge=1)


class Config(BaseModel):
    """What "repeat" takes."""

    lines: list[Line]
    mode: Literal["plain", "shout"] = "plain"


class Output(BaseModel):
    """What "repeat" returns."""

    text: str


@handler("repeat", config=Config, output=Output, timeout_seconds=30, max_running=7)
async def repeat(config: Config, _context: NodeContext) -> dict[str, Any]:
    """Repeat lines."""
    return {"text": "".join(line.text * line.count for line in config.lines)}


@handler("echo")
async def echo(config: dict[str, Any], context: NodeContext) -> Any:
    """Say what came."""
    return [config, context.attempt, context.timeout_seconds]


@handler("nothing")
async def nothing(_config: dict[str, Any], _context: NodeContext) -> None:
    """Return nothing."""


@handler("refuse")
async def refuse(_config: dict[str, Any], _context: NodeContext) -> None:
    """Fail for good."""
    raise PermanentError("not today")


@handler("stumble")
async def stumble(_config: dict[str, Any], context: NodeContext) -> int:
    """Fail twice."""
    if context.attempt < 3:
        raise RuntimeError("again")
    return context.attempt


@pytest.fixture
async def runtime(start_runtime: Make, gate: Gate) -> Runtime:
    """A runtime with functions to call."""
    handlers = [repeat, echo, nothing, refuse, stumble, gate.handler]
    started: Runtime = await start_runtime(handlers=handlers, retry_max_retries=0)
    return started


def url(name: str, wait: float | None = 60, **query: Any) -> str:
    given = {"wait": wait, **query} if wait is not None else query
    return f"/v1/functions/{name}" + ("?" + "&".join(f"{k}={v}" for k, v in given.items()) if given else "")


async def call(client: Client, name: str, config: Any = None, **query: Any) -> Any:
    async with client.post(url(name, **query), json=config) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "application/json"
        return await response.json()


async def get(client: Client, path: str) -> Any:
    async with client.get(path) as response:
        assert response.status == 200
        return await response.json()


# --- calling --------------------------------------------------------------------------------------------


async def test_the_answer_is_the_output_and_where_its_execution_is(client: Client) -> None:
    config = {"lines": [{"text": "ab", "count": 2}]}
    async with client.post(url("repeat"), json=config) as response:
        assert (response.status, await response.json()) == (200, {"text": "abab"})
        location = response.headers["Location"]
    execution = await get(client, location)
    assert (execution["state"], execution["node_states"]) == ("COMPLETED", {"call": "COMPLETED"})
    assert (await get(client, f"{location}/results"))["output_data"] == {"text": "abab"}
    assert await call(client, "nothing") is None


async def test_without_wait_the_answer_says_where_it_runs(client: Client) -> None:
    async with client.post(url("echo", None), json={"a": 1}) as response:
        assert response.status == 202
        called = await response.json()
    assert models.Called.model_validate(called)
    assert response.headers["Location"] == f"/v1/workflows/{called['execution_id']}"
    assert (await results(client, called["execution_id"]))["output_data"][0] == {"a": 1}


async def test_a_configuration_is_taken_literally(client: Client) -> None:
    config = {"a": "{{ input.b }}", "b": "{{", "output": {"{{ x }}": ["{{ input.output }}"]}, "input": None}
    assert (await call(client, "echo", config))[0] == config


async def test_all_calls_of_a_function_are_of_one_definition(client: Client) -> None:
    for n in range(3):
        await call(client, "echo", {"n": n})
    page = await get(client, f"/v1/workflows?name={FUNCTION_PREFIX}echo")
    assert [(item["name"], item["version"]) for item in page["items"]] == [("function:echo", 1)] * 3
    assert len({item["workflow_definition_id"] for item in page["items"]}) == 1
    assert (await call(client, "echo", {}, timeout_seconds=7.5))[2] == 7.5
    page = await get(client, f"/v1/workflows?name={FUNCTION_PREFIX}echo")
    assert [item["version"] for item in page["items"]] == [2, 1, 1, 1], "other options are another version"


async def test_the_names_of_calls_are_the_engine_s_own(client: Client) -> None:
    for document in ({**GATED, "name": "function:gate"}, {**GATED, "name": "function:"}):
        refused = await problem(await client.post("/v1/definitions", json=document), 422, "invalid-definition")
        assert error_paths(refused) == ["name"]


async def test_a_call_that_fails(client: Client) -> None:
    failed = await problem(response := await client.post(url("refuse")), 424, "function-failed")
    assert failed["error"] == {"node_id": "call", "type": "PermanentError", "message": "not today", "attempt": 1}
    assert failed["detail"] == "it failed at attempt 1: PermanentError: not today"
    assert response.headers["Location"] == f"/v1/workflows/{failed['execution_id']}"
    assert (await get(client, "/v1/dead-letters?name=function:refuse"))["items"][0]["id"] == failed["execution_id"]


async def test_it_is_tried_as_often_as_the_caller_says(client: Client) -> None:
    failed = await problem(await client.post(url("stumble")), 424, "function-failed")
    assert failed["error"]["attempt"] == 1
    assert await call(client, "stumble", max_retries=2, initial_delay=0, max_delay=0) == 3


async def test_a_call_that_is_cancelled(client: Client, gate: Gate) -> None:
    waiting = asyncio.ensure_future(client.post(url("gate")))
    await gate.started.wait()
    [item] = (await get(client, "/v1/workflows?name=function:gate"))["items"]
    assert (await client.post(f"/v1/workflows/{item['id']}/cancel")).status == 202
    cancelled = await problem(await waiting, 424, "function-failed")
    assert (cancelled["error"], cancelled["execution_id"]) == (None, item["id"])


async def test_what_does_not_end_in_time_was_called(client: Client, gate: Gate) -> None:
    async with client.post(url("gate", 0.001), json={"n": 1}) as response:
        assert response.status == 202
        called = await response.json()
    gate.open.set()
    assert (await results(client, called["execution_id"]))["output_data"] == {"n": 1}


async def test_the_same_call_under_the_same_key_is_made_once(client: Client) -> None:
    key = {"Idempotency-Key": "k"}
    async with client.post(url("echo"), json={"n": 1}, headers=key) as response:
        first = response.headers["Location"]
    async with client.post(url("echo"), json={"n": 1}, headers=key) as response:
        assert (response.status, response.headers["Location"]) == (200, first)
    other = await client.post(url("echo"), json={"n": 2}, headers=key)
    await problem(other, 409, "idempotency-conflict")
    other = await client.post(url("nothing"), json={"n": 1}, headers=key)
    await problem(other, 409, "idempotency-conflict")


# --- bad input ------------------------------------------------------------------------------------------


async def test_a_function_that_is_not_there(client: Client) -> None:
    for response in (await client.post(url("ecko")), await client.get("/v1/functions/ecko")):
        refused = await problem(response, 404, "function-not-found")
        assert refused["detail"].startswith("no handler is called 'ecko'; did you mean 'echo'?; there are ")
        assert "call_external_service, condition" not in refused["detail"]
        assert "nothing, output" in refused["detail"]


@pytest.mark.parametrize(
    ("config", "paths"),
    [
        ({}, ["lines"]),
        ({"lines": [{"text": "a", "count": 0}, {"text": 1}], "mode": "x"}, ["lines[0].count", "lines[1].text", "mode"]),
        ({"lines": "{{ input.lines }}"}, ["lines"]),
        ([], ["$"]),
        ("text", ["$"]),
    ],
)
async def test_a_configuration_that_does_not_fit(client: Client, config: Any, paths: list[str]) -> None:
    refused = await problem(await client.post(url("repeat"), json=config), 422, "invalid-input")
    assert error_paths(refused) == paths
    assert (await get(client, "/v1/workflows"))["items"] == []


@pytest.mark.parametrize(
    "query",
    [
        *("timeout_seconds=0", "timeout_seconds=x", "timeout_seconds=Infinity", "max_retries=-1", "max_retries=1.5"),
        *("initial_delay=1e99", "max_delay=-1", "version=1", "wait=1&wait=2"),
    ],
)
async def test_a_query_that_is_not_valid(client: Client, query: str) -> None:
    refused = await problem(await client.post(f"/v1/functions/echo?{query}"), 400, "bad-request")
    assert error_paths(refused) == [f"query.{query.partition('=')[0]}"]


async def test_a_configuration_that_is_too_large(client: Client) -> None:
    body = io.BytesIO(b'{"text": "%s"}' % (b"x" * MAX_INPUT_BYTES))
    await problem(await client.post(url("echo"), data=body, headers=JSON), 413, "payload-too-large")


# --- looking --------------------------------------------------------------------------------------------


async def test_a_function_is_shown_with_its_schemas_and_who_runs_it(client: Client, runtime: Runtime) -> None:
    listed = await get(client, "/v1/functions")
    assert models.FunctionList.model_validate(listed)
    item = await get(client, "/v1/functions/repeat")
    assert item in listed["items"]
    assert item["config_schema"] == Config.model_json_schema()
    assert item["output_schema"] == Output.model_json_schema()
    assert item["declared"] == {"lane": "async", "timeout_seconds": 30, "max_running": 7}
    assert item["workers"] == [runtime.replica]
    assert (item["running"], item["queued"]) == (0, 0)


async def test_what_runs_and_what_waits_is_counted(start_runtime: Make, make_api: Make, gate: Gate) -> None:
    runtime = await start_runtime(handlers=[gate.handler, echo], worker_concurrency=1)
    client = await make_api(runtime)
    async with client.post(url("gate", None)):
        await gate.started.wait()
    called = [await client.post(url(name, None)) for name in ("echo", "echo", "gate")]
    by_name: dict[str, Any] = {}
    while not by_name or by_name["gate"]["queued"] < 1 or by_name["echo"]["queued"] < 2:
        by_name = {item["name"]: item for item in (await get(client, "/v1/functions"))["items"]}
    assert (by_name["gate"]["running"], by_name["echo"]["running"]) == (1, 0)
    gate.open.set()
    for response in called:
        await results(client, (await response.json())["execution_id"])


async def test_each_function_is_described(client: Client, make_api: Make, runtime: Runtime) -> None:
    document = await get(client, "/openapi.json")
    validate(document)
    operation = document["paths"]["/v1/functions/repeat"]["post"]
    assert operation["operationId"] == "call_repeat"
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema == {"$ref": "#/components/schemas/function.repeat.config"}
    config = document["components"]["schemas"]["function.repeat.config"]
    assert config["properties"]["lines"]["items"] == {"$ref": "#/components/schemas/function.repeat.config/$defs/Line"}
    assert config["$defs"]["Line"]["properties"].keys() == Line.model_fields.keys()
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/function.repeat.output"}
    assert not [each for each in operation["parameters"] if each["in"] == "path"]
    assert "/v1/functions/nothing" in document["paths"]

    keyed = await make_api(runtime, keys_required=True)
    assert "/v1/functions/repeat" not in (await get(keyed, "/openapi.json"))["paths"], "who has no key sees none"
