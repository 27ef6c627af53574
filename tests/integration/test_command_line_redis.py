"""What `doctor` says of the Redis of a setup."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from commands import Done
from redis_server import RedisCluster, RedisServer

from workflow_engine.config import load_settings
from workflow_engine.runtime.cli.checks.redis import check_server

RunCommand = Callable[..., Done]


def examine(**settings: Any) -> list[tuple[str, str]]:
    """The level and the message of each finding."""
    findings = list(check_server(load_settings({"backend": "distributed", **settings})))
    assert {finding.check for finding in findings} <= {"redis"}
    return [(finding.level, finding.message) for finding in findings]


def at(port: int) -> dict[str, Any]:
    """The settings of a Redis there."""
    return {"redis_host": "127.0.0.1", "redis_port": port}


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """`start_redis({"requirepass": "x"})`: a server of the test's own."""
    started: list[RedisServer] = []

    def start(settings: dict[str, str]) -> RedisServer:
        server = RedisServer(settings)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.close()


def test_a_redis_that_is_well(redis_server: RedisServer) -> None:
    [(level, message)] = examine(**at(redis_server.port))
    assert level == "ok"
    assert message.startswith("Valkey ")
    assert message.endswith(f" at 127.0.0.1:{redis_server.port}/0, which evicts nothing")


def test_the_redis_of_a_url_and_of_the_system(system_redis_server: RedisServer) -> None:
    [(level, message)] = examine(redis_url=f"redis://127.0.0.1:{system_redis_server.port}/3")
    assert level == "ok"
    assert message.startswith("Redis ")
    assert f":{system_redis_server.port}/3," in message


def test_a_cluster(redis_cluster: RedisCluster) -> None:
    [(level, message)] = examine(**at(redis_cluster.address.port), redis_cluster=True)
    assert (level, message.split()[0]) == ("ok", "Valkey")


def test_a_redis_that_is_not_there() -> None:
    [(level, message)] = examine(**at(1))
    assert level == "error"
    assert message.startswith("no connection to Redis at 127.0.0.1:1/0: ")


def test_a_redis_that_evicts(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis({"maxmemory-policy": "allkeys-lru"})
    for environment, expected in (("dev", "warning"), ("prod", "error")):
        [(level, message)] = examine(**at(server.port), environment=environment)
        assert level == expected
        assert "its maxmemory-policy is allkeys-lru. Set it to noeviction" in message


def test_a_redis_that_wants_a_password(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis({"requirepass": "open-sesame"})
    url = f"redis://127.0.0.1:{server.port}/0"
    [(level, message)] = examine(**at(server.port))
    assert (level, "NOAUTH" in message or "Authentication required" in message) == ("error", True)
    [(level, message)] = examine(**at(server.port), redis_password="wrong-sesame")
    assert level == "error"
    assert "wrong-sesame" not in message
    assert examine(**at(server.port), redis_password="open-sesame")[0][0] == "ok"
    assert examine(redis_url=url, redis_password="open-sesame")[0][0] == "ok", "the URL leaves it out"


def test_a_user_that_may_not_ask(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis({})
    server.ask("ACL", "SETUSER", "default", "-info")
    [(level, message)] = examine(**at(server.port))
    assert (level, message) == (
        "warning",
        f"Redis at 127.0.0.1:{server.port}/0 answers, but may not be asked what it is",
    )


@pytest.mark.parametrize("backend", ["embedded", "postgres"])
def test_backends_without_redis(backend: str) -> None:
    assert examine(backend=backend) == []


def test_doctor_asks_for_it(
    run_command: RunCommand, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("BACKEND", "distributed"),
        ("REDIS_HOST", "127.0.0.1"),
        ("REDIS_PORT", str(redis_server.port)),
        ("POSTGRES_HOST", "127.0.0.1"),
        ("POSTGRES_PORT", "1"),
    ):
        monkeypatch.setenv(name, value)
    done = run_command("doctor", "--json", "--port", "0")
    [found] = [each for each in done.document["findings"] if each["check"] == "redis"]
    assert found["level"] == "ok"
    monkeypatch.setenv("REDIS_PORT", "1")
    done = run_command("doctor", "--json", "--port", "0")
    [found] = [each for each in done.document["findings"] if each["check"] == "redis"]
    assert (found["level"], found["remedy"].split()[0]) == ("error", "Start")
    assert "Redis" not in done.errors, "said once"
