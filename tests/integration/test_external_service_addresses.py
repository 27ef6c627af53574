"""Which addresses `call_external_service` connects to, however a URL spells them."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from workflow_engine.plugins import NodeContext, PermanentError
from workflow_engine.runtime.worker import egress
from workflow_engine.runtime.worker.egress import AddressRefused, create_session

Make = Callable[..., Awaitable[Any]]
Names = dict[str, list[str]]


@pytest.fixture
async def port(make_server: Make) -> int:
    """The port of a server on 127.0.0.1 that would give its secret to anyone."""
    server: TestServer = await make_server(text="secret")
    assert server.port is not None
    return server.port


LOOPBACK_HOSTS = [
    "127.0.0.1",
    "localhost",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "0x7f000001",
    "①②⑦.⓪.⓪.①",
]


class TestPrivateAddressesForbidden:
    @pytest.mark.parametrize("host", [*LOOPBACK_HOSTS, "[::1]", "10.0.0.1", "[fd00::1]", "100.64.0.1"])
    async def test_refused(self, call_service: Make, port: int, host: str) -> None:
        with pytest.raises(PermanentError, match="HTTP_ALLOW_PRIVATE") as caught:
            await call_service(url=f"http://{host}:{port}/", allow_private=False)
        assert caught.value.error_type == "address_refused"

    async def test_message_names_the_address_and_the_name(self, call_service: Make, host_addresses: Names) -> None:
        host_addresses["intern.test"] = ["10.1.2.3"]
        with pytest.raises(PermanentError, match=r"10\.1\.2\.3 \(intern\.test\)"):
            await call_service(url="http://intern.test/", allow_private=False)

    async def test_name_with_many_addresses(self, call_service: Make, host_addresses: Names) -> None:
        host_addresses["many.test"] = ["127.0.0.1", "::1", "10.0.0.1"]
        with pytest.raises(PermanentError) as caught:
            await call_service(url="http://many.test/", allow_private=False)
        assert caught.value.error_type == "address_refused"


class TestPrivateAddressesAllowed:
    @pytest.mark.parametrize("host", LOOPBACK_HOSTS)
    async def test_connected(self, call_service: Make, port: int, host: str) -> None:
        assert (await call_service(url=f"http://{host}:{port}/"))["response"] == "secret"


@pytest.mark.parametrize("allow_private", [True, False])
class TestNeverConnected:
    @pytest.mark.parametrize(
        "host",
        [
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::169.254.169.254]",
            "[2002:a9fe:a9fe::]",
            "[fe80::1]",
            "[fe80::1%25lo]",
            "[fd00:ec2::254]",
            "[fd00:ec2::254%25lo]",
            "0.0.0.0",
            "[::]",
            "224.0.0.1",
            "[ff02::1]",
            "0xa9fea9fe",
        ],
    )
    async def test_refused(self, call_service: Make, host: str, allow_private: bool) -> None:
        with pytest.raises(PermanentError, match="are refused: ") as caught:
            await call_service(url=f"http://{host}/", allow_private=allow_private)
        assert caught.value.error_type == "address_refused"
        assert "HTTP_ALLOW_PRIVATE" not in str(caught.value)

    @pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "017700000001", "2852039166", "127.0.0.1."])
    async def test_numbers_that_are_no_canonical_address(
        self, call_service: Make, host: str, allow_private: bool
    ) -> None:
        with pytest.raises(PermanentError) as caught:
            await call_service(url=f"http://{host}/", allow_private=allow_private)
        assert caught.value.error_type in ("invalid_url", "address_refused")

    async def test_metadata_service_by_name(
        self, call_service: Make, host_addresses: Names, allow_private: bool
    ) -> None:
        host_addresses["metadata.test"] = ["169.254.169.254"]
        with pytest.raises(PermanentError) as caught:
            await call_service(url="http://metadata.test/", allow_private=allow_private)
        assert caught.value.error_type == "address_refused"


class TestChangingNames:
    async def test_every_connection_is_checked(
        self, call_service: Make, make_raw_server: Make, host_addresses: Names
    ) -> None:
        answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
        url = (await make_raw_server(answer)).replace("127.0.0.1", "rebind.test")
        host_addresses["rebind.test"] = ["127.0.0.1"]
        assert (await call_service(url=url))["response"] == "ok"
        host_addresses["rebind.test"] = ["169.254.169.254"]
        with pytest.raises(PermanentError) as caught:
            await call_service(url=url)
        assert caught.value.error_type == "address_refused"

    async def test_allowed_addresses_of_a_name_are_used(
        self, call_service: Make, port: int, host_addresses: Names
    ) -> None:
        host_addresses["mixed.test"] = ["169.254.169.254", "127.0.0.1"]
        assert (await call_service(url=f"http://mixed.test:{port}/"))["response"] == "secret"

    async def test_sockets_are_guarded_whatever_the_resolver_says(
        self, port: int, host_addresses: Names, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host_addresses["unchecked.test"] = ["127.0.0.1"]
        monkeypatch.setattr(egress, "_checked_resolver", lambda _allow_private: aiohttp.ThreadedResolver())
        async with create_session(allow_private=False) as session:
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await session.get(f"http://unchecked.test:{port}/")
        assert isinstance(caught.value.os_error, AddressRefused)


class TestSession:
    async def test_other_handlers_can_tell_a_refusal(self, make_context: Callable[..., NodeContext]) -> None:
        with pytest.raises(aiohttp.ClientConnectorError, match="are refused: a loopback address") as caught:
            await make_context(allow_private=False).http.get("http://127.0.0.1/")
        assert isinstance(caught.value.os_error, AddressRefused)
        assert caught.value.__cause__ is caught.value.os_error
        assert caught.value.os_error.address == "127.0.0.1"

    async def test_redirects_that_aiohttp_follows_are_checked(
        self, make_context: Callable[..., NodeContext], make_server: Make
    ) -> None:
        server = await make_server(status=302, headers={"Location": "http://169.254.169.254/"})
        with pytest.raises(aiohttp.ClientConnectorError, match="a link-local address"):
            await make_context().http.get(server.make_url("/"))

    async def test_name_without_an_address(
        self, make_context: Callable[..., NodeContext], host_addresses: Names
    ) -> None:
        host_addresses["empty.test"] = []
        with pytest.raises(aiohttp.ClientConnectorError, match=r"empty\.test has no address"):
            await make_context().http.get("http://empty.test/")

    async def test_attempts_set_the_timeout(self, make_context: Callable[..., NodeContext]) -> None:
        assert make_context().http.timeout.total is None
        assert not make_context().http.trust_env

    async def test_public_addresses_are_connected_to(
        self,
        make_context: Callable[..., NodeContext],
        host_addresses: Names,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        made: list[str] = []

        def create(*_arguments: Any) -> socket.socket:
            made.append("socket")
            raise OSError(errno.ENETUNREACH, "as far as it goes")

        host_addresses["public.test"] = ["8.8.8.8"]
        session = make_context(allow_private=False).http
        monkeypatch.setattr(socket, "socket", create)
        with pytest.raises(aiohttp.ClientConnectorError, match="as far as it goes"):
            await session.get("http://public.test/")
        assert made == ["socket"]
