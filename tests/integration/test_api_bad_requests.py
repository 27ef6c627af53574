"""What is wrong with a request is the client's fault, and is named."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from api_client import (
    HELLO,
    JSON,
    NO_SUCH_ID,
    SUBMIT,
    Client,
    error_paths,
    problem,
    results,
    status,
    submit,
    trigger,
)

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


async def test_very_many_unknown_keys_are_told_with_the_others(client: Client) -> None:
    body = {**{f"key{n}": n for n in range(40_000)}, "input_params": 1}
    text = io.BytesIO(json.dumps(body).encode())
    response = await client.post(f"/v1/workflow/trigger/{NO_SUCH_ID}", data=text, headers=JSON)
    paths = error_paths(await problem(response, 400, "bad-request"))
    assert paths == ["input_params", *(f"key{n}" for n in range(199))]


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
