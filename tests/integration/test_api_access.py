"""Who may call what: API keys by scope and route, pages of other sites, names that are not ours."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from api_client import HELLO, NO_SUCH_ID, SUBMIT, Client, Make, exchange, problem, submit

from workflow_engine.runtime.api.app import ROUTES, declared_routes
from workflow_engine.runtime.api.errors import Forbidden
from workflow_engine.runtime.api.keys import BELIEVED_SECONDS, Keys
from workflow_engine.runtime.api.responses import DEFAULT_HEADERS
from workflow_engine.runtime.api.routing import Route, Scope
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.process import Runtime

EVERY_ROUTE = declared_routes()
HELD = [None, Scope.READ, Scope.RUN, Scope.ADMIN]


class OwnedClock(SystemClock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_seconds = 0.0

    def now(self) -> int:
        return super().now() + int(self.passed_seconds * 1000)

    def monotonic(self) -> float:
        return super().monotonic() + self.passed_seconds


@pytest.fixture
async def clock() -> OwnedClock:
    """The clock of the runtime."""
    return OwnedClock()


@pytest.fixture
async def runtime(start_runtime: Make, clock: OwnedClock) -> Runtime:
    """A runtime on that clock."""
    started: Runtime = await start_runtime(clock=clock)
    return started


@pytest.fixture
async def keyed(make_api: Make, runtime: Runtime) -> Client:
    """A client of an API that asks for keys; it sends none by itself."""
    made: Client = await make_api(runtime, keys_required=True)
    return made


@pytest.fixture
def make_key(runtime: Runtime, clock: OwnedClock) -> Callable[..., Awaitable[str]]:
    """`await make_key(Scope.RUN)`: a key's text. Made by other hands than the server's: as if in another process."""

    async def make(scope: Scope, expires_at: int | None = None) -> str:
        text, _ = await Keys(runtime.store, clock).create("a test", scope, expires_at)
        return text

    return make


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def address_of(route: Route) -> str:
    return re.sub(r"{\w+}", NO_SUCH_ID, route.path)


# --- scopes -------------------------------------------------------------------------------------------------


async def test_every_route_that_is_served_has_been_declared(keyed: Client) -> None:
    assert keyed.app is not None
    declared = {(route.method, route.path) for route in keyed.app[ROUTES]}
    served = {(route.method, getattr(route.resource, "canonical", "")) for route in keyed.app.router.routes()}
    assert {each for each in served if each[0] != "HEAD"} == declared
    assert {path for method, path in served if method == "HEAD"} <= {
        path for method, path in declared if method == "GET"
    }
    assert declared == {(route.method, route.path) for route in EVERY_ROUTE}


def test_what_is_public_is_named_here() -> None:
    public = {route.path for route in EVERY_ROUTE if route.scope is Scope.PUBLIC}
    assert public == {"/livez", "/readyz", "/openapi.json", "/docs", "/redoc", "/docs/assets/{digest}/{file}"}
    assert {route.scope for route in EVERY_ROUTE if route.path.startswith("/v1/keys")} == {Scope.ADMIN}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("route", EVERY_ROUTE, ids=lambda route: route.operation)
async def test_each_scope_at_each_route(keyed: Client, make_key: Make, route: Route, held: Scope | None) -> None:
    headers = {} if held is None else bearer(await make_key(held))
    response = await keyed.request(route.method, address_of(route), headers=headers)
    if route.scope is Scope.PUBLIC:
        assert response.status in {200, 404}
    elif held is None:
        await problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="workflow-engine"'
    elif held.includes(route.scope):
        assert response.status not in {401, 403}
    else:
        assert route.scope in (await problem(response, 403, "forbidden"))["detail"]
        assert f'error="insufficient_scope", scope="{route.scope}"' in response.headers["WWW-Authenticate"]


@pytest.mark.parametrize(("held", "needed", "includes"), [
    (held, needed, rank >= other)
    for rank, held in enumerate(Scope)
    for other, needed in enumerate(Scope)
])  # fmt: skip
def test_a_scope_includes_those_before_it(held: Scope, needed: Scope, includes: bool) -> None:
    assert held.includes(needed) is includes


def test_a_route_without_a_scope_cannot_be_written_down() -> None:
    with pytest.raises(TypeError, match="scope"):
        Route(method="GET", path="/x", operation="x", handler=None, summary="", tag="")  # type: ignore


# --- keys ---------------------------------------------------------------------------------------------------


async def test_a_key_in_either_header(keyed: Client, make_key: Make) -> None:
    key = await make_key(Scope.READ)
    for headers in (bearer(key), {"Authorization": f"bearer  {key} "}, {"X-API-Key": key}):
        assert (await keyed.get("/v1/workflows", headers=headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        bearer("wfe_unknown"),
        bearer(""),
        bearer("x" * 8000),
        {"X-API-Key": "wfe_unknown"},
        {"X-API-Key": "\xff\xfe"},
    ],
    ids=lambda headers: next(iter(headers.values()))[:20],
)
async def test_a_key_that_is_none(keyed: Client, headers: dict[str, str]) -> None:
    response = await keyed.get("/v1/workflows", headers=headers)
    await problem(response, 401, "unauthenticated")
    assert 'error="invalid_token"' in response.headers["WWW-Authenticate"]


async def test_another_scheme_is_no_key(keyed: Client, make_key: Make) -> None:
    key = await make_key(Scope.ADMIN)
    response = await keyed.get("/v1/workflows", headers={"Authorization": f"Basic {key}"})
    assert "Bearer wfe_" in (await problem(response, 401, "unauthenticated"))["detail"]


async def test_a_refusal_reads_no_body_and_says_nothing_about_what_is_there(keyed: Client) -> None:
    lines = [f"POST {SUBMIT} HTTP/1.1", "Host: test", "Content-Type: application/json", "Content-Length: 1000", "", ""]
    status, _ = await exchange(keyed, "\r\n".join(lines).encode())
    assert status == 401


async def test_an_expired_key(keyed: Client, make_key: Make, clock: OwnedClock) -> None:
    key = await make_key(Scope.READ, clock.now() + 60_000)
    assert (await keyed.get("/v1/workflows", headers=bearer(key))).status == 200
    clock.passed_seconds += 61
    response = await keyed.get("/v1/workflows", headers=bearer(key))
    assert "expired" in (await problem(response, 401, "unauthenticated"))["detail"]


async def test_a_key_is_made_used_and_revoked_over_the_api(keyed: Client, make_key: Make) -> None:
    admin = bearer(await make_key(Scope.ADMIN))
    async with keyed.post("/v1/keys", json={"name": "ci", "scope": "run"}, headers=admin) as response:
        assert response.status == 201
        made = await response.json()
    assert re.fullmatch(r"wfe_[A-Za-z0-9_-]{43}", made["key"])
    assert (made["name"], made["scope"], made["expires_at"], made["revoked_at"]) == ("ci", "run", None, None)

    async with keyed.get("/v1/keys", headers=admin) as response:
        assert made["key"] not in await response.text()
        listed = (await response.json())["items"]
    assert [each["name"] for each in listed] == ["a test", "ci"]
    assert listed[1] == {name: value for name, value in made.items() if name != "key"}

    assert (await keyed.post(SUBMIT, json=HELLO, headers=bearer(made["key"]))).status == 202
    assert (await keyed.delete(f"/v1/keys/{made['id']}", headers=admin)).status == 204
    response = await keyed.get("/v1/workflows", headers=bearer(made["key"]))
    assert "revoked" in (await problem(response, 401, "unauthenticated"))["detail"]
    again = await keyed.delete(f"/v1/keys/{made['id']}", headers=admin)
    await problem(again, 404, "key-not-found")


async def test_a_key_that_is_revoked_elsewhere_ends_soon(
    keyed: Client, make_key: Make, runtime: Runtime, clock: OwnedClock
) -> None:
    key = await make_key(Scope.READ)
    assert (await keyed.get("/v1/workflows", headers=bearer(key))).status == 200
    [record] = await runtime.store.list_keys()
    await Keys(runtime.store, clock).revoke(record.key_id)
    clock.passed_seconds += BELIEVED_SECONDS
    response = await keyed.get("/v1/workflows", headers=bearer(key))
    await problem(response, 401, "unauthenticated")


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, ["name", "scope"]),
        ({"name": "", "scope": "run"}, ["name"]),
        ({"name": "a", "scope": "public"}, ["scope"]),
        ({"name": "a", "scope": "run", "expires_at": 5}, ["expires_at"]),
        ({"name": "a", "scope": "run", "expires_at": "tomorrow"}, ["expires_at"]),
        ({"name": "a", "scope": "run", "expires_at": "9999-12-31T23:59:60Z"}, ["expires_at"]),
        ({"name": "a\x00b", "scope": "run"}, ["name"]),
        ({"name": "a", "scope": "run", "key": "mine"}, ["key"]),
    ],
)
async def test_a_key_that_cannot_be_made(client: Client, body: Any, paths: list[str]) -> None:
    found = await problem(await client.post("/v1/keys", json=body), 400, "bad-request")
    assert [error["path"] for error in found["errors"]] == paths


async def test_without_keys_everybody_may_do_everything(client: Client) -> None:
    assert (await client.get("/v1/keys")).status == 200
    assert (await client.get("/v1/keys", headers=bearer("wfe_unknown"))).status == 200


def test_the_refusal_names_both_scopes() -> None:
    assert str(Forbidden(Scope.ADMIN, Scope.READ)) == "this needs a key with the scope admin; the key has read"


# --- browsers -----------------------------------------------------------------------------------------------


async def test_a_page_of_another_site_changes_nothing(client: Client) -> None:
    response = await client.post(SUBMIT, json=HELLO, headers={"Sec-Fetch-Site": "cross-site"})
    await problem(response, 403, "cross-site-request")
    for site in ("same-origin", "same-site", "none"):
        assert (await client.post(SUBMIT, json=HELLO, headers={"Sec-Fetch-Site": site})).status == 202
    assert (await client.get("/v1/workflows", headers={"Sec-Fetch-Site": "cross-site"})).status == 200


@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("engine.localhost:80", True),
        ("127.0.0.1", True),
        ("127.8.9.1:8000", True),
        ("[::1]:8000", True),
        ("my.host", True),
        ("evil.test", False),
        ("localhost.evil.test", False),
        ("127.0.0.1.evil.test", False),
        ("10.0.0.1:8000", False),
        ("localhost:80:80", False),
        ("user@localhost", False),
        ("", False),
    ],
)
async def test_without_keys_only_names_of_this_machine_are_answered(
    make_api: Make, runtime: Runtime, host: str, answered: bool
) -> None:
    client = await make_api(runtime, own_host="my.host")
    for path in ("/v1/workflows", "/docs", "/livez"):
        status, body = await exchange(client, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert (status == 200) is answered
        assert (b"host-not-allowed" in body) is not answered


async def test_who_names_no_host_is_no_browser(make_api: Make, runtime: Runtime) -> None:
    client = await make_api(runtime, own_host="127.0.0.1")
    status, _ = await exchange(client, b"GET /livez HTTP/1.0\r\n\r\n")
    assert status == 200


async def test_every_answer_has_the_security_headers(client: Client) -> None:
    execution_id = await submit(client)
    for method, path in [
        ("GET", f"/v1/workflows/{execution_id}"),
        ("GET", "/v1/workflows/unknown"),
        ("GET", "/nothing/here"),
        ("PUT", SUBMIT),
        ("POST", SUBMIT),
        ("HEAD", "/livez"),
        ("DELETE", "/v1/keys/unknown"),
    ]:
        response = await client.request(method, path)
        assert {name: response.headers[name] for name in DEFAULT_HEADERS} == DEFAULT_HEADERS
        assert response.headers["Server"] == "workflow-engine"
