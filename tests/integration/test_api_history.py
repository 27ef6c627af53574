"""The history, the timeline and the trace of an execution over HTTP, and as the command line shows them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from api_client import NO_SUCH_ID, Client, Make, error_paths, problem, results, submit, trigger
from commands import Done

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.api import models
from workflow_engine.runtime.process import Runtime

DIAMOND = {
    "name": "diamond",
    "dag": {
        "nodes": [
            {"id": "a", "handler": "input"},
            {"id": "b", "handler": "stumble", "dependencies": ["a"], "retry_config": {"initial_delay": 0.001}},
            {"id": "c", "handler": "input", "dependencies": ["a"]},
            {"id": "d", "handler": "output", "dependencies": ["b", "c"]},
        ]
    },
}


@handler("stumble")
async def stumble(config: dict[str, Any], context: NodeContext) -> int:
    """Fail once."""
    if context.attempt == 1:
        raise ConnectionError("gone")
    return context.attempt


@pytest.fixture
async def runtime(start_runtime: Make) -> Runtime:
    """A runtime with a handler that fails at first."""
    started: Runtime = await start_runtime(handlers=[stumble])
    return started


@pytest.fixture
async def ended(client: Client) -> str:
    """The id of a diamond that has completed."""
    execution_id = await submit(client, DIAMOND)
    await trigger(client, execution_id)
    assert (await results(client, execution_id))["state"] == "COMPLETED"
    return execution_id


async def get(client: Client, execution_id: str, what: str, **query: Any) -> Any:
    async with client.get(f"/v1/workflows/{execution_id}/{what}", params=query) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def test_history_in_pages(client: Client, ended: str) -> None:
    whole = models.EventPage.model_validate(await get(client, ended, "history", limit=200))
    assert whole.next_cursor is None
    kinds = [item.event for item in whole.items]
    assert kinds[:2] == ["execution_created", "execution_started"]
    assert kinds[-1] == "execution_ended"
    assert kinds.count("attempt_started") == 5
    assert kinds.count("attempt_completed") == 4
    [failed] = [item for item in whole.items if item.event == "attempt_failed"]
    assert (failed.node_id, failed.attempt, failed.details["error"]["type"]) == ("b", 1, "ConnectionError")
    paged: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = models.EventPage.model_validate(await get(client, ended, "history", limit=4, **cursor))
        paged += page.items
        if page.next_cursor is None:
            break
        cursor = {"cursor": page.next_cursor}
    assert paged == whole.items


async def test_the_timeline_has_every_attempt(client: Client, ended: str) -> None:
    timeline = models.TimelinePage.model_validate(await get(client, ended, "timeline"))
    assert sorted((item.node_id, item.attempt) for item in timeline.items) == [
        ("a", 1),
        ("b", 1),
        ("b", 2),
        ("c", 1),
        ("d", 1),
    ]
    assert all(item.queued_at <= str(item.started_at) <= item.finished_at for item in timeline.items)
    assert [item.retry_at is not None for item in timeline.items if item.node_id == "b"] == [True, False]


async def test_the_trace(client: Client, ended: str) -> None:
    document = await get(client, ended, "trace")
    spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert {span["traceId"] for span in spans} == {ended.replace("-", "")}
    ids = {span["spanId"] for span in spans}
    assert len(ids) == len(spans) == 16
    assert {span["parentSpanId"] for span in spans[1:]} < ids
    jaeger = await get(client, ended, "trace", format="jaeger")
    assert {span["spanID"] for span in jaeger["data"][0]["spans"]} == ids


@pytest.mark.parametrize("what", ["history", "timeline", "trace"])
async def test_of_an_execution_that_is_not_there(client: Client, what: str) -> None:
    await problem(await client.get(f"/v1/workflows/{NO_SUCH_ID}/{what}"), 404, "execution-not-found")


async def test_a_bad_query_is_named(client: Client, ended: str) -> None:
    body = await problem(await client.get(f"/v1/workflows/{ended}/trace?format=zipkin"), 400, "bad-request")
    assert error_paths(body) == ["query.format"]
    body = await problem(await client.get(f"/v1/workflows/{ended}/history?cursor=x"), 400, "bad-request")
    assert error_paths(body) == ["query.cursor"]


async def test_the_commands(
    client: Client, ended: str, command: Callable[..., Awaitable[Done]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKFLOW_ENGINE_URL", str(client.make_url("/")).rstrip("/"))
    done = await command("history", ended)
    assert done.code == 0
    assert "ConnectionError: gone" in done.output
    assert len(done.output.splitlines()) == 1 + len((await get(client, ended, "history", limit=200))["items"])
    done = await command("trace", ended)
    assert done.code == 0
    lines = done.output.splitlines()
    assert lines[0].startswith(f"trace {ended.replace('-', '')}, ")
    assert lines[3].split()[:3] == ["a", "1", "COMPLETED"]
    assert all("=" in line for line in lines[3:])
    done = await command("trace", ended, "--jaeger")
    assert done.document["data"][0]["traceID"] == ended.replace("-", "")
