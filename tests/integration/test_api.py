"""The HTTP API over a whole runtime: the specification's endpoints, and an answer to everything that is wrong."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.cli.api import health_sources
from workflow_engine.runtime.core.limits import MAX_DEFINITION_BYTES, MAX_INPUT_BYTES
from workflow_engine.runtime.errors import StoreOutcomeUnknown, StoreUnavailable
from workflow_engine.runtime.ports import StoreHealth
from workflow_engine.runtime.process import Runtime

Make = Callable[..., Awaitable[Any]]
Client = TestClient[Any, Any]

EXAMPLES = Path(__file__).parents[2] / "examples"
JSON = {"Content-Type": "application/json"}
SUBMIT = "/v1/workflow"
NO_SUCH_ID = "00000000-0000-7000-8000-000000000000"

HELLO: dict[str, Any] = {"name": "hello", "dag": {"nodes": [{"id": "input", "handler": "input"}]}}


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


@pytest.fixture
async def gate() -> Gate:
    """The gate of this test's runtime."""
    return Gate()


@pytest.fixture
async def runtime(start_runtime: Make, gate: Gate) -> Runtime:
    """A runtime in demo mode whose mocks take no time."""
    started: Runtime = await start_runtime(handlers=[gate.handler], demo_mode=True)
    return started


@pytest.fixture
async def client(make_api: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client of its API."""

    async def no_sleep(_seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr("workflow_engine.handlers.demo.sleep", no_sleep)
    made: Client = await make_api(runtime)
    return made


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
    assert set(body) <= {"type", "title", "status", "detail", "errors"}
    for error in body.get("errors", ()):
        assert set(error) == {"path", "message"}
        assert error["path"]
        assert error["message"]
    assert ("Retry-After" in response.headers) == (status == 503)
    return dict(body)


def error_paths(body: dict[str, Any]) -> list[str]:
    return [error["path"] for error in body.get("errors", ())]


# --- the specification's endpoints ----------------------------------------------------------------------


async def test_submit_trigger_status_results(client: Client) -> None:
    submitted = await client.post(SUBMIT, json=HELLO)
    assert submitted.status == 202
    assert submitted.headers["Content-Type"] == "application/json"
    answer = await submitted.json()
    assert set(answer) == {"workflow_definition_id", "execution_id", "message"}
    assert answer["message"] == "Workflow submitted successfully"
    execution_id = answer["execution_id"]

    pending = await status(client, execution_id)
    assert (pending["id"], pending["state"], pending["started_at"]) == (execution_id, "PENDING", None)
    assert pending["node_states"] == {"input": "PENDING"}
    nothing = {"id": execution_id, "output_data": None, "completed_at": None, "error": None}
    assert await results(client, execution_id, wait=0) == {**nothing, "state": "PENDING"}

    triggered = await client.post(f"/v1/workflow/trigger/{execution_id}", json={"input_params": {"user_id": 123}})
    assert triggered.status == 200
    assert await triggered.json() == {"execution_id": execution_id, "message": "Workflow started successfully"}

    ended = await results(client, execution_id)
    assert set(ended) == {"id", "state", "output_data", "completed_at", "error"}
    assert (ended["state"], ended["output_data"], ended["error"]) == ("COMPLETED", {"user_id": 123}, None)
    completed = await status(client, execution_id)
    assert completed["node_states"] == {"input": "COMPLETED"}
    assert completed["completed_at"] == ended["completed_at"]
    began, end = (datetime.fromisoformat(completed[name]) for name in ("started_at", "completed_at"))
    assert began <= end
    assert completed["started_at"].endswith("Z")


async def test_trigger_without_a_body(client: Client) -> None:
    execution_id = await submit(client)
    async with client.post(f"/v1/workflow/trigger/{execution_id}") as response:
        assert response.status == 200
    assert (await results(client, execution_id))["output_data"] == {}


async def test_trigger_with_an_empty_object(client: Client) -> None:
    execution_id = await submit(client)
    await trigger(client, execution_id)
    assert (await results(client, execution_id))["output_data"] == {}


async def test_the_linear_example(client: Client) -> None:
    execution_id = await submit(client, json.loads((EXAMPLES / "linear.json").read_text()))
    await trigger(client, execution_id, input_params={"a": 1})
    ended = await results(client, execution_id)
    assert ended["state"] == "COMPLETED"
    assert list(ended["output_data"]) == ["process"]
    process = ended["output_data"]["process"]
    assert (process["status_code"], process["url"]) == (200, "http://api.example.com/process")
    assert process["mocked"] is True


async def test_the_fan_out_fan_in_example(client: Client) -> None:
    execution_id = await submit(client, json.loads((EXAMPLES / "fan_out_fan_in.json").read_text()))
    await trigger(client, execution_id)
    ended = await results(client, execution_id)
    assert ended["state"] == "COMPLETED"
    urls = {node: output["url"] for node, output in ended["output_data"].items()}
    assert urls == {"task_b": "http://api/b", "task_c": "http://api/c", "task_d": "http://api/d"}
    states = (await status(client, execution_id))["node_states"]
    assert states == dict.fromkeys(["input", "task_b", "task_c", "task_d", "output"], "COMPLETED")


async def test_the_llm_example(client: Client, runtime: Runtime) -> None:
    execution_id = await submit(client, json.loads((EXAMPLES / "llm_analysis.json").read_text()))
    await trigger(client, execution_id)
    ended = await results(client, execution_id)
    assert ended["state"] == "COMPLETED"
    answer = ended["output_data"]["analyze"]
    assert (answer["model"], answer["mocked"]) == ("gpt-4", True)
    [(_, fetched)] = await runtime.store.read_outputs(execution_id, ["fetch_data"])
    shown = json.dumps(json.loads(fetched)["response"], separators=(",", ":"))[:40]
    assert shown in answer["response"], "what was fetched has reached the prompt"


async def test_status_and_results_while_it_runs(client: Client, gate: Gate) -> None:
    nodes = [
        {"id": "first", "handler": "input"},
        {"id": "gate", "handler": "gate", "dependencies": ["first"]},
        {"id": "last", "handler": "output", "dependencies": ["gate"]},
    ]
    execution_id = await submit(client, {"name": "gated", "dag": {"nodes": nodes}})
    await trigger(client, execution_id, input_params={"x": 1})
    await gate.started.wait()
    now = await status(client, execution_id)
    assert (now["state"], now["completed_at"], now["error"]) == ("RUNNING", None, None)
    assert now["node_states"] == {"first": "COMPLETED", "gate": "RUNNING", "last": "PENDING"}
    assert (await results(client, execution_id, wait=0))["output_data"] is None
    assert (await results(client, execution_id, wait=0.001))["state"] == "RUNNING", "the wait passed"
    waiting = asyncio.create_task(results(client, execution_id))
    gate.open.set()
    assert (await waiting)["output_data"] == {"gate": {"x": 1}}


async def test_a_failed_execution_names_node_type_message_and_attempt(client: Client) -> None:
    nodes = [
        {
            "id": "fetch",
            "handler": "call_external_service",
            "config": {"url": "{{ input.url }}"},
            "retry_config": {"max_retries": 0},
        }
    ]
    execution_id = await submit(client, {"name": "failing", "dag": {"nodes": nodes}})
    await trigger(client, execution_id, input_params={"url": 5})
    ended = await results(client, execution_id)
    assert (ended["state"], ended["output_data"]) == ("FAILED", None)
    assert ended["completed_at"] is not None
    error = ended["error"]
    assert (error["node_id"], error["type"], error["attempt"]) == ("fetch", "config_invalid", 1)
    assert "config.url" in error["message"]
    shown = await status(client, execution_id)
    assert (shown["state"], shown["error"], shown["node_states"]) == ("FAILED", error, {"fetch": "FAILED"})


async def test_triggering_what_has_ended_starts_a_new_execution(client: Client) -> None:
    first = await submit(client)
    assert await trigger(client, first, input_params={"n": 1}) == first
    await results(client, first)
    second = await trigger(client, first, input_params={"n": 2})
    assert second != first
    assert (await results(client, second))["output_data"] == {"n": 2}
    assert (await results(client, first))["output_data"] == {"n": 1}, "the first one has not changed"


async def test_triggering_what_runs_is_a_conflict(client: Client, gate: Gate) -> None:
    execution_id = await submit(client, {"name": "gated", "dag": {"nodes": [{"id": "gate", "handler": "gate"}]}})
    await trigger(client, execution_id, input_params={"n": 1})
    await gate.started.wait()
    again = await client.post(f"/v1/workflow/trigger/{execution_id}", json={"input_params": {"n": 2}})
    assert execution_id in (await problem(again, 409, "execution-conflict"))["detail"]
    gate.open.set()
    assert (await results(client, execution_id))["output_data"] == {"n": 1}


async def test_of_many_triggers_at_once_one_wins(client: Client, gate: Gate) -> None:
    execution_id = await submit(client, {"name": "gated", "dag": {"nodes": [{"id": "gate", "handler": "gate"}]}})
    path = f"/v1/workflow/trigger/{execution_id}"
    answers = await asyncio.gather(*(client.post(path, json={"input_params": {"n": n}}) for n in range(20)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 19
    [winner] = [n for n, answer in enumerate(answers) if answer.status == 200]
    gate.open.set()
    assert (await results(client, execution_id))["output_data"] == {"n": winner}


async def test_the_same_name_and_dag_is_the_same_definition(client: Client) -> None:
    async def definition_of(document: Any) -> Any:
        async with client.post(SUBMIT, json=document) as response:
            assert response.status == 202
            return await response.json()

    first = await definition_of(HELLO)
    again = await definition_of({"dag": HELLO["dag"], "name": "hello"})
    assert again["workflow_definition_id"] == first["workflow_definition_id"]
    assert again["execution_id"] != first["execution_id"]
    other_dag = await definition_of({**HELLO, "dag": {"nodes": [{"id": "other", "handler": "input"}]}})
    other_name = await definition_of({**HELLO, "name": "hello again"})
    definitions = {each["workflow_definition_id"] for each in (first, other_dag, other_name)}
    assert len(definitions) == 3


async def test_cancelling_what_runs(client: Client, gate: Gate) -> None:
    nodes = [{"id": "gate", "handler": "gate"}, {"id": "last", "handler": "output", "dependencies": ["gate"]}]
    execution_id = await submit(client, {"name": "gated", "dag": {"nodes": nodes}})
    await trigger(client, execution_id)
    await gate.started.wait()
    cancelled = await client.post(f"/v1/workflows/{execution_id}/cancel")
    assert cancelled.status == 202
    answer = {"execution_id": execution_id, "state": "RUNNING", "message": "Cancellation requested"}
    assert await cancelled.json() == answer
    ended = await results(client, execution_id)
    assert (ended["state"], ended["output_data"], ended["error"]) == ("CANCELLED", None, None)
    assert (await status(client, execution_id))["node_states"] == {"gate": "CANCELLED", "last": "CANCELLED"}
    again = await client.post(f"/v1/workflows/{execution_id}/cancel")
    await problem(again, 409, "execution-conflict")


async def test_cancelling_what_was_never_triggered(client: Client) -> None:
    execution_id = await submit(client)
    async with client.post(f"/v1/workflows/{execution_id}/cancel", json={}) as cancelled:
        assert cancelled.status == 202
        assert (await cancelled.json())["state"] == "CANCELLED"
    shown = await status(client, execution_id)
    assert (shown["state"], shown["started_at"]) == ("CANCELLED", None)
    assert shown["node_states"] == {"input": "CANCELLED"}
    assert (await results(client, execution_id))["state"] == "CANCELLED"
    # It has ended, so a trigger starts another one.
    assert await trigger(client, execution_id) != execution_id


async def test_cancelling_what_has_completed_is_a_conflict(client: Client) -> None:
    execution_id = await submit(client)
    await trigger(client, execution_id)
    before = await results(client, execution_id)
    await problem(await client.post(f"/v1/workflows/{execution_id}/cancel"), 409, "execution-conflict")
    assert await results(client, execution_id) == before


async def test_health(client: Client) -> None:
    async with client.get("/v1/health") as response:
        assert response.status == 200
        body = await response.json()
    assert (body["status"], body["version"]) == ("healthy", "1.2.3")
    services = body["services"]
    assert set(services) == {"redis", "postgres", "store", "orchestrator", "workers"}
    assert (services["redis"], services["postgres"]) == ("not used", "not used")
    assert services["store"].startswith("healthy (SQLite ")
    assert (services["orchestrator"], services["workers"]) == ("healthy", "healthy (10 slots)")


async def test_health_when_the_store_is_not_well(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ill() -> StoreHealth:
        return StoreHealth(False, "the disk is full")

    monkeypatch.setattr(runtime.store, "health", ill)
    async with client.get("/v1/health") as response:
        assert response.status == 503
        body = await response.json()
    assert body["status"] == "unhealthy"
    assert body["services"]["store"] == "unhealthy (the disk is full)"
    assert body["services"]["orchestrator"] == "healthy"


async def test_health_when_the_owner_has_ended(make_api: Make, runtime: Runtime) -> None:
    sources = replace(health_sources(runtime), owner_works=lambda: False)
    async with (await make_api(runtime, health=sources)).get("/v1/health") as response:
        assert response.status == 503
        services = (await response.json())["services"]
    assert services["store"].startswith("healthy")
    assert (services["orchestrator"], services["workers"]) == ("unhealthy", "unhealthy")


# --- what is wrong with a request -------------------------------------------------------------------------


BAD_TEXTS: dict[str, bytes] = {
    "malformed": b'{"name": ',
    "white space only": b"  \n",
    "several values": b"{} {}",
    "nan": b'{"name": NaN}',
    "infinity": b'{"name": -Infinity}',
    "a number beyond all numbers": b'{"name": 1e999}',
    "a key twice": b'{"name": "a", "name": "b"}',
    "a key twice, deeper": b'{"name": "a", "dag": {"nodes": [{"id": "a", "id": "b"}]}}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "a lone surrogate as a key": b'{"\\udc00": 1}',
    "not utf-8": b'{"name": "\xff"}',
    "utf-16": '{"name": "a"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"name": "a"}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep and open": b'{"a":' * 100_000,
    "just too deep": b"[" * 66 + b"]" * 66,
    "a huge integer": b'{"name": ' + b"9" * 5_000 + b"}",
    "a control character": b'{"name": "a\x00b"}',
}


@pytest.mark.parametrize("path", [SUBMIT, f"/v1/workflow/trigger/{NO_SUCH_ID}", f"/v1/workflows/{NO_SUCH_ID}/cancel"])
@pytest.mark.parametrize("case", BAD_TEXTS)
async def test_a_body_that_is_not_strict_json(client: Client, case: str, path: str) -> None:
    if path.endswith("/cancel") and len(BAD_TEXTS[case]) > 1_000:
        await problem(await client.post(path, data=BAD_TEXTS[case], headers=JSON), 413, "payload-too-large")
        return
    body = await problem(await client.post(path, data=BAD_TEXTS[case], headers=JSON), 400, "bad-request")
    assert error_paths(body) == ["$"]
    assert len(body["errors"][0]["message"]) < 300


BAD_DEFINITIONS: dict[str, tuple[Any, list[str]]] = {
    "null": (None, ["$"]),
    "a list": ([], ["$"]),
    "text": ("hello", ["$"]),
    "a number": (1e308, ["$"]),
    "nothing": ({}, ["name", "dag"]),
    "an unknown key": ({**HELLO, "nmae": 1}, ["nmae"]),
    "no nodes": ({"name": "a", "dag": {"nodes": []}}, ["dag.nodes"]),
    "nodes of no use": ({"name": "a", "dag": {"nodes": [1, None]}}, ["dag.nodes[0]", "dag.nodes[1]"]),
    "an empty name": ({**HELLO, "name": ""}, ["name"]),
    "an unknown handler": (
        {"name": "a", "dag": {"nodes": [{"id": "a", "handler": "inptu"}]}},
        ["dag.nodes[0].handler"],
    ),
    "a hostile id": (
        {"name": "a", "dag": {"nodes": [{"id": "<script>\n", "handler": "input"}]}},
        ["dag.nodes[0].id"],
    ),
    "a self dependency": (
        {"name": "a", "dag": {"nodes": [{"id": "a", "handler": "input", "dependencies": ["a"]}]}},
        ["dag.nodes[0].dependencies[0]"],
    ),
    "a circle": (
        {
            "name": "a",
            "dag": {
                "nodes": [
                    {"id": "a", "handler": "input", "dependencies": ["b"]},
                    {"id": "b", "handler": "input", "dependencies": ["a"]},
                ]
            },
        },
        ["dag.nodes"],
    ),
    "a bad configuration": (
        {"name": "a", "dag": {"nodes": [{"id": "a", "handler": "call_external_service", "config": {"url": 5}}]}},
        ["dag.nodes[0].config.url"],
    ),
    "a bad template": (
        {
            "name": "a",
            "dag": {
                "nodes": [
                    {"id": "a", "handler": "call_external_service", "config": {"url": "http://h/{{ nobody.output }}"}}
                ]
            },
        },
        ["dag.nodes[0].config.url"],
    ),
    "a bad schema": ({**HELLO, "input_schema": {"type": "strnig"}}, ["input_schema.type"]),
    "a schema that fetches": (
        {**HELLO, "input_schema": {"$ref": "http://169.254.169.254/"}},
        ["input_schema['$ref']"],
    ),
}


@pytest.mark.parametrize("case", BAD_DEFINITIONS)
async def test_a_definition_that_is_not_valid(client: Client, case: str) -> None:
    document, paths = BAD_DEFINITIONS[case]
    response = await client.post(SUBMIT, data=json.dumps(document), headers=JSON)
    body = await problem(response, 422, "invalid-definition")
    assert error_paths(body) == paths


BAD_TRIGGERS: dict[str, tuple[Any, list[str]]] = {
    "null": (None, ["$"]),
    "a list": ([], ["$"]),
    "an unknown key": ({"input_parms": {}}, ["input_parms"]),
    "two faults": ({"input_params": 1, "x": 1}, ["input_params", "x"]),
    "a list of parameters": ({"input_params": []}, ["input_params"]),
    "text for parameters": ({"input_params": "{}"}, ["input_params"]),
    "null for parameters": ({"input_params": None}, ["input_params"]),
}


@pytest.mark.parametrize("case", BAD_TRIGGERS)
async def test_a_trigger_that_is_not_valid(client: Client, case: str) -> None:
    document, paths = BAD_TRIGGERS[case]
    execution_id = await submit(client)
    path, text = f"/v1/workflow/trigger/{execution_id}", json.dumps(document)
    response = await client.post(path, data=text, headers=JSON)
    assert error_paths(await problem(response, 400, "bad-request")) == paths
    assert (await status(client, execution_id))["state"] == "PENDING", "nothing has happened"


async def test_a_misspelled_key_is_recognised(client: Client) -> None:
    response = await client.post(f"/v1/workflow/trigger/{NO_SUCH_ID}", json={"input_parms": {}})
    body = await problem(response, 400, "bad-request")
    assert "did you mean 'input_params'?" in body["errors"][0]["message"]


async def test_input_that_does_not_fit_the_schema(client: Client) -> None:
    schema = {
        "type": "object",
        "properties": {
            "user": {"type": "object", "properties": {"age": {"type": "integer"}}},
            "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}},
        },
        "required": ["user"],
    }
    execution_id = await submit(client, {**HELLO, "input_schema": schema})
    path = f"/v1/workflow/trigger/{execution_id}"
    wrong = {"user": {"age": "old"}, "tags": ["ok", "NOT", 3]}
    body = await problem(await client.post(path, json={"input_params": wrong}), 422, "invalid-input")
    expected = ["input_params.tags[1]", "input_params.tags[2]", "input_params.user.age"]
    assert sorted(error_paths(body)) == expected
    body = await problem(await client.post(path), 422, "invalid-input")
    assert error_paths(body) == ["input_params"]
    await trigger(client, execution_id, input_params={"user": {"age": 30}, "tags": ["ok"]})
    assert (await results(client, execution_id))["state"] == "COMPLETED"


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form"])
@pytest.mark.parametrize("path", [SUBMIT, f"/v1/workflow/trigger/{NO_SUCH_ID}", f"/v1/workflows/{NO_SUCH_ID}/cancel"])
async def test_a_body_of_another_type(client: Client, path: str, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    skip = ["Content-Type"] if content_type is None else []
    response = await client.post(path, data=b"{}", headers=headers, skip_auto_headers=skip)
    await problem(response, 415, "unsupported-media-type")


async def test_parameters_of_the_media_type_and_its_case_do_not_matter(client: Client) -> None:
    headers = {"Content-Type": "Application/JSON; charset=utf-8"}
    async with client.post(SUBMIT, data=json.dumps(HELLO), headers=headers) as response:
        assert response.status == 202


async def test_an_empty_body_where_one_is_needed(client: Client) -> None:
    response = await client.post(SUBMIT, headers=JSON)
    assert "empty" in (await problem(response, 400, "bad-request"))["detail"]
    await problem(await client.post(SUBMIT), 415, "unsupported-media-type")


@pytest.mark.parametrize("path", ["/v1/workflows/{}", "/v1/workflows/{}/results", "/v1/workflows/{}/results?wait=1"])
@pytest.mark.parametrize(
    "execution_id",
    [NO_SUCH_ID, "x", "%00", "%ff", "%ED%A0%80", "%0d%0aSet-Cookie:x", "a%2Fb", "%F0%9F%98%80", "a" * 4000],
    ids=lambda value: value[:20],
)
async def test_an_unknown_execution(client: Client, path: str, execution_id: str) -> None:
    body = await problem(await client.get(path.format(execution_id)), 404, "execution-not-found")
    assert len(body["detail"]) < 500


async def test_an_unknown_execution_cannot_be_triggered_or_cancelled(client: Client) -> None:
    for path in (f"/v1/workflow/trigger/{NO_SUCH_ID}", f"/v1/workflows/{NO_SUCH_ID}/cancel"):
        assert NO_SUCH_ID in (await problem(await client.post(path), 404, "execution-not-found"))["detail"]


@pytest.mark.parametrize(
    "wait",
    ["-1", "301", "nan", "inf", "-inf", "1e400", "", "%20", "1s", "abc", "1,5", "0x10", "%ff", "%00", "9" * 2000],
    ids=lambda value: value[:20],
)
async def test_a_wait_that_makes_no_sense(client: Client, wait: str) -> None:
    execution_id = await submit(client)
    response = await client.get(f"/v1/workflows/{execution_id}/results?wait={wait}")
    body = await problem(response, 400, "bad-request")
    assert error_paths(body) == ["query.wait"]
    assert "seconds from 0 to 300" in body["errors"][0]["message"]


@pytest.mark.parametrize(
    ("method", "path", "errors"),
    [
        ("GET", "/v1/health?x=1", ["query.x"]),
        ("GET", f"/v1/workflows/{NO_SUCH_ID}?wait=1", ["query.wait"]),
        ("GET", f"/v1/workflows/{NO_SUCH_ID}/results?wiat=1", ["query.wiat"]),
        ("GET", f"/v1/workflows/{NO_SUCH_ID}/results?wait=1&wait=2", ["query.wait"]),
        ("GET", f"/v1/workflows/{NO_SUCH_ID}/results?wait=1&a=1&b=1&a=2", ["query.a", "query.b"]),
        ("POST", f"{SUBMIT}?dry_run=true", ["query.dry_run"]),
        ("POST", f"/v1/workflow/trigger/{NO_SUCH_ID}?wait=1", ["query.wait"]),
        ("POST", f"/v1/workflows/{NO_SUCH_ID}/cancel?force", ["query.force"]),
    ],
)
async def test_query_parameters_that_the_route_does_not_know(
    client: Client, method: str, path: str, errors: list[str]
) -> None:
    body = await problem(await client.request(method, path), 400, "bad-request")
    assert error_paths(body) == errors


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (SUBMIT, "POST"),
        (f"/v1/workflow/trigger/{NO_SUCH_ID}", "POST"),
        (f"/v1/workflows/{NO_SUCH_ID}", "GET,HEAD"),
        (f"/v1/workflows/{NO_SUCH_ID}/results", "GET,HEAD"),
        (f"/v1/workflows/{NO_SUCH_ID}/cancel", "POST"),
        ("/v1/health", "GET,HEAD"),
    ],
)
async def test_another_method(client: Client, path: str, allowed: str) -> None:
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - set(allowed.split(",")):
        response = await client.request(method, path)
        await problem(response, 405, "method-not-allowed")
        assert response.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v1/workflow/", "/v1/workflows/", "/v1/health/", "/v2/health"])
async def test_an_unknown_address(client: Client, path: str) -> None:
    await problem(await client.get(path), 404, "not-found")
    await problem(await client.post(path, json={}), 404, "not-found")


async def test_head_answers_like_get(client: Client) -> None:
    assert (await client.head("/v1/health")).status == 200
    assert (await client.head(f"/v1/workflows/{NO_SUCH_ID}")).status == 404


# --- size -------------------------------------------------------------------------------------------------


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


async def test_a_body_that_cannot_be_unpacked_is_a_problem_document(client: Client) -> None:
    response = await client.post(SUBMIT, data=b"not gzip", headers={**JSON, "Content-Encoding": "gzip"})
    assert "Content-Encoding" in (await problem(response, 400, "bad-request"))["detail"]


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


# --- when it is not the client's fault ---------------------------------------------------------------------


async def test_shutting_down_refuses_writes_and_answers_reads(client: Client, runtime: Runtime) -> None:
    execution_id = await submit(client)
    runtime.engine.stop_accepting()
    for path in (SUBMIT, f"/v1/workflow/trigger/{execution_id}", f"/v1/workflows/{execution_id}/cancel"):
        response = await client.post(path, json=HELLO if path == SUBMIT else {})
        await problem(response, 503, "shutting-down")
        assert int(response.headers["Retry-After"]) >= 1
    assert (await status(client, execution_id))["state"] == "PENDING"
    assert (await client.get("/v1/health")).status == 200


async def test_shutting_down_ends_every_wait(client: Client, runtime: Runtime, gate: Gate) -> None:
    execution_id = await submit(client, {"name": "gated", "dag": {"nodes": [{"id": "gate", "handler": "gate"}]}})
    await trigger(client, execution_id)
    await gate.started.wait()
    waiting = asyncio.create_task(results(client, execution_id, wait=300))
    while not runtime.transport._followers:  # type: ignore[attr-defined]
        await asyncio.sleep(0)
    runtime.engine.stop_accepting()
    assert (await waiting)["state"] == "RUNNING"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StoreUnavailable("the disk is full"), "store-unavailable"),
        (StoreOutcomeUnknown("the disk reported an error"), "store-outcome-unknown"),
    ],
)
async def test_a_store_that_cannot_take_it(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    execution_id = await submit(client)

    async def fail(*_arguments: Any) -> Any:
        raise error

    for verb in ("create_execution", "trigger", "cancel_pending"):
        monkeypatch.setattr(runtime.store, verb, fail)
    for path in (SUBMIT, f"/v1/workflow/trigger/{execution_id}", f"/v1/workflows/{execution_id}/cancel"):
        response = await client.post(path, json=HELLO if path == SUBMIT else {})
        assert str(error) in (await problem(response, 503, code))["detail"]
        assert int(response.headers["Retry-After"]) >= 1
    monkeypatch.undo()
    await trigger(client, execution_id)
    assert (await results(client, execution_id))["state"] == "COMPLETED"


async def test_a_store_that_is_gone(client: Client, runtime: Runtime) -> None:
    execution_id = await submit(client)
    await runtime.store.close()
    await problem(await client.post(SUBMIT, json=HELLO), 503, "store-unavailable")
    for path in (f"/v1/workflows/{execution_id}", f"/v1/workflows/{execution_id}/results?wait=300"):
        await problem(await client.get(path), 503, "store-unavailable")
    assert (await client.get("/v1/health")).status == 503


async def test_a_fault_of_the_engine_is_logged_and_not_shown(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_arguments: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(runtime.store, "create_execution", fail)
    response = await client.post(SUBMIT, json=HELLO)
    assert "secret" not in json.dumps(await problem(response, 500, "internal-error"))
    assert "secret detail" in caplog.text
