"""The command line's HTTP client: what it sends again, and what it says when there is no good answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from workflow_engine.runtime.cli.errors import CommandError
from workflow_engine.runtime.cli.http_client import Connection, HttpClient
from workflow_engine.runtime.clock import SystemClock


def answer(status: int, body: bytes, *headers: bytes) -> bytes:
    """An HTTP response."""
    lines = [b"HTTP/1.1 %d x" % status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


OK = answer(200, b'{"ok": true}')
BUSY = answer(503, b'{"title": "Busy", "detail": "not now"}', b"Retry-After: 3")
LOST = b""


class Server(NamedTuple):
    """A server that gives the same answers to whoever comes, one after the other."""

    url: str
    requests: list[bytes]


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """`serve([answer, answer])`: each connection gets the next answer; without any it is closed at once."""
    with ExitStack() as stack:

        def start(answers: Sequence[bytes]) -> Server:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            requests: list[bytes] = []

            def run() -> None:
                for each in answers:
                    connection, _ = listener.accept()
                    with connection, connection.makefile("rb") as lines:
                        requests.append(b"".join(iter(lines.readline, b"\r\n")))
                        connection.sendall(each)
                listener.close()

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            stack.callback(thread.join, 5)
            return Server(f"http://127.0.0.1:{listener.getsockname()[1]}", requests)

        yield start


class Client(NamedTuple):
    """A client and the pauses that it made, in seconds."""

    http: HttpClient
    pauses: list[float]


@pytest.fixture
def connect() -> Callable[..., Client]:
    """`connect(url)`: a client that makes no pauses, but notes them."""

    def make(url: str, api_key: str | None = None) -> Client:
        pauses: list[float] = []
        return Client(HttpClient(Connection(url, api_key, SystemClock(), pauses.append)), pauses)

    return make


def header(request: bytes, name: str) -> str | None:
    """A header of a request."""
    for line in request.decode().splitlines():
        if line.lower().startswith(name.lower() + ":"):
            return line.partition(":")[2].strip()
    return None


def test_what_creates_is_sent_again_under_the_same_key(serve: Any, connect: Any) -> None:
    server = serve([LOST, BUSY, OK])
    client = connect(server.url)
    assert client.http.post("/v1/workflow", {"name": "x"}, creates=True) == {"ok": True}
    keys = {header(request, "Idempotency-Key") for request in server.requests}
    assert len(server.requests) == 3
    assert len(keys) == 1
    assert None not in keys


def test_each_command_has_a_key_of_its_own(serve: Any, connect: Any) -> None:
    server = serve([OK, OK])
    client = connect(server.url)
    for _ in range(2):
        client.http.post("/v1/workflow", {}, creates=True)
    assert len({header(request, "Idempotency-Key") for request in server.requests}) == 2


def test_the_pauses_grow_and_are_as_long_as_the_server_says(serve: Any, connect: Any) -> None:
    server = serve([LOST, LOST, BUSY, OK])
    client = connect(server.url)
    client.http.get("/x")
    first, second, third = client.pauses
    assert 0.1 <= first <= 0.2 <= second <= 0.4
    assert third == 3


def test_it_gives_up(serve: Any, connect: Any) -> None:
    client = connect(serve([BUSY] * 5).url)
    with pytest.raises(CommandError, match=r"^Busy: not now$") as raised:
        client.http.get("/x")
    assert raised.value.code == 3


def test_a_connection_that_is_always_lost(serve: Any, connect: Any) -> None:
    server = serve([LOST] * 5)
    with pytest.raises(CommandError, match="the connection was lost before the answer") as raised:
        connect(server.url).http.get("/x")
    assert raised.value.code == 3
    assert len(server.requests) == 5


def test_what_must_not_be_done_twice_is_sent_once(serve: Any, connect: Any) -> None:
    server = serve([LOST])
    client = connect(server.url)
    with pytest.raises(CommandError, match="the connection was lost"):
        client.http.send_once("POST", "/v1/keys", {})
    assert (len(server.requests), client.pauses) == (1, [])


def test_a_server_that_is_not_there(connect: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    client = connect(url)
    with pytest.raises(CommandError, match=r"there is no server at .*Is it running.*workflow-engine serve") as raised:
        client.http.get("/x")
    assert (raised.value.code, client.pauses) == (3, [])


def test_a_server_that_goes_away_is_waited_for(serve: Any, connect: Any) -> None:
    client = connect(serve([BUSY]).url)
    with pytest.raises(CommandError) as raised:
        client.http.get("/x")
    assert (raised.value.code, len(client.pauses)) == (3, 4)


def test_the_key_is_sent(serve: Any, connect: Any) -> None:
    server = serve([OK])
    connect(server.url, "wfe_secret").http.get("/x", {"state": ["A", "B"]})
    assert header(server.requests[0], "Authorization") == "Bearer wfe_secret"
    assert server.requests[0].startswith(b"GET /x?state=A&state=B HTTP/1.1\r\n")


def test_a_prefix_of_the_address_is_kept(serve: Any, connect: Any) -> None:
    server = serve([OK])
    connect(server.url + "/engine/").http.get("/v1/health")
    assert server.requests[0].startswith(b"GET /engine/v1/health ")


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"no": "problem"}', b'{"title": 1}'])
def test_what_answers_is_something_else(serve: Any, connect: Any, body: bytes) -> None:
    with pytest.raises(CommandError, match=r"is no workflow engine.*\(HTTP 404\)") as raised:
        connect(serve([answer(404, body)]).url).http.get("/x")
    assert raised.value.code == 3


@pytest.mark.parametrize("body", [b"[]", b"1", b"{}", b"<html>", b"[" * 100_000])
def test_an_answer_without_what_an_engine_would_say(serve: Any, connect: Any, body: bytes) -> None:
    client = connect(serve([answer(200, body)]).url)
    with pytest.raises(CommandError, match="is no workflow engine") as raised:
        client.http.get("/v1/workflows/x")["state"]
    assert raised.value.code == 3


def test_an_answer_without_content(serve: Any, connect: Any) -> None:
    server = serve([b"HTTP/1.1 204 No Content\r\n\r\n"])
    assert connect(server.url).http.send_once("DELETE", "/v1/keys/x") is None


@pytest.mark.parametrize(
    ("status", "code"), [(400, 2), (401, 2), (403, 2), (404, 2), (409, 2), (422, 2), (500, 1), (504, 3)]
)
def test_a_problem_document(serve: Any, connect: Any, status: int, code: int) -> None:
    problem = {"title": "A\x1b title", "detail": "why", "errors": [{"path": "a.b", "message": "bad\n\x9b1m"}]}
    with pytest.raises(CommandError) as raised:
        connect(serve([answer(status, json.dumps(problem).encode())]).url).http.get("/x")
    assert raised.value.code == code
    assert str(raised.value).startswith("A\\x1b title: why")
    assert ("--api-key-file" in str(raised.value)) == (status in (401, 403))
    assert [(each.path, each.message) for each in raised.value.problems] == [("a.b", "bad\\n\\x9b1m")]


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:0",
        "http://[::1",
        "http://a b",
        "http://a\r\nb",
        "http://user:secret@host",
        "http://host/?a=b",
    ],
)
def test_an_address_that_is_none(connect: Any, url: str) -> None:
    with pytest.raises(CommandError) as raised:
        connect(url)
    assert raised.value.code == 2
    assert "secret" not in str(raised.value)
