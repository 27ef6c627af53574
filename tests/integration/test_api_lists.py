"""Lists, definitions and cancelling by filter, over HTTP."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
from api_client import GATED, HELLO, NO_SUCH_ID, Client, Gate, error_paths, problem, results, submit, trigger


async def get(client: Client, path: str, **query: Any) -> Any:
    async with client.get(path, params=query) as response:
        assert response.status == 200
        return await response.json()


async def define(client: Client, document: Any, expected: int = 201) -> Any:
    async with client.post("/v1/definitions", json=document) as response:
        assert response.status == expected
        return await response.json()


async def walk(client: Client, path: str, **query: Any) -> list[list[Any]]:
    """Every page of a list."""
    pages = []
    cursor: dict[str, str] = {}
    while True:
        page = await get(client, path, **query, **cursor)
        pages.append(page["items"])
        if page["next_cursor"] is None:
            return pages
        cursor = {"cursor": page["next_cursor"]}


async def test_executions_newest_first_in_pages(client: Client) -> None:
    assert await get(client, "/v1/workflows") == {"items": [], "next_cursor": None}
    made = [await submit(client) for _ in range(5)]
    pages = await walk(client, "/v1/workflows", limit=2)
    assert [len(page) for page in pages] == [2, 2, 1]
    listed = [item for page in pages for item in page]
    assert [item["id"] for item in listed] == made[::-1]
    assert {(item["state"], item["name"], item["version"], item["error"]) for item in listed} == {
        ("PENDING", "hello", 1, None)
    }


async def test_executions_by_state_name_and_time(client: Client) -> None:
    pending, done = await submit(client), await submit(client)
    other = await submit(client, {**HELLO, "name": "other"})
    await trigger(client, done)
    await results(client, done)

    async def ids(**query: Any) -> list[str]:
        return [item["id"] for item in (await get(client, "/v1/workflows", **query))["items"]]

    assert await ids(state="COMPLETED") == [done]
    assert await ids(state=["PENDING", "COMPLETED"]) == [other, done, pending]
    assert await ids(name="other") == [other]
    assert await ids(name="other", state="COMPLETED") == []
    created = (await get(client, "/v1/workflows", name="other"))["items"][0]["created_at"]
    assert other in await ids(created_from=created)
    assert other not in await ids(created_before=created)
    assert await ids(created_from="9999-12-31T23:59:59Z") == []
    assert await ids(created_before="0001-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "query.limit"),
        ("limit=201", "query.limit"),
        ("limit=1.0", "query.limit"),
        ("limit=%201", "query.limit"),
        ("limit=1_0", "query.limit"),
        (f"limit={'9' * 3000}", "query.limit"),
        ("limit=1&limit=2", "query.limit"),
        ("state=running", "query.state[0]"),
        ("state=RUNNING&state=", "query.state[1]"),
        ("name=", "query.name"),
        ("created_from=2026-01-01", "query.created_from"),
        ("created_from=1700000000", "query.created_from"),
        ("created_from=2026-13-01T00:00:00Z", "query.created_from"),
        ("created_before=2026-01-01T00:00:00", "query.created_before"),
        ("created_from=9999-12-31T23:59:60Z", "query.created_from"),
        ("created_before=0001-01-01T00:00:00%2B14:00", "query.created_before"),
        ("cursor=", "query.cursor"),
        ("cursor=../../etc", "query.cursor"),
        ("stat=RUNNING", "query.stat"),
    ],
    ids=lambda value: value[:30],
)
async def test_a_filter_that_makes_no_sense(client: Client, query: str, path: str) -> None:
    found = await problem(await client.get(f"/v1/workflows?{query}"), 400, "bad-request")
    assert error_paths(found) == [path]


async def test_cancelling_by_filter(client: Client, gate: Gate) -> None:
    pending = await submit(client)
    kept = await submit(client, {**HELLO, "name": "kept"})
    running = await submit(client, GATED)
    await trigger(client, running)
    await gate.started.wait()

    async def cancel(**body: Any) -> Any:
        async with client.post("/v1/workflows/cancel", json=body) as response:
            assert response.status == 200
            return await response.json()

    assert await cancel(name="nobody") == {"cancelled": 0, "requested": 0, "more": False}
    assert await cancel(states=["RUNNING"]) == {"cancelled": 0, "requested": 1, "more": False}
    assert (await results(client, running))["state"] == "CANCELLED"
    assert await cancel(name="hello", limit=1.0) == {"cancelled": 1, "requested": 0, "more": False}
    assert (await results(client, pending, wait=0))["state"] == "CANCELLED"
    assert (await results(client, kept, wait=0))["state"] == "PENDING"


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"limit": 0}, ["limit"]),
        ({"limit": 1001}, ["limit"]),
        ({"limit": True}, ["limit"]),
        ({"limit": "5"}, ["limit"]),
        ({"states": ["DONE"]}, ["states[0]"]),
        ({"state": ["RUNNING"]}, ["state"]),
        ({"created_before": 5}, ["created_before"]),
    ],
)
async def test_a_cancelling_that_makes_no_sense(client: Client, body: Any, paths: list[str]) -> None:
    pending = await submit(client)
    found = await problem(await client.post("/v1/workflows/cancel", json=body), 400, "bad-request")
    assert error_paths(found) == paths
    assert (await results(client, pending, wait=0))["state"] == "PENDING"


async def test_cancelling_everything_takes_an_empty_object_and_not_an_empty_body(client: Client) -> None:
    pending = await submit(client)
    await problem(await client.post("/v1/workflows/cancel"), 415, "unsupported-media-type")
    assert (await results(client, pending, wait=0))["state"] == "PENDING"


async def test_definitions_are_stored_once_listed_and_shown(client: Client) -> None:
    first = await define(client, HELLO)
    assert await define(client, {"dag": HELLO["dag"], "name": "hello"}, expected=200) == first
    second = await define(client, {**HELLO, "description": "changed"})
    assert (first["version"], second["version"]) == (1, 2)
    others = [await define(client, {**HELLO, "name": name}) for name in ("a/b", "ä", "zero", "validate")]

    pages = await walk(client, "/v1/definitions", limit=2)
    listed = [item for page in pages for item in page]
    assert [item["name"] for item in listed] == ["a/b", "hello", "validate", "zero", "ä"]
    assert second in listed
    assert all(other in listed for other in others)

    assert await get(client, "/v1/definitions/hello") == {**second, "definition": {**HELLO, "description": "changed"}}
    assert await get(client, "/v1/definitions/hello", version=1) == {**first, "definition": HELLO}
    assert (await get(client, "/v1/definitions/a%2Fb"))["name"] == "a/b"
    assert (await get(client, "/v1/definitions/validate"))["name"] == "validate"
    assert await walk(client, "/v1/definitions/hello/versions", limit=1) == [[second], [first]]


async def test_versions_that_are_not_there(client: Client) -> None:
    await define(client, HELLO)
    for path in (
        "/v1/definitions/nobody",
        "/v1/definitions/nobody/versions",
        "/v1/definitions/hello?version=2",
        "/v1/definitions/hello/diff?from=1&to=2",
        "/v1/definitions/nobody/diff?from=1&to=1",
    ):
        await problem(await client.get(path), 404, "definition-not-found")
    for query in ("version=0", "version=-1", "version=one", f"version={2**31}", f"version={'9' * 100}"):
        await problem(await client.get(f"/v1/definitions/hello?{query}"), 400, "bad-request")


async def test_how_two_versions_differ(client: Client) -> None:
    await define(client, HELLO)
    await define(client, {**HELLO, "dag": {"nodes": [*HELLO["dag"]["nodes"], {"id": "more", "handler": "output"}]}})
    diff = await get(client, "/v1/definitions/hello/diff", **{"from": 1, "to": 2})
    assert diff == {
        "name": "hello",
        "from_version": 1,
        "to_version": 2,
        "added_nodes": ["more"],
        "removed_nodes": [],
        "changed_nodes": [],
        "changes": [],
    }
    missing = await problem(await client.get("/v1/definitions/hello/diff?from=1"), 400, "bad-request")
    assert error_paths(missing) == ["query.to"]


async def test_checking_a_definition_stores_nothing(client: Client) -> None:
    async def check(document: Any) -> Any:
        async with client.post("/v1/definitions/validate", json=document) as response:
            assert response.status == 200
            return await response.json()

    assert await check(HELLO) == {"valid": True, "errors": []}
    found = await check({"name": "", "dag": {"nodes": []}})
    assert (found["valid"], error_paths(found)) == (False, ["name", "dag.nodes"])
    assert await walk(client, "/v1/definitions") == [[]]
    await problem(await client.post("/v1/definitions/validate", data=b"{"), 415, "unsupported-media-type")


async def test_a_definition_that_is_not_valid_is_not_stored(client: Client) -> None:
    response = await client.post("/v1/definitions", json={"name": "bad", "dag": {"nodes": []}})
    assert error_paths(await problem(response, 422, "invalid-definition")) == ["dag.nodes"]
    assert await walk(client, "/v1/definitions") == [[]]


async def test_the_node_types(client: Client) -> None:
    items = (await get(client, "/v1/functions"))["items"]
    by_name = {item["name"]: item for item in items}
    assert [*by_name] == sorted(by_name)
    assert {"input", "output", "call_external_service", "llm_service", "gate"} <= {*by_name}
    assert "url" in by_name["call_external_service"]["config_schema"]["properties"]
    assert by_name["gate"]["config_schema"] is None
    assert (by_name["gate"]["distribution"], by_name["gate"]["version"]) == (None, None), "given as an object"
    built_in = (by_name["input"]["distribution"], by_name["input"]["version"])
    assert built_in == ("workflow-orchestration-engine", version("workflow-orchestration-engine"))


async def test_a_cursor_that_was_made_up_is_some_place_in_the_list(client: Client) -> None:
    await define(client, HELLO)
    for cursor in ("AA", "____", "gICA"):
        assert (await client.get("/v1/definitions", params={"cursor": cursor})).status == 200
    assert await walk(client, "/v1/workflows", cursor=NO_SUCH_ID.replace("-", "")) == [[]]
