"""How `call_external_service` reports statuses that were not expected and networks that fail."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from workflow_engine.plugins import PermanentError, RetryAfter

Make = Callable[..., Awaitable[Any]]


class TestStatuses:
    @pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
    async def test_tried_again(self, call_service: Make, make_server: Make, status: int) -> None:
        server = await make_server(status=status, text="later,\n please")
        with pytest.raises(RetryAfter, match=rf"GET http://.*/a answered {status}: later, please$") as caught:
            await call_service(url=server.make_url("/a?token=hidden"))
        assert caught.value.error_type == f"http_{status}"
        assert caught.value.seconds is None

    @pytest.mark.parametrize("status", [301, 304, 400, 401, 403, 404, 409, 422, 451])
    async def test_permanent(self, call_service: Make, make_server: Make, status: int) -> None:
        server = await make_server(status=status)
        with pytest.raises(PermanentError, match=f"answered {status}$") as caught:
            await call_service(url=server.make_url("/"))
        assert caught.value.error_type == f"http_{status}"

    async def test_long_explanation_is_cut(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(status=400, text="long " * 10_000)
        with pytest.raises(PermanentError) as caught:
            await call_service(url=server.make_url("/"))
        assert str(caught.value).endswith("...")
        assert len(str(caught.value)) < 300

    async def test_expected_statuses(self, call_service: Make, make_server: Make) -> None:
        url = (await make_server(status=404)).make_url("/")
        assert (await call_service(url=url, expected_statuses=[200, 404]))["status_code"] == 404
        assert (await call_service(url=url, expected_statuses=["4XX"]))["status_code"] == 404
        assert (await call_service(url=url, expected_statuses=["404"]))["status_code"] == 404

    async def test_success_may_be_unexpected(self, call_service: Make, make_server: Make) -> None:
        url = (await make_server(status=202)).make_url("/")
        with pytest.raises(PermanentError) as caught:
            await call_service(url=url, expected_statuses=[200])
        assert caught.value.error_type == "http_202"

    @pytest.mark.parametrize(
        ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("-3", 0.0), ("soon", None), ("999999999", 86_400.0)]
    )
    async def test_retry_after_in_seconds(
        self, call_service: Make, make_server: Make, header: str, seconds: float | None
    ) -> None:
        server = await make_server(status=503, headers={"Retry-After": header})
        with pytest.raises(RetryAfter) as caught:
            await call_service(url=server.make_url("/"))
        assert caught.value.seconds == seconds

    @pytest.mark.parametrize(("later_seconds", "expected"), [(90, 90.0), (-90, 0.0)])
    async def test_retry_after_as_a_date(
        self, call_service: Make, make_server: Make, later_seconds: int, expected: float
    ) -> None:
        now = datetime(2020, 2, 29, 12, tzinfo=UTC)
        headers = {
            "Date": format_datetime(now, usegmt=True),
            "Retry-After": format_datetime(now + timedelta(seconds=later_seconds), usegmt=True),
        }
        server = await make_server(status=429, headers=headers)
        with pytest.raises(RetryAfter) as caught:
            await call_service(url=server.make_url("/"))
        assert caught.value.seconds == expected


class TestNetworkFailures:
    async def test_nobody_listens(self, call_service: Make) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            with pytest.raises(RetryAfter, match=r"GET http://127\.0\.0\.1") as caught:
                await call_service(url=f"http://127.0.0.1:{port}/?token=hidden")
        assert caught.value.error_type == "network_error"
        assert "hidden" not in str(caught.value)

    async def test_unknown_name(self, call_service: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        def getaddrinfo(*_arguments: Any, **_options: Any) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        with pytest.raises(RetryAfter, match="Name or service not known") as caught:
            await call_service(url="http://nowhere.test/")
        assert caught.value.error_type == "network_error"

    async def test_impossible_name(self, call_service: Make) -> None:
        with pytest.raises(PermanentError) as caught:
            await call_service(url=f"http://{'a' * 64}.test/")
        assert caught.value.error_type == "invalid_url"

    async def test_connection_closed_without_an_answer(self, call_service: Make, make_server: Make) -> None:
        async def answer(request: web.Request) -> web.Response:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        with pytest.raises(RetryAfter) as caught:
            await call_service(url=(await make_server(answer)).make_url("/"))
        assert caught.value.error_type == "network_error"

    async def test_answer_breaks_off(self, call_service: Make, make_server: Make) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Length": "100"})
            await response.prepare(request)
            await response.write(b"half")
            assert request.transport is not None
            request.transport.abort()
            return response

        with pytest.raises(RetryAfter) as caught:
            await call_service(url=(await make_server(answer)).make_url("/"))
        assert caught.value.error_type == "network_error"

    async def test_wrong_compression(self, call_service: Make, make_server: Make) -> None:
        server = await make_server(body=b"not gzip", headers={"Content-Encoding": "gzip"})
        with pytest.raises(RetryAfter) as caught:
            await call_service(url=server.make_url("/?token=hidden"))
        assert caught.value.error_type == "network_error"
        assert "hidden" not in str(caught.value)

    async def test_an_answer_that_is_not_http(self, call_service: Make, make_raw_server: Make) -> None:
        url = await make_raw_server(b"SSH-2.0-server\r\n\r\n")
        with pytest.raises(RetryAfter) as caught:
            await call_service(url=f"{url}?token=hidden", headers={"Authorization": "Bearer hidden"})
        assert caught.value.error_type == "network_error"
        assert "hidden" not in str(caught.value)

    async def test_timeout(self, call_service: Make, make_raw_server: Make) -> None:
        url = await make_raw_server(b"")
        with pytest.raises(RetryAfter, match="did not answer in time") as caught:
            await call_service(url=url, timeout_seconds=0.05)
        assert caught.value.error_type == "timeout"
