"""What may stand in the configuration of `call_external_service`, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from workflow_engine.handlers.external_service import build_request
from workflow_engine.handlers.external_service_config import ExternalServiceConfig
from workflow_engine.plugins import PermanentError

URL = "http://api.example.com/user"


def config(**fields: Any) -> ExternalServiceConfig:
    return ExternalServiceConfig.model_validate({"url": URL} | fields)


def test_defaults() -> None:
    defaults = config()
    assert defaults.method == "GET"
    assert defaults.expected_statuses == ["2xx"]
    assert defaults.timeout_seconds is None
    assert defaults.max_response_bytes == 1_048_576
    assert defaults.max_redirects == 3
    assert not defaults.sends_json


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": "api.example.com"}, "must be an absolute http:// or https:// URL"),
        ({"url": "ftp://a/"}, "must be an absolute http:// or https:// URL"),
        ({"url": "http://me:secret@a/"}, "must not hold a user name or password"),
        ({"url": "http://a/" + "b" * 8_192}, "at most 8192 characters"),
        ({"url": None}, "valid string"),
        ({"method": "CONNECT"}, "'CONNECT' is not a method that can be sent"),
        ({"method": "GET /\r\n"}, "is not a method that can be sent"),
        ({"method": ""}, "is not a method that can be sent"),
        ({"headers": {"": "a"}}, "'' is not a header name"),
        ({"headers": {"a b": "c"}}, "'a b' is not a header name"),
        ({"headers": {"A": "b\r\nC: d"}}, "'A' holds a character that cannot be sent"),
        ({"headers": {"A": "\ud800"}}, "'A' holds a character that cannot be sent"),
        ({"headers": {"A": "1", "a": "2"}}, "'a' is given twice"),
        ({"headers": {"Content-Length": 5}}, "'Content-Length' is set by the HTTP client itself"),
        ({"headers": {"transfer-encoding": "chunked"}}, "set by the HTTP client itself"),
        ({"headers": {"A": None}}, "headers.A"),
        ({"headers": {"A": ["b"]}}, "headers.A"),
        ({"query": {"a": {"b": "c"}}}, "query.a"),
        ({"json": 1, "body": "a"}, "give 'json' or 'body', not both"),
        ({"json": None, "body": "a"}, "give 'json' or 'body', not both"),
        ({"body": {"a": 1}}, "valid string"),
        ({"timeout_seconds": 0}, "greater than 0"),
        ({"timeout_seconds": "inf"}, "finite number"),
        ({"expected_statuses": []}, "at least 1 item"),
        ({"expected_statuses": [99]}, "greater than or equal to 100"),
        ({"expected_statuses": [600]}, "less than or equal to 599"),
        ({"expected_statuses": ["6xx"]}, "should match pattern"),
        ({"expected_statuses": ["2xx\n"]}, "should match pattern"),
        ({"expected_statuses": "2xx"}, "valid list"),
        ({"max_response_bytes": 0}, "greater than or equal to 1"),
        ({"max_response_bytes": 4_194_305}, "less than or equal to 4194304"),
        ({"max_redirects": -1}, "greater than or equal to 0"),
        ({"max_redirects": 6}, "less than or equal to 5"),
        ({"json_body": 1}, "Extra inputs are not permitted"),
        ({"mehtod": "GET"}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("expected", "status", "answer"),
    [
        (["2xx"], 200, True),
        (["2xx"], 299, True),
        (["2XX"], 204, True),
        (["2xx"], 300, False),
        ([200, 404], 404, True),
        ([200], 204, False),
        (["200"], 200, True),
        (["2xx", 404], 404, True),
        (["4xx"], 200, False),
    ],
)
def test_expected_statuses(expected: list[Any], status: int, answer: bool) -> None:
    assert config(expected_statuses=expected).expects(status) is answer


def test_method_in_any_case() -> None:
    assert config(method="pAtch").method == "PATCH"


def test_json_of_any_kind_is_given() -> None:
    values: list[Any] = [None, 0, False, "", [], {}]
    for value in values:
        assert config(json=value).sends_json


def test_schema_names_the_fields_as_users_write_them() -> None:
    schema = ExternalServiceConfig.model_json_schema()
    assert "json" in schema["properties"]
    assert schema["required"] == ["url"]
    assert schema["additionalProperties"] is False
    assert all("description" in field for field in schema["properties"].values())


@pytest.mark.parametrize("fields", [{"json": float("nan")}, {"json": "\ud800"}])
def test_bodies_that_cannot_be_encoded(fields: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="cannot be encoded") as caught:
        build_request(config(method="POST", **fields), "key")
    assert caught.value.error_type == "invalid_request"


def test_request_names_itself_without_its_query() -> None:
    request = build_request(config(url="https://a:8443/b?token=1#c", query={"key": 2}), "key")
    assert str(request) == "GET https://a:8443/b"
    assert str(request.url) == "https://a:8443/b?token=1&key=2"
