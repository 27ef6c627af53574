"""REDIS_URL, POSTGRES_URL and LLM_BASE_URL: what is taken, what is refused, and that no password is shown."""

from __future__ import annotations

import string
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from workflow_engine.config import SettingsError, load_settings
from workflow_engine.config.addresses import mask_url, postgres_parts, redis_parts

pytestmark = pytest.mark.usefixtures("clean_environment")

HOSTS = st.sampled_from(["redis", "db.example.com", "10.0.0.1", "[::1]"])
PORTS = st.integers(1, 65_535)
SECRETS = st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable())


@given(host=HOSTS, port=PORTS, database=st.integers(0, 1_000_000 - 1), password=SECRETS, tls=st.booleans())
def test_a_redis_url_says_what_its_parts_say(host: str, port: int, database: int, password: str, tls: bool) -> None:
    url = f"{'rediss' if tls else 'redis'}://:{quote(password, safe='')}@{host}:{port}/{database}"
    assert redis_parts(url) == {
        "redis_host": host.strip("[]"),
        "redis_port": port,
        "redis_password": SecretStr(password),
        "redis_db": database,
    }


@given(host=HOSTS, port=PORTS, user=SECRETS, password=SECRETS, database=SECRETS)
def test_a_postgres_url_says_what_its_parts_say(host: str, port: int, user: str, password: str, database: str) -> None:
    user_information = f"{quote(user, safe='')}:{quote(password, safe='')}"
    url = f"postgresql://{user_information}@{host}:{port}/{quote(database, safe='')}?sslmode=verify-full"
    assert postgres_parts(url) == {
        "postgres_host": host.strip("[]"),
        "postgres_port": port,
        "postgres_user": user,
        "postgres_password": SecretStr(password),
        "postgres_database": database,
    }


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://redis", {"redis_host": "redis"}),
        ("redis://redis/", {"redis_host": "redis"}),
        ("rediss://user@redis:7000?ssl_ca_certs=/ca.pem", {"redis_host": "redis", "redis_port": 7000}),
        ("REDIS://redis/5", {"redis_host": "redis", "redis_db": 5}),
    ],
)
def test_what_a_redis_url_leaves_out_it_does_not_say(url: str, parts: dict[str, Any]) -> None:
    assert redis_parts(url) == parts


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("postgres://db", {"postgres_host": "db"}),
        ("postgresql://db/flows", {"postgres_host": "db", "postgres_database": "flows"}),
        (
            "postgresql:///flows?host=/run/postgresql",
            {"postgres_host": "/run/postgresql", "postgres_database": "flows"},
        ),
        (
            "postgresql://ann@db:1?application_name=x",
            {"postgres_host": "db", "postgres_port": 1, "postgres_user": "ann"},
        ),
    ],
)
def test_what_a_postgres_url_leaves_out_it_does_not_say(url: str, parts: dict[str, Any]) -> None:
    assert postgres_parts(url) == parts


BAD = [
    ("REDIS_URL", "http://:canary@redis", "it does not begin with redis:// or rediss://"),
    ("REDIS_URL", "redis:canary", "it does not begin with redis:// or rediss://"),
    ("REDIS_URL", "canary", "it does not begin with redis:// or rediss://"),
    ("REDIS_URL", "redis://:canary@/1", "it names no host"),
    ("REDIS_URL", "redis://:canary@redis:port", "its port is no number from 1 to 65535"),
    ("REDIS_URL", "redis://:canary@redis:65536", "its port is no number from 1 to 65535"),
    ("REDIS_URL", "redis://:canary@redis:0", "its port is 0"),
    ("REDIS_URL", "redis://:can/ary@redis", "its port is no number from 1 to 65535 (in a password, write @ as %40"),
    ("REDIS_URL", "redis://:canary@redis/first", "behind the host stands what is no number of a database"),
    ("REDIS_URL", "redis://:canary@redis/1#2", "it has a part behind a #"),
    ("REDIS_URL", "redis://:canary@a,b:1", "it names several hosts"),
    ("REDIS_URL", "rediss://:canary@redis?socket_timeout=1", "it has an unknown parameter"),
    ("REDIS_URL", "redis://:canary@redis?ssl_ca_certs=x", "ssl_ca_certs needs rediss://"),
    ("REDIS_URL", "redis://:canary@[redis", "its host cannot be one"),
    ("REDIS_URL", "redis://:canary@\u2100.example", "its host cannot be one"),
    ("POSTGRES_URL", "mysql://u:canary@db/flows", "it does not begin with postgresql:// or postgres://"),
    ("POSTGRES_URL", "postgresql://u:canary@db?sslmode=yes", "its sslmode is none of disable, allow, prefer, require"),
    ("POSTGRES_URL", "postgresql://u@db?password=canary", "its password belongs in front of the question mark"),
    ("POSTGRES_URL", "postgresql://u:canary@db?dbname=x", "its dbname belongs in front of the question mark"),
    ("POSTGRES_URL", "postgresql://u:canary@db:99999", "its port is no number from 1 to 65535"),
    ("LLM_BASE_URL", "ftp://u:canary@llm", "it does not begin with http:// or https://"),
    ("LLM_BASE_URL", "http://u:canary@/v1", "it names no host"),
]


@pytest.mark.parametrize(("name", "url", "problem"), BAD)
def test_a_url_that_cannot_be_one_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str, problem: str
) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"{name}: must be ")
    assert problem in line
    assert "canary" not in line
    assert "ary" not in line.replace("library", "")


def test_a_url_stands_for_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "rediss://:p%40ss@cache:7000/3")
    monkeypatch.setenv("POSTGRES_URL", "postgresql://ann@db/flows")
    monkeypatch.setenv("POSTGRES_PASSWORD", "from elsewhere")
    settings = load_settings()
    assert (settings.redis_host, settings.redis_port, settings.redis_db) == ("cache", 7000, 3)
    assert settings.redis_password == SecretStr("p@ss")
    assert (settings.postgres_user, settings.postgres_host, settings.postgres_port) == ("ann", "db", 5432)
    assert settings.postgres_password.get_secret_value() == "from elsewhere"


@pytest.mark.parametrize(
    ("url_name", "url", "part", "value"),
    [
        ("REDIS_URL", "redis://a", "REDIS_HOST", "b"),
        ("REDIS_URL", "redis://a:1", "REDIS_PORT", "2"),
        ("REDIS_URL", "redis://a/1", "REDIS_DB", "0"),
        ("REDIS_URL", "redis://:x@a", "REDIS_PASSWORD", "canary"),
        ("POSTGRES_URL", "postgresql://a", "POSTGRES_HOST", "b"),
        ("POSTGRES_URL", "postgresql://a:1", "POSTGRES_PORT", "2"),
        ("POSTGRES_URL", "postgresql://ann@a", "POSTGRES_USER", "bob"),
        ("POSTGRES_URL", "postgresql://ann:x@a", "POSTGRES_PASSWORD", "canary"),
        ("POSTGRES_URL", "postgresql://a/x", "POSTGRES_DATABASE", "y"),
    ],
)
def test_a_url_and_a_part_that_contradict_each_other_are_refused(
    monkeypatch: pytest.MonkeyPatch, url_name: str, url: str, part: str, value: str
) -> None:
    monkeypatch.setenv(url_name, url)
    monkeypatch.setenv(part, value)
    with pytest.raises(SettingsError, match=f"^{part}: contradicts {url_name}; set only one of the two$"):
        load_settings()


def test_a_part_that_says_the_same_as_the_url_is_let_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://:x@a:1/2")
    for name, text in {"HOST": "a", "PORT": "1", "DB": "2", "PASSWORD": "x"}.items():
        monkeypatch.setenv(f"REDIS_{name}", text)
    assert load_settings().redis_host == "a"


@pytest.mark.parametrize("name", ["REDIS_URL", "POSTGRES_URL", "LLM_BASE_URL", "REDIS_PASSWORD", "LLM_API_KEY"])
def test_what_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")
    assert getattr(load_settings(), name.lower()) is None


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://redis:1/2", "redis://redis:1/2"),
        ("redis://:canary@redis", "redis://********@redis"),
        ("redis://:can/a@ry@redis", "redis://********@redis"),
        ("http://llm/v1?api_key=canary&model=x", "http://llm/v1?api_key=********&model=x"),
        ("postgresql:///x?a=b&sslpassword=canary", "postgresql:///x?a=b&sslpassword=********"),
    ],
)
def test_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@given(password=st.text(string.ascii_letters + "@/:?#&=%", max_size=20), tail=st.sampled_from(["", "/1", ":1/2?a=b"]))
def test_no_password_shows_through_the_mask(password: str, tail: str) -> None:
    assert "canary" not in mask_url(f"redis://user:canary{password}@host{tail}")
