"""Dead letters over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from api_client import HELLO, NO_SUCH_ID, Client, Make, error_paths, problem, results, status, submit, trigger
from fragile import FRAGILE, Fragile

from workflow_engine.runtime.api import models
from workflow_engine.runtime.process import Runtime

LETTERS = "/v1/dead-letters"


@pytest.fixture
async def fragile() -> Fragile:
    """The handlers of this test's runtime."""
    return Fragile()


@pytest.fixture
async def runtime(start_runtime: Make, fragile: Fragile) -> Runtime:
    """A runtime with a node type that fails until it is mended."""
    started: Runtime = await start_runtime(handlers=fragile.handlers)
    return started


async def fail(client: Client, name: str = "fragile", **parameters: Any) -> str:
    """The id of a new dead letter."""
    execution_id = await submit(client, {**FRAGILE, "name": name})
    await trigger(client, execution_id, input_params=parameters)
    assert (await results(client, execution_id))["state"] == "FAILED"
    return execution_id


async def get(client: Client, path: str = LETTERS, **query: Any) -> Any:
    async with client.get(path, params=query) as response:
        assert response.status == 200
        return await response.json()


async def post(client: Client, path: str, expected: int, **body: Any) -> Any:
    async with client.post(f"{LETTERS}/{path}", json=body) as response:
        assert response.status == expected
        return await response.json()


async def ids(client: Client, **query: Any) -> list[str]:
    return [item["id"] for item in (await get(client, **query))["items"]]


async def test_letters_newest_first_in_pages_and_by_filter(client: Client) -> None:
    assert await get(client) == {"items": [], "next_cursor": None}
    done = await submit(client, HELLO)
    await trigger(client, done)
    await results(client, done)
    letters = [await fail(client), await fail(client, "other"), await fail(client)]

    page = await get(client, limit=2)
    assert [item["id"] for item in page["items"]] == letters[:0:-1]
    models.ExecutionPage.model_validate(page)
    assert await ids(client, cursor=page["next_cursor"]) == letters[:1]
    assert await ids(client, name="other") == letters[1:2]
    assert await ids(client, error_type="fragile_thing") == letters[::-1]
    assert await ids(client, error_type="fragile") == []
    created = (await get(client, name="other"))["items"][0]["created_at"]
    assert letters[1] in await ids(client, created_from=created)
    assert letters[1] not in await ids(client, created_before=created)


async def test_a_letter_shows_what_failed_and_every_attempt(client: Client) -> None:
    letter = await fail(client)
    shown = await get(client, f"{LETTERS}/{letter}")
    models.DeadLetter.model_validate(shown)
    error = {"node_id": "thing", "type": "fragile_thing", "message": "broken", "attempt": 1}
    assert (shown["id"], shown["state"], shown["name"], shown["version"]) == (letter, "FAILED", "fragile", 1)
    assert (shown["error"], shown["next_cursor"]) == (error, None)
    assert "retry_of" not in shown
    assert [(each["node_id"], each["attempt"], each["state"], each["error"]) for each in shown["attempts"]] == [
        ("thing", 1, "FAILED", error),
        ("first", 1, "COMPLETED", None),
    ]
    assert all(each["started_at"] <= each["finished_at"] for each in shown["attempts"])

    page = await get(client, f"{LETTERS}/{letter}", limit=1)
    rest = await get(client, f"{LETTERS}/{letter}", limit=1, cursor=page["next_cursor"])
    assert page["attempts"] + rest["attempts"] == shown["attempts"]
    assert rest["next_cursor"] is None
    assert (await get(client, f"{LETTERS}/{letter}", cursor="1"))["attempts"] == []


async def test_requeue(client: Client, fragile: Fragile) -> None:
    letter = await fail(client, n=1)
    fragile.mended = True
    requeued = await post(client, f"{letter}/requeue", 202)
    models.Requeued.model_validate(requeued)
    execution_id = requeued["execution_id"]
    assert requeued["retry_of"] == letter

    ended = await results(client, execution_id)
    assert (ended["state"], ended["output_data"]) == ("COMPLETED", {"first": "first", "thing": {"n": 1}})
    assert fragile.attempted(execution_id) == {"thing": 1}
    shown = await status(client, execution_id)
    models.ExecutionStatus.model_validate(shown)
    assert shown["retry_of"] == letter
    assert "retry_of" not in await status(client, letter)
    items = (await get(client, "/v1/workflows"))["items"]
    assert [item.get("retry_of") for item in items] == [letter, None]
    assert await ids(client) == []


async def test_a_second_requeue_is_told_the_first_ones_id(client: Client) -> None:
    letter = await fail(client)
    async with client.post(f"{LETTERS}/{letter}/requeue") as response:
        assert response.status == 202
        execution_id = (await response.json())["execution_id"]
    second = await problem(await client.post(f"{LETTERS}/{letter}/requeue"), 409, "execution-conflict")
    assert second["detail"] == f"execution {letter} was requeued as {execution_id}"
    gone = await problem(await client.get(f"{LETTERS}/{letter}"), 404, "dead-letter-not-found")
    assert gone["detail"] == second["detail"]


async def test_a_requeue_under_a_key_is_answered_the_same_each_time(client: Client) -> None:
    first, other = await fail(client), await fail(client)
    key = {"Idempotency-Key": "k"}
    answers = []
    for _ in range(3):
        async with client.post(f"{LETTERS}/{first}/requeue", headers=key) as response:
            assert response.status == 202
            answers.append(await response.json())
    assert answers == answers[:1] * 3
    await problem(await client.post(f"{LETTERS}/{other}/requeue", headers=key), 409, "idempotency-conflict")
    assert (await results(client, answers[0]["execution_id"]))["state"] == "FAILED"
    assert await ids(client) == [answers[0]["execution_id"], other]


async def test_discard(client: Client) -> None:
    letter = await fail(client)
    for _ in range(2):
        async with client.delete(f"{LETTERS}/{letter}") as response:
            assert (response.status, await response.read()) == (204, b"")
    assert await ids(client) == []
    await problem(await client.get(f"{LETTERS}/{letter}"), 404, "dead-letter-not-found")
    conflict = await problem(await client.post(f"{LETTERS}/{letter}/requeue"), 409, "execution-conflict")
    assert conflict["detail"] == f"execution {letter} was discarded"
    assert (await status(client, letter))["state"] == "FAILED"


@pytest.mark.parametrize("execution_id", [NO_SUCH_ID, "requeue%00", "a%2Fb"])
async def test_what_is_not_there(client: Client, execution_id: str) -> None:
    address = f"{LETTERS}/{execution_id}"
    for asked in (client.get(address), client.post(f"{address}/requeue"), client.delete(address)):
        await problem(await asked, 404, "execution-not-found")


async def test_what_has_not_failed(client: Client) -> None:
    address = f"{LETTERS}/{await submit(client)}"
    await problem(await client.get(address), 404, "dead-letter-not-found")
    for asked in (client.post(f"{address}/requeue"), client.delete(address)):
        found = await problem(await asked, 409, "execution-conflict")
        assert found["detail"].endswith(" is PENDING, not FAILED")


async def test_many_by_filter(client: Client) -> None:
    mine, others = [await fail(client) for _ in range(3)], [await fail(client, "other") for _ in range(3)]
    assert await post(client, "requeue", 200, name="nobody") == {"requeued": 0, "next_cursor": None}
    first = await post(client, "requeue", 200, name="fragile", error_type="fragile_thing", limit=2)
    assert first == {"requeued": 2, "next_cursor": mine[1].replace("-", "")}
    rest = await post(client, "requeue", 200, name="fragile", limit=2.0, cursor=first["next_cursor"])
    assert rest == {"requeued": 1, "next_cursor": None}
    for item in (await get(client, "/v1/workflows", limit=3))["items"]:
        assert item["retry_of"] in mine
        await results(client, item["id"])
    assert len(await ids(client, name="fragile")) == 3

    first = await post(client, "discard", 200, name="other", limit=2)
    assert first == {"discarded": 2, "next_cursor": others[1].replace("-", "")}
    assert await ids(client, name="other") == others[:1]
    assert await post(client, "discard", 200) == {"discarded": 4, "next_cursor": None}
    assert await ids(client) == []


async def test_everything_takes_an_empty_object_and_not_an_empty_body(client: Client) -> None:
    letter = await fail(client)
    for verb in ("requeue", "discard"):
        await problem(await client.post(f"{LETTERS}/{verb}"), 415, "unsupported-media-type")
    assert await ids(client) == [letter]


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"limit": 0}, ["limit"]),
        ({"limit": 1001}, ["limit"]),
        ({"limit": "5"}, ["limit"]),
        ({"states": ["FAILED"]}, ["states"]),
        ({"name": ""}, ["name"]),
        ({"error_type": ""}, ["error_type"]),
        ({"error_type": 5}, ["error_type"]),
        ({"created_before": 5}, ["created_before"]),
        ({"cursor": "x"}, ["cursor"]),
    ],
)
@pytest.mark.parametrize("verb", ["requeue", "discard"])
async def test_conditions_that_make_no_sense(client: Client, verb: str, body: Any, paths: list[str]) -> None:
    letter = await fail(client)
    found = await problem(await client.post(f"{LETTERS}/{verb}", json=body), 400, "bad-request")
    assert error_paths(found) == paths
    assert await ids(client) == [letter]


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("", "limit=201"),
        ("", "state=FAILED"),
        ("", "error_type="),
        ("", "created_from=yesterday"),
        ("", "cursor=1"),
        (f"/{NO_SUCH_ID}", "limit=0"),
        (f"/{NO_SUCH_ID}", "cursor=0"),
        (f"/{NO_SUCH_ID}", f"cursor={'9' * 10}"),
    ],
)
async def test_queries_that_make_no_sense(client: Client, path: str, query: str) -> None:
    found = await problem(await client.get(f"{LETTERS}{path}?{query}"), 400, "bad-request")
    assert error_paths(found) == [f"query.{query.partition('=')[0]}"]


async def test_a_new_body_is_none_of_a_requeues(client: Client) -> None:
    letter = await fail(client)
    response = await client.post(f"{LETTERS}/{letter}/requeue", json={"input_params": {}})
    assert error_paths(await problem(response, 400, "bad-request")) == ["input_params"]
    assert await ids(client) == [letter]


@pytest.mark.parametrize("error_type", ["a\0", "é", "%FF", '", "'])
async def test_an_error_type_that_nothing_has(client: Client, error_type: str) -> None:
    await fail(client)
    assert await ids(client, error_type=error_type) == []
    assert await post(client, "discard", 200, error_type=error_type) == {"discarded": 0, "next_cursor": None}
