"""When it is not the client's fault: shutting down, a store that cannot take it, the engine's own faults."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from api_client import GATED, HELLO, SUBMIT, Client, Gate, problem, results, status, submit, trigger

from workflow_engine.runtime.errors import StoreOutcomeUnknown, StoreUnavailable
from workflow_engine.runtime.process import Runtime


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
    execution_id = await submit(client, GATED)
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


async def test_requests_that_a_store_cannot_take_are_said_in_one_line(
    client: Client, runtime: Runtime, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await runtime.store.close()
    with monkeypatch.context() as patch:
        patch.setattr("workflow_engine.observability.rare_log.SECONDS_BETWEEN_LINES", 3600.0)
        for _ in range(3):
            await problem(await client.post(SUBMIT, json=HELLO), 503, "store-unavailable")
    assert [record.message for record in caplog.records if "refused" in record.message] == [
        "request refused: the store is closed"
    ]


async def test_a_fault_of_the_engine_is_logged_and_not_shown(
    client: Client, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_arguments: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(runtime.store, "create_execution", fail)
    response = await client.post(SUBMIT, json=HELLO)
    assert "secret" not in json.dumps(await problem(response, 500, "internal-error"))
    assert "secret detail" in caplog.text
