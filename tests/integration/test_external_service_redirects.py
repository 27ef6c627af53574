"""Where `call_external_service` lets itself be sent, and what it takes along."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from workflow_engine.plugins import PermanentError

Make = Callable[..., Awaitable[Any]]


@pytest.fixture
async def hops(make_server: Make) -> Any:
    """A server: `/hop/2` redirects to `/hop/1`, that to `/hop/0`, which says what arrived there.

    `?status=` chooses the redirects' status, `?to=` where `/hop/1` sends instead.
    """

    async def answer(request: web.Request) -> web.Response:
        left = int(request.path.rpartition("/")[2])
        if left:
            location = f"{left - 1}?{request.query_string}"
            if left == 1:
                location = request.query.get("to", location)
            return web.Response(status=int(request.query.get("status", "302")), headers={"Location": location})
        headers = {name.lower(): value for name, value in request.headers.items()}
        return web.json_response({"method": request.method, "headers": headers, "body": await request.text()})

    return await make_server(answer)


class TestFollowing:
    async def test_to_the_end(self, call_service: Make, hops: Any) -> None:
        output = await call_service(url=hops.make_url("/hop/3"))
        assert output["status_code"] == 200
        assert output["url"] == str(hops.make_url("/hop/0"))

    async def test_one_too_many(self, call_service: Make, hops: Any) -> None:
        with pytest.raises(PermanentError, match="once more after 3 redirects") as caught:
            await call_service(url=hops.make_url("/hop/4"))
        assert caught.value.error_type == "too_many_redirects"

    async def test_loop(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(status=307, headers={"Location": "/"})
        with pytest.raises(PermanentError) as caught:
            await call_service(url=server.make_url("/"), max_redirects=5)
        assert caught.value.error_type == "too_many_redirects"

    async def test_switched_off(self, call_service: Make, hops: Any) -> None:
        with pytest.raises(PermanentError) as caught:
            await call_service(url=hops.make_url("/hop/1"), max_redirects=0)
        assert caught.value.error_type == "http_302"

    async def test_expected_redirect_is_the_answer(self, call_service: Make, hops: Any) -> None:
        output = await call_service(url=hops.make_url("/hop/1"), expected_statuses=["3xx"])
        assert output["status_code"] == 302
        assert output["headers"]["location"] == "0?"

    async def test_redirect_to_nowhere(self, call_service: Make, make_server: Make) -> None:
        with pytest.raises(PermanentError) as caught:
            await call_service(url=(await make_server(status=302)).make_url("/"))
        assert caught.value.error_type == "http_302"

    @pytest.mark.parametrize("status", [301, 302, 303])
    async def test_post_becomes_get(self, call_service: Make, hops: Any, status: int) -> None:
        url = hops.make_url(f"/hop/1?status={status}")
        output = await call_service(url=url, method="POST", json=[1], headers={"X-Mine": "1"})
        arrived = output["response"]
        assert output["method"] == arrived["method"] == "GET"
        assert arrived["body"] == ""
        assert "content-type" not in arrived["headers"]
        assert "idempotency-key" not in arrived["headers"]
        assert arrived["headers"]["x-mine"] == "1"

    @pytest.mark.parametrize(("method", "status"), [("POST", 307), ("POST", 308), ("PUT", 302)])
    async def test_request_is_repeated(self, call_service: Make, hops: Any, method: str, status: int) -> None:
        url = hops.make_url(f"/hop/1?status={status}")
        arrived = (await call_service(url=url, method=method, json=[1]))["response"]
        assert arrived["method"] == method
        assert arrived["body"] == "[1]"
        assert arrived["headers"]["idempotency-key"] == "execution-1/fetch/2"


class TestAnotherServer:
    SECRETS = {"Authorization": "Bearer hidden", "Cookie": "a=hidden", "X-Api-Key": "hidden"}  # noqa: RUF012

    async def arrived(self, call_service: Make, hops: Any, target: Any) -> dict[str, str]:
        output = await call_service(
            url=hops.make_url("/hop/1").update_query(to=str(target), status="307"),
            method="POST",
            body="text",
            headers=self.SECRETS | {"Accept": "text/plain"},
        )
        headers: dict[str, str] = output["response"]["headers"]
        return headers

    async def test_same_server_sees_all_headers(self, call_service: Make, hops: Any) -> None:
        headers = await self.arrived(call_service, hops, "/hop/0")
        assert headers["authorization"] == "Bearer hidden"
        assert headers["cookie"] == "a=hidden"
        assert headers["x-api-key"] == "hidden"

    async def test_another_port_sees_no_secrets(self, call_service: Make, hops: Any, make_server: Make) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.json_response({"headers": {name.lower(): request.headers[name] for name in request.headers}})

        headers = await self.arrived(call_service, hops, (await make_server(answer)).make_url("/"))
        assert "hidden" not in str(headers)
        assert headers["accept"] == "text/plain"
        assert headers["content-type"] == "text/plain; charset=utf-8"
        assert headers["idempotency-key"] == "execution-1/fetch/2"

    async def test_another_host_sees_no_secrets(
        self, call_service: Make, hops: Any, host_addresses: dict[str, list[str]]
    ) -> None:
        host_addresses["other.test"] = ["127.0.0.1"]
        target = hops.make_url("/hop/0").with_host("other.test")
        headers = await self.arrived(call_service, hops, target)
        assert "hidden" not in str(headers)
        assert headers["host"].startswith("other.test:")

    async def test_credentials_in_the_location_are_not_used(self, call_service: Make, hops: Any) -> None:
        target = hops.make_url("/hop/0").with_user("me").with_password("secret")
        output = await call_service(url=hops.make_url("/hop/1").update_query(to=str(target)))
        assert "authorization" not in output["response"]["headers"]

    @pytest.mark.parametrize("location", ["ftp://127.0.0.1/", "file:///etc/passwd", "javascript:1", "http://["])
    async def test_what_is_no_web_address(self, call_service: Make, hops: Any, location: str) -> None:
        with pytest.raises(PermanentError) as caught:
            await call_service(url=hops.make_url("/hop/1").update_query(to=location))
        assert caught.value.error_type == "redirect_refused"

    @pytest.mark.parametrize(
        "location",
        ["http://169.254.169.254/latest/meta-data/", "http://[fe80::1]/", "//[::ffff:169.254.169.254]/"],
    )
    async def test_addresses_that_are_never_connected_to(self, call_service: Make, hops: Any, location: str) -> None:
        with pytest.raises(PermanentError, match="link-local address") as caught:
            await call_service(url=hops.make_url("/hop/1").update_query(to=location))
        assert caught.value.error_type == "address_refused"
