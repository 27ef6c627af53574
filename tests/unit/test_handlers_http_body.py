"""Bodies: JSON, text and excerpts of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.handlers.http_body import decode_text, encode_json, excerpt, is_json_type, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
)


@pytest.mark.parametrize(
    "media_type", ["application/json", "APPLICATION/JSON", "text/json", "application/vnd.api+json"]
)
def test_json_types(media_type: str) -> None:
    assert is_json_type(media_type)


@pytest.mark.parametrize(
    "media_type",
    ["text/plain", "application/jsonp", "application/x-ndjson", "application/json-seq", "+json", ""],
)
def test_other_types(media_type: str) -> None:
    assert not is_json_type(media_type)


@given(VALUES)
def test_json_comes_back_as_it_went(value: Any) -> None:
    assert parse_json(encode_json(value)) == value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_in_every_unicode_encoding(encoding: str) -> None:
    assert parse_json(json.dumps("grüß").encode(encoding)) == "grüß"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"1e999",
        b"-1e999",
        b"\xff",
        b"'a'",
        b"[1,]",
        b"1" * 5_000,
    ],
)
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(ValueError):
        parse_json(body)


def test_deep_json_is_refused_not_fatal() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json(b"[" * 1_000_000)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800"])
def test_what_cannot_be_encoded(value: Any) -> None:
    with pytest.raises(ValueError):
        encode_json(value)


@pytest.mark.parametrize(
    ("body", "charset", "text"),
    [
        (b"gr\xc3\xbc", None, "grü"),
        (b"gr\xfc", "ISO-8859-1", "grü"),
        (b"gr\xfc", "utf-8", "gr\ufffd"),
        (b"gr\xc3\xbc", "no-such-charset", "grü"),
        (b"gr\xc3\xbc", "", "grü"),
        (b"6772", "hex", "6772"),
        (b"a-b", "punycode", "a-b"),
        (b"\\u0041", "unicode_escape", "\\u0041"),
        (b"a", "undefined", "a"),
        (b"a", "nul\0", "a"),
    ],
)
def test_text(body: bytes, charset: str | None, text: str) -> None:
    assert decode_text(body, charset) == text


@given(st.binary(), st.text())
def test_text_never_fails_and_always_fits_json(body: bytes, charset: str) -> None:
    decode_text(body, charset).encode()


def test_excerpt_is_one_printable_line() -> None:
    assert excerpt(b"  a\r\n\tb\x00\x1b[31mc \xff ") == "a b [31mc \ufffd"
    assert excerpt(b"") == ""


def test_excerpt_is_cut() -> None:
    assert excerpt(b"x" * 200) == "x" * 200
    assert excerpt(b"x" * 201) == "x" * 200 + "..."


def test_excerpt_hides_the_secret_even_where_it_is_cut() -> None:
    assert excerpt(b"key: sk-1", secret="sk-1") == "key: [secret]"
    assert "sk-" not in excerpt(b"x" * 196 + b"sk-123456", secret="sk-123456")
