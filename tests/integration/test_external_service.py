"""`call_external_service` against real servers on the loopback address."""

from __future__ import annotations

import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from workflow_engine.plugins import PermanentError

Make = Callable[..., Awaitable[Any]]


async def echo(request: web.Request) -> web.Response:
    """Answer with what was received."""
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": await request.text(),
        }
    )


class TestRequest:
    async def test_output_shape(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(echo)
        output = await call_service(url=server.make_url("/user?id=1"))
        assert set(output) == {"status_code", "url", "method", "headers", "response"}
        assert output["status_code"] == 200
        assert output["url"] == str(server.make_url("/user?id=1"))
        assert output["method"] == "GET"
        assert output["headers"]["content-type"] == "application/json; charset=utf-8"
        assert output["response"]["path"] == "/user?id=1"
        json.dumps(output, allow_nan=False).encode()

    async def test_method_headers_query_and_json(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(echo)
        output = await call_service(
            url=server.make_url("/a?x=1#part"),
            method="post",
            headers={"X-Number": 5, "x-flag": True},
            query={"q": "a b&c", "list": [1, "two"], "none": None, "flag": False},
            json={"ü": [None]},
        )
        received = output["response"]
        assert received["method"] == output["method"] == "POST"
        assert received["path"] == "/a?x=1&q=a+b%26c&list=1&list=two&flag=false"
        assert json.loads(received["body"]) == {"ü": [None]}
        assert received["headers"]["x-number"] == "5"
        assert received["headers"]["x-flag"] == "true"
        assert received["headers"]["content-type"] == "application/json"
        assert received["headers"]["user-agent"] == "workflow-engine"
        assert "part" not in output["url"]

    async def test_text_body(self, call_service: Make, make_server: Make) -> None:
        received = (await call_service(url=(await make_server(echo)).make_url("/"), method="PUT", body="grüß"))[
            "response"
        ]
        assert received["body"] == "grüß"
        assert received["headers"]["content-type"] == "text/plain; charset=utf-8"

    async def test_callers_content_type_stays(self, call_service: Make, make_server: Make) -> None:
        url = (await make_server(echo)).make_url("/")
        output = await call_service(url=url, method="PUT", body="<a/>", headers={"content-TYPE": "text/xml"})
        assert output["response"]["headers"]["content-type"] == "text/xml"

    async def test_json_null_is_a_body(self, call_service: Make, make_server: Make) -> None:
        output = await call_service(url=(await make_server(echo)).make_url("/"), method="POST", json=None)
        assert output["response"]["body"] == "null"

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])
    async def test_unsafe_methods_carry_the_idempotency_key(
        self, call_service: Make, make_server: Make, method: str
    ) -> None:
        output = await call_service(url=(await make_server(echo)).make_url("/"), method=method)
        assert output["response"]["headers"]["idempotency-key"] == "execution-1/fetch/2"

    @pytest.mark.parametrize("method", ["GET", "OPTIONS", "TRACE"])
    async def test_safe_methods_do_not(self, call_service: Make, make_server: Make, method: str) -> None:
        output = await call_service(url=(await make_server(echo)).make_url("/"), method=method)
        assert "idempotency-key" not in output["response"]["headers"]

    async def test_callers_idempotency_key_wins(self, call_service: Make, make_server: Make) -> None:
        url = (await make_server(echo)).make_url("/")
        output = await call_service(url=url, method="POST", headers={"idempotency-key": "mine"})
        assert output["response"]["headers"]["idempotency-key"] == "mine"

    async def test_cookies_are_not_kept(
        self, call_service: Make, make_server: Make, host_addresses: dict[str, list[str]]
    ) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.json_response(dict(request.cookies), headers={"Set-Cookie": "session=1"})

        host_addresses["cookies.test"] = ["127.0.0.1"]
        url = (await make_server(answer)).make_url("/").with_host("cookies.test")
        await call_service(url=url)
        assert (await call_service(url=url))["response"] == {}

    async def test_proxies_of_the_environment_are_not_used(
        self, call_service: Make, make_server: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        proxy = await make_server(text="proxied")
        monkeypatch.setenv("http_proxy", str(proxy.make_url("/")))
        monkeypatch.delenv("no_proxy", raising=False)
        output = await call_service(url=(await make_server(text="direct")).make_url("/"))
        assert output["response"] == "direct"


class TestAnswer:
    @pytest.mark.parametrize("media_type", ["application/json", "application/problem+json", "text/json"])
    async def test_json_types_are_parsed(self, call_service: Make, make_server: Make, media_type: str) -> None:
        server = await make_server(body=b'{"a": 1}', content_type=media_type)
        assert (await call_service(url=server.make_url("/")))["response"] == {"a": 1}

    async def test_other_types_are_text(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(body=b'{"a": 1}', content_type="text/plain")
        assert (await call_service(url=server.make_url("/")))["response"] == '{"a": 1}'

    async def test_bad_bytes_are_replaced(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(body=b"a\xffb", content_type="application/octet-stream")
        assert (await call_service(url=server.make_url("/")))["response"] == "a\ufffdb"

    async def test_charset_is_obeyed(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(body="grüß".encode("latin-1"), content_type="text/plain", charset="iso-8859-1")
        assert (await call_service(url=server.make_url("/")))["response"] == "grüß"

    @pytest.mark.parametrize("body", [b"{", b"NaN", b'{"a": -Infinity}', b"1e999", b"\xff", b"[" * 100_000])
    async def test_what_is_not_json_is_permanent(self, call_service: Make, make_server: Make, body: bytes) -> None:
        server = await make_server(body=body, content_type="application/json")
        with pytest.raises(PermanentError, match="not the JSON it claims to be") as caught:
            await call_service(url=server.make_url("/"))
        assert caught.value.error_type == "response_invalid_json"

    async def test_no_body(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(status=204)
        assert (await call_service(url=server.make_url("/")))["status_code"] == 204
        server = await make_server(body=b"[1]", content_type="application/json")
        output = await call_service(url=server.make_url("/"), method="HEAD")
        assert output["response"] is None
        assert output["headers"]["content-length"] == "3"

    async def test_repeated_and_odd_headers(self, call_service: Make, make_server: Make) -> None:
        async def answer(_request: web.Request) -> web.Response:
            response = web.Response()
            response.headers.add("X-Many", "a")
            response.headers.add("x-many", "b")
            response.headers["X-Odd"] = "caf\udce9"
            return response

        headers = (await call_service(url=(await make_server(answer)).make_url("/")))["headers"]
        assert headers["x-many"] == "a, b"
        json.dumps(headers, ensure_ascii=False).encode()

    async def test_size_limit(self, call_service: Make, make_server: Make) -> None:
        url = (await make_server(body=b"x" * 1000)).make_url("/")
        assert (await call_service(url=url, max_response_bytes=1000))["response"] == "x" * 1000
        with pytest.raises(PermanentError, match="more than 999 bytes") as caught:
            await call_service(url=url, max_response_bytes=999)
        assert caught.value.error_type == "response_too_large"

    async def test_default_size_limit(self, call_service: Make, make_server: Make) -> None:
        url = (await make_server(body=bytes(1_048_577))).make_url("/")
        with pytest.raises(PermanentError, match="more than 1048576 bytes"):
            await call_service(url=url)

    async def test_endless_answer(self, call_service: Make, make_server: Make) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            try:
                while True:
                    await response.write(bytes(65_536))
            except ConnectionResetError:
                return response

        with pytest.raises(PermanentError) as caught:
            await call_service(url=(await make_server(answer)).make_url("/"))
        assert caught.value.error_type == "response_too_large"

    async def test_decompression_bomb(self, call_service: Make, make_server: Make) -> None:
        bomb = gzip.compress(bytes(64 * 1_048_576))
        server = await make_server(body=bomb, headers={"Content-Encoding": "gzip"})
        with pytest.raises(PermanentError) as caught:
            await call_service(url=server.make_url("/"))
        assert caught.value.error_type == "response_too_large"

    async def test_compressed_answer(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(body=gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"})
        assert (await call_service(url=server.make_url("/")))["response"] == "hello"
