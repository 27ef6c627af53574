"""Requests and what becomes of them on a redirect."""

from __future__ import annotations

import pytest
from yarl import URL

from workflow_engine.handlers.http_request import Request, parse_url
from workflow_engine.plugins import PermanentError

HEADERS = {"Authorization": "secret", "Content-Type": "text/plain", "Accept": "*/*"}


def redirected(url: str, location: str, *, method: str = "GET", status: int = 302) -> Request:
    """Return what becomes of a request with `HEADERS`."""
    return Request(method, URL(url), HEADERS, b"body").redirected(status, location)


@pytest.mark.parametrize(
    ("method", "status", "after"),
    [
        ("GET", 301, "GET"),
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("PUT", 301, "PUT"),
        ("DELETE", 302, "DELETE"),
        ("PUT", 303, "GET"),
        ("POST", 303, "GET"),
        ("HEAD", 303, "HEAD"),
        ("POST", 307, "POST"),
        ("POST", 308, "POST"),
    ],
)
def test_method_and_body(method: str, status: int, after: str) -> None:
    request = redirected("http://a/", "/b", method=method, status=status)
    assert request.method == after
    assert (request.body is None) == (method != after)


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/c?y=2#part", "http://a/c?y=2"),
        ("c", "http://a/b/c"),
        ("?y", "http://a/b/x?y"),
        ("//d/", "http://d/"),
        ("https://a/", "https://a/"),
        ("http://me:secret@a/", "http://a/"),
    ],
)
def test_target(location: str, target: str) -> None:
    assert redirected("http://a/b/x?q=1", location).url == URL(target)


@pytest.mark.parametrize(
    ("url", "location", "kept"),
    [
        ("http://a/", "/b", True),
        ("http://a/", "http://A:80/", True),
        ("http://a/", "https://a/", True),
        ("http://a:8080/", "https://a/", False),
        ("http://a/", "https://a:8443/", False),
        ("http://a/", "http://a:81/", False),
        ("http://a/", "http://b.a/", False),
        ("http://a/", "https://b/", False),
    ],
)
def test_secrets_stay_with_their_server(url: str, location: str, kept: bool) -> None:
    request = redirected(url, location)
    assert ("Authorization" in request.headers) is kept
    assert request.headers["Accept"] == "*/*"


@pytest.mark.parametrize("location", ["http://a/", "http://b/", "ftp://a/", "http://[", "http:", "http://a:99999/"])
def test_refused_targets(location: str) -> None:
    with pytest.raises(PermanentError, match=r"GET https://a/ redirects") as caught:
        redirected("https://a/?token=secret", location)
    assert caught.value.error_type == "redirect_refused"


@pytest.mark.parametrize(
    "url",
    [
        "http://a",
        "HTTPS://a.b:8443/c?d#e",
        "http://[::1]:80/",
        "http://under_score/",
        "http://bücher.example/",
    ],
)
def test_urls(url: str) -> None:
    assert parse_url(url).scheme in ("http", "https")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must be an absolute"),
        ("/path", "must be an absolute"),
        ("//a/", "must be an absolute"),
        ("ftp://a/", "must be an absolute"),
        ("file:///etc/passwd", "must be an absolute"),
        ("unix:///run/socket", "must be an absolute"),
        ("http://", "must be an absolute"),
        ("http://a b/", "must be an absolute"),
        ("http://me:secret@a/", "must not hold a user name"),
        ("http://me@a/", "must not hold a user name"),
        ("http://a:99999/", "Port out of range"),
        ("http://[::1/", "Invalid IPv6 URL"),
    ],
)
def test_what_is_no_url(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)
