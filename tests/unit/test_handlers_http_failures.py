"""The one mapping from statuses, Retry-After and network failures to what an attempt reports."""

from __future__ import annotations

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from workflow_engine.handlers.http_failures import (
    RETRY_AFTER_SECONDS_MAX,
    network_failures,
    retry_after_seconds,
    status_failure,
)
from workflow_engine.plugins import PermanentError, RetryAfter

ANSWERED = "Sat, 29 Feb 2020 12:00:00 GMT"


def test_every_status_has_a_meaning() -> None:
    for status in range(100, 1000):
        failure = status_failure("GET http://a/", status, {"Retry-After": "5"}, "oh no")
        assert failure.error_type == f"http_{status}"
        assert str(failure) == f"GET http://a/ answered {status}: oh no"
        again = status in (408, 429) or 500 <= status <= 599
        assert isinstance(failure, RetryAfter if again else PermanentError)
        assert getattr(failure, "seconds", None) == (5.0 if again else None)


def test_message_without_a_body() -> None:
    assert str(status_failure("GET http://a/", 500, {}, "")) == "GET http://a/ answered 500"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 120 ", 120.0),
        ("+5", 5.0),
        ("1.5", 1.5),
        ("-1", 0.0),
        ("-0.5", 0.0),
        ("99999999", RETRY_AFTER_SECONDS_MAX),
        ("9" * 5_000, RETRY_AFTER_SECONDS_MAX),
        ("Sat, 29 Feb 2020 12:01:30 GMT", 90.0),
        ("Saturday, 29-Feb-20 12:01:30 GMT", 90.0),
        ("Sat Feb 29 12:01:30 2020", 90.0),
        ("Sat, 29 Feb 2020 13:01:30 +0100", 90.0),
        ("Sat, 29 Feb 2020 11:00:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_SECONDS_MAX),
    ],
)
def test_retry_after(text: str, seconds: float) -> None:
    assert retry_after_seconds(CIMultiDict({"retry-after": text, "date": ANSWERED})) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "1e3", "nan", "inf", "1_0", "٣", "5 s", "Sat, 32 Feb 2020 12:00:00 GMT", "Sat"],
)
def test_retry_after_that_says_nothing(text: str) -> None:
    assert retry_after_seconds({"Retry-After": text, "Date": ANSWERED}) is None


def test_no_retry_after() -> None:
    assert retry_after_seconds({}) is None


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}])
def test_retry_after_date_with_nothing_to_count_from(headers: dict[str, str]) -> None:
    assert retry_after_seconds({"Retry-After": ANSWERED} | headers) is None


@given(st.text(), st.text())
def test_retry_after_never_fails(text: str, date: str) -> None:
    seconds = retry_after_seconds({"Retry-After": text, "Date": date})
    assert seconds is None or 0.0 <= seconds <= RETRY_AFTER_SECONDS_MAX


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (TimeoutError(), "timeout"),
        (aiohttp.ConnectionTimeoutError("slow"), "timeout"),
        (aiohttp.SocketTimeoutError("slow"), "timeout"),
        (aiohttp.ServerDisconnectedError(), "network_error"),
        (aiohttp.ClientOSError(104, "Connection reset by peer"), "network_error"),
        (aiohttp.ClientPayloadError(), "network_error"),
    ],
)
def test_network_failures_are_tried_again(error: Exception, error_type: str) -> None:
    with pytest.raises(RetryAfter, match="GET http://a/") as caught, network_failures("GET http://a/"):
        raise error
    assert caught.value.error_type == error_type
    assert caught.value.seconds is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.InvalidURL("http://secret@"),
        aiohttp.NonHttpUrlClientError("ftp://secret"),
        UnicodeError("label too long"),
    ],
)
def test_invalid_urls_are_permanent_and_not_repeated(error: Exception) -> None:
    with pytest.raises(PermanentError) as caught, network_failures("GET http://a/"):
        raise error
    assert caught.value.error_type == "invalid_url"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("error", [PermanentError("p"), RetryAfter("r"), ZeroDivisionError()])
def test_other_exceptions_pass(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, network_failures("GET http://a/"):
        raise error
    assert caught.value is error
