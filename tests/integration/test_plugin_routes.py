"""The API with plugins: routes of theirs, and requests that they know the sender of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from api_client import Client, problem
from openapi_spec_validator import validate
from pydantic import BaseModel

from workflow_engine.plugins import hookimpl
from workflow_engine.plugins.offers import routes_of
from workflow_engine.plugins.values import ApiCaller, ApiRequest, PluginCall, PluginRoute, RouteRefused

Make = Callable[..., Awaitable[Any]]


class Order(BaseModel):
    """What is ordered."""

    count: int


class Page(BaseModel):
    """Which page."""

    page: int = 1


class Receipt(BaseModel):
    """What was ordered."""

    order: str
    count: int


async def place(call: PluginCall) -> Receipt:
    if call.body.count > 100:
        raise RouteRefused(409, "there are not so many")
    return Receipt(order=call.path["order"], count=call.body.count)


async def show(call: PluginCall) -> Any:
    return {"page": call.query.page, "caller": call.caller and (call.caller.name, call.caller.scope)}


async def hook(call: PluginCall) -> None:
    assert call.caller is None


async def broken(_call: PluginCall) -> Any:
    raise RuntimeError("it broke")


async def endless(_call: PluginCall) -> Any:
    return float("inf")


class Shop:
    """A plugin with routes, which knows who has a ticket."""

    @hookimpl
    def workflow_engine_routes(self) -> list[PluginRoute]:
        return [
            PluginRoute(
                method="POST",
                path="/orders/{order}",
                run=place,
                scope="run",
                summary="Order",
                body=Order,
                answer=Receipt,
            ),
            PluginRoute(method="GET", path="/orders", run=show, scope="read", summary="Orders", query=Page),
            PluginRoute(method="POST", path="/hook", run=hook, scope="public", summary="Hook"),
            PluginRoute(method="GET", path="/broken", run=broken, scope="read", summary="Broken"),
            PluginRoute(method="GET", path="/endless", run=endless, scope="read", summary="Endless"),
        ]

    @hookimpl
    async def workflow_engine_authenticate(self, request: ApiRequest) -> ApiCaller | None:
        ticket = request.headers.get("x-ticket")
        if ticket == "bad":
            raise RuntimeError("the office is closed")
        return None if ticket is None else ApiCaller(name=ticket, scope="read")


@pytest.fixture
async def make_client(start_runtime: Make, make_api: Make) -> Make:
    """`await make_client(keys_required=True)`: a client of an API with the plugin."""

    async def make(**options: Any) -> Any:
        runtime = await start_runtime(plugins=[Shop()])
        routes = routes_of(runtime.catalogue.plugins)
        return await make_api(runtime, plugin_routes=routes, authenticate=runtime.hooks.authenticate, **options)

    return make


async def test_routes_of_a_plugin(make_client: Make) -> None:
    client: Client = await make_client()
    async with client.post("/v1/plugins/shop/orders/a", json={"count": 2}) as response:
        assert (response.status, await response.json()) == (200, {"order": "a", "count": 2})
    async with client.get("/v1/plugins/shop/orders?page=2") as response:
        assert await response.json() == {"page": 2, "caller": ["everybody", "admin"]}
    async with client.post("/v1/plugins/shop/hook") as response:
        assert (response.status, await response.read()) == (204, b"")


async def test_what_routes_of_a_plugin_refuse(make_client: Make, caplog: pytest.LogCaptureFixture) -> None:
    client: Client = await make_client()
    path = "/v1/plugins/shop/orders/a"
    refused = await problem(await client.post(path, json={"count": 101}), 409, "refused-by-plugin")
    assert refused["detail"] == "there are not so many"
    bad = await problem(await client.post(path, json={"count": "many"}), 400, "bad-request")
    assert bad["errors"][0]["path"] == "count"
    await problem(await client.get("/v1/plugins/shop/orders?pages=2"), 400, "bad-request")
    await problem(await client.get("/v1/plugins/shop/nothing"), 404, "not-found")
    await problem(await client.get("/v1/plugins/shop/endless"), 500, "internal-error")
    await problem(await client.get("/v1/plugins/shop/broken"), 500, "internal-error")
    assert "a route of plugin Shop failed: /v1/plugins/shop/broken" in caplog.text


async def test_routes_of_a_plugin_are_described(make_client: Make) -> None:
    client: Client = await make_client()
    async with client.get("/openapi.json") as response:
        document = await response.json()
    validate(document)
    operation = document["paths"]["/v1/plugins/shop/orders/{order}"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Order"}
    assert operation["x-scope"] == "run"
    assert {"name": "plugins", "description": "What plugins have added"} in document["tags"]


async def test_who_a_plugin_knows_needs_no_key(make_client: Make) -> None:
    client: Client = await make_client(keys_required=True)
    async with client.get("/v1/plugins/shop/orders", headers={"X-Ticket": "mary"}) as response:
        assert (await response.json())["caller"] == ["plugin:mary", "read"]
    async with client.get("/v1/functions", headers={"X-Ticket": "mary"}) as response:
        assert response.status == 200
    await problem(
        await client.post("/v1/plugins/shop/orders/a", json={"count": 1}, headers={"X-Ticket": "mary"}),
        403,
        "forbidden",
    )
    await problem(await client.get("/v1/functions"), 401, "unauthenticated")
    await problem(await client.get("/v1/functions", headers={"X-Ticket": "bad"}), 401, "unauthenticated")
    async with client.post("/v1/plugins/shop/hook") as response:
        assert response.status == 204, "what is public asks nobody"
