"""The pages of the API: what was taken from elsewhere is what VENDORED says, and nothing is fetched from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from workflow_engine.runtime.api.docs_routes import PAGE_POLICY

STATIC = Path(__file__).parents[2] / "runtime" / "api" / "static"
OWN = {"docs.html", "docs.js", "redoc.html", "redoc.js", "VENDORED"}
VENDORED = [
    tuple(part.strip() for part in line.split("|"))
    for line in (STATIC / "VENDORED").read_text("utf-8").splitlines()
    if line and not line.startswith("#")
]
ADDRESS = re.compile(r"(?:https?|wss?):|[\"'(=]\s*//")


@pytest.mark.parametrize(("name", "package", "origin", "licence", "digest"), VENDORED, ids=lambda value: value[:30])
def test_a_vendored_file_is_the_one_that_was_taken(
    name: str, package: str, origin: str, licence: str, digest: str
) -> None:
    content = (STATIC / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    assert hashlib.sha256(content).hexdigest() == digest
    assert package in {"swagger-ui-dist 5.35.0", "redoc 2.5.4"}
    assert origin.startswith("package/")
    assert licence in {"Apache-2.0", "MIT"}


def test_every_file_is_ours_or_named() -> None:
    files = {file.relative_to(STATIC).as_posix() for file in STATIC.rglob("*") if file.is_file()}
    assert files == OWN | {name for name, *_ in VENDORED}


@pytest.mark.parametrize("name", sorted(OWN - {"VENDORED"}))
def test_our_pages_name_no_outside_address(name: str) -> None:
    assert ADDRESS.findall((STATIC / name).read_text("utf-8")) == []


@pytest.mark.parametrize("text", ['src="//cdn.test/x.js"', "href='https://a.test'", "url(//a.test)", "'wss://a'"])
def test_an_outside_address_would_be_found(text: str) -> None:
    assert ADDRESS.search(text)


def test_the_pages_may_ask_this_server_only() -> None:
    policy = dict(part.split(" ", 1) for part in PAGE_POLICY.split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == "'self'"
    allowed = {word for sources in policy.values() for word in sources.split()}
    assert allowed <= {"'none'", "'self'", "'unsafe-inline'", "data:", "blob:"}


def test_swagger_ui_asks_no_validator() -> None:
    assert "validatorUrl: null" in (STATIC / "docs.js").read_text("utf-8")
