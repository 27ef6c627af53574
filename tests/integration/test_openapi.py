"""The description of the API, and the pages that show it, as they are served."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from openapi_spec_validator import validate

from workflow_engine.runtime.api.app import declared_routes
from workflow_engine.runtime.api.openapi import errors_of
from workflow_engine.runtime.api.problems import status_of
from workflow_engine.runtime.api.routing import Route, Scope
from workflow_engine.runtime.core.definition import NodeDefinition, WorkflowDefinition

Make = Callable[..., Awaitable[Any]]
Client = TestClient[Any, Any]

PACKED = {"Accept-Encoding": "gzip"}
DOCUMENTED = [route for route in declared_routes() if route.documented]


@pytest.fixture
async def client(make_api: Make, start_runtime: Make) -> Client:
    """A client that leaves bodies as they come."""
    made: Client = await make_api(await start_runtime())
    made.session._auto_decompress = False
    return made


@pytest.fixture
async def document(client: Client) -> dict[str, Any]:
    """The OpenAPI document."""
    async with client.get("/openapi.json", headers={"Accept-Encoding": ""}) as response:
        assert response.status == 200
        return dict(await response.json())


async def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == "1.2.3"


async def test_it_has_every_route_and_no_other(document: dict[str, Any]) -> None:
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    functions = {
        ("POST", f"/v1/functions/{name}") for name in ("input", "output", "call_external_service", "llm_service")
    }
    assert described == {(route.method, route.path) for route in DOCUMENTED} | functions
    operations = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(operations) == len({*operations})


@pytest.mark.parametrize("route", DOCUMENTED, ids=lambda route: route.operation)
async def test_a_route_is_described_as_it_is_declared(document: dict[str, Any], route: Route) -> None:
    described = document["paths"][route.path][route.method.lower()]
    statuses = {*route.answers, *map(status_of, errors_of(route))}
    assert {*described["responses"]} == {str(status) for status in statuses}
    assert described["security"] == ([] if route.scope is Scope.PUBLIC else [{"bearer": []}, {"header": []}])
    parameters = {(each["in"], each["name"]) for each in described["parameters"]}
    expected = {("path", name) for name in re.findall(r"{(\w+)}", route.path)}
    expected |= {("query", field.alias or name) for name, field in route.query.model_fields.items()}
    expected |= {("header", "Idempotency-Key")} if route.idempotent else set()
    assert parameters == expected
    assert ("requestBody" in described) == (route.body is not None)


async def test_the_definition_is_described_by_the_models_that_validate_it(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for model in (WorkflowDefinition, NodeDefinition):
        assert {*schemas[model.__name__]["properties"]} == {*model.model_fields}
        assert schemas[model.__name__]["additionalProperties"] is False
    body = document["paths"]["/v1/workflow"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"] == {"$ref": "#/components/schemas/WorkflowDefinition"}
    WorkflowDefinition.model_validate(body["example"])


@pytest.mark.parametrize(
    ("path", "name", "bounds"),
    [
        ("/v1/workflows", "limit", (1, 200)),
        ("/v1/definitions", "limit", (1, 200)),
        ("/v1/definitions/{name}", "version", (1, 2**31 - 1)),
        ("/v1/definitions/{name}/diff", "from", (1, 2**31 - 1)),
        ("/v1/workflows/{execution_id}/results", "wait", (0, 300)),
    ],
)
async def test_bounds_of_the_query_are_described(
    document: dict[str, Any], path: str, name: str, bounds: tuple[int, int]
) -> None:
    [schema] = [each["schema"] for each in document["paths"][path]["get"]["parameters"] if each["name"] == name]
    assert (schema["minimum"], schema["maximum"]) == bounds


async def test_bounds_of_a_body_are_described(document: dict[str, Any]) -> None:
    limit = document["components"]["schemas"]["CancelManyRequest"]["properties"]["limit"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 1000, 1000)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_and_what_it_refers_to(client: Client, page: str) -> None:
    async with client.get(page, headers={"Accept-Encoding": ""}) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert response.headers["Cache-Control"] == "no-cache"
        assert "script-src 'self';" in response.headers["Content-Security-Policy"]
        text = await response.text()
    references = [name for name in re.findall(r'(?:src|href)="([^"]+)"', text) if name != "openapi.json"]
    assert len(references) >= 3
    for reference in references:
        async with client.get(f"/{reference}", headers=PACKED) as response:
            assert response.status == 200
            assert response.headers["Content-Encoding"] == "gzip"
            assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert (await response.read())[:2] == b"\x1f\x8b"
        async with client.get(f"/{reference}", headers={"Accept-Encoding": ""}) as response:
            assert "Content-Encoding" not in response.headers
            assert (await response.read())[:2] != b"\x1f\x8b"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
@pytest.mark.parametrize("encoding", ["gzip", ""])
async def test_what_the_client_has_is_not_sent_again(client: Client, path: str, encoding: str) -> None:
    headers = {"Accept-Encoding": encoding}
    async with client.get(path, headers=headers) as response:
        etag = response.headers["ETag"]
        assert response.headers["Vary"] == "Accept-Encoding"
    async with client.get(path, headers={**headers, "If-None-Match": etag}) as response:
        assert (response.status, await response.read()) == (304, b"")
    async with client.get(path, headers={**headers, "If-None-Match": '"other"'}) as response:
        assert response.status == 200


@pytest.mark.parametrize("path", ["docs.js", "0000000000000000/docs.js", "0000000000000000/..%2FVENDORED"])
async def test_an_asset_that_is_not_there(client: Client, path: str) -> None:
    async with client.get(f"/docs/assets/{path}") as response:
        assert response.status == 404
