"""The specification's endpoints over a whole runtime."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from api_client import (
    GATED,
    HELLO,
    SUBMIT,
    Client,
    Gate,
    Make,
    problem,
    results,
    status,
    submit,
    trigger,
)

from workflow_engine.runtime.cli.api import health_sources
from workflow_engine.runtime.ports import StoreHealth
from workflow_engine.runtime.process import Runtime

EXAMPLES = Path(__file__).parents[2] / "examples"


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
    execution_id = await submit(client, GATED)
    await trigger(client, execution_id, input_params={"n": 1})
    await gate.started.wait()
    again = await client.post(f"/v1/workflow/trigger/{execution_id}", json={"input_params": {"n": 2}})
    assert execution_id in (await problem(again, 409, "execution-conflict"))["detail"]
    gate.open.set()
    assert (await results(client, execution_id))["output_data"] == {"n": 1}


async def test_of_many_triggers_at_once_one_wins(client: Client, gate: Gate) -> None:
    execution_id = await submit(client, GATED)
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
    assert set(services) == {"redis", "postgres", "store", "orchestrator", "workers", "plugins"}
    assert (services["redis"], services["postgres"]) == ("not used", "not used")
    assert services["store"].startswith("healthy (SQLite ")
    assert (services["orchestrator"], services["workers"]) == ("healthy", "healthy (1 alive, 10 slots, 10 free)")


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
    assert services["orchestrator"] == "unhealthy"
