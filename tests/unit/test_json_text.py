"""Strict JSON: what goes in and out, what is refused with its place, and that nothing large is worked on first."""

from __future__ import annotations

import json
import math
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.core import json_text
from workflow_engine.runtime.core.json_text import InvalidJson, JsonTooLarge, canonical, decode, encode
from workflow_engine.runtime.core.limits import MAX_INTEGER_BITS, MAX_JSON_CONTAINERS, MAX_JSON_DEPTH

MIB = 1024 * 1024

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda children: st.lists(children, max_size=5) | st.dictionaries(TEXTS, children, max_size=5),
    max_leaves=20,
)


def nested(depth: int, wrap: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = wrap(value)
    return value


def in_list(value: Any) -> Any:
    return [value]


def in_object(value: Any) -> Any:
    return {"a": value}


@pytest.fixture
def nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has JSON written although it is known to be too large fails the test."""

    def refuse(_value: object) -> NoReturn:
        pytest.fail("wrote the JSON of a value that is known to be too large")

    monkeypatch.setattr(json_text, "_write", refuse)


# --- round trip -----------------------------------------------------------------------------------


@given(VALUES)
def test_what_is_encoded_is_decoded_again(value: Any) -> None:
    text = encode(value, MIB)
    assert decode(text) == value
    assert encode(decode(text), MIB) == text


@given(VALUES)
def test_the_text_is_what_any_reader_understands(value: Any) -> None:
    text = encode(value, MIB).decode("utf-8")
    assert json.loads(text) == value
    assert "NaN" not in text or "NaN" in repr(value)


@given(VALUES)
def test_the_limit_is_exact(value: Any) -> None:
    size = len(encode(value, MIB))
    assert len(encode(value, size)) == size
    if value is not None:
        with pytest.raises(JsonTooLarge):
            encode(value, size - 1)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"null"),
        (True, b"true"),
        (0, b"0"),
        (-0.5, b"-0.5"),
        ("", b'""'),
        ("caf\u00e9 \u20ac \U0001f600", '"café € 😀"'.encode()),
        ('\x00\n"\\', b'"\\u0000\\n\\"\\\\"'),
        ([], b"[]"),
        ({}, b"{}"),
        ((1, (2,)), b"[1,[2]]"),
        ({"a": [1, {"b": None}]}, b'{"a":[1,{"b":null}]}'),
    ],
)
def test_texts(value: Any, text: bytes) -> None:
    assert encode(value, 100) == text


class Color(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Color.RED, b'"red"'),
        ({Color.RED: 1}, b'{"red":1}'),
        (Level.HIGH, b"3"),
        (Point(1, 2), b"[1,2]"),
        (OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
        (defaultdict(int, a=1), b'{"a":1}'),
        (Counter("aab"), b'{"a":2,"b":1}'),
    ],
)
def test_relatives_of_json_types_are_taken_as_what_they_are(value: Any, text: bytes) -> None:
    assert encode(value, 100) == text


# --- what cannot be written -----------------------------------------------------------------------


class Thing:
    """Something JSON has no word for, whose methods are not asked either."""

    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1

    def __repr__(self) -> str:
        raise RuntimeError("nobody should look at me")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "$ is nan, which JSON has no word for"),
        ([1.0, -math.inf], "$[1] is -inf, which JSON has no word for"),
        ({"a": {"b": [0, math.inf]}}, "$.a.b[1] is inf, which JSON has no word for"),
        ({"a": {1, 2}}, "$.a is a set, which JSON cannot hold"),
        ([b"bytes"], "$[0] is a bytes, which JSON cannot hold"),
        ({"a b": [Thing()]}, "$['a b'][0] is a Thing, which JSON cannot hold"),
        ((1 + 2j,), "$[0] is a complex, which JSON cannot hold"),
        (iter([]), "$ is a list_iterator, which JSON cannot hold"),
        ({1: "one"}, "$ has the key 1, which is not text"),
        ({"a": {None: 1}}, "$.a has the key null, which is not text"),
        ([{(1, 2): 1}], "$[0] has the key a list of 2 items, which is not text"),
        ("\ud800", "$ holds a lone surrogate, which is not valid Unicode text"),
        ({"a": ["x\udfffy"]}, "$.a[0] holds a lone surrogate, which is not valid Unicode text"),
        ({"a": {"\udc00": 1}}, "$.a has a key with a lone surrogate"),
        (1 << MAX_INTEGER_BITS, f"$ is an integer of more than {MAX_INTEGER_BITS} bits"),
        ({"n": -(1 << MAX_INTEGER_BITS)}, f"$.n is an integer of more than {MAX_INTEGER_BITS} bits"),
        ([10**5_000], f"$[0] is an integer of more than {MAX_INTEGER_BITS} bits"),
    ],
)
def test_what_json_cannot_hold_is_named_with_its_place(value: Any, message: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        encode(value, MIB)
    assert str(caught.value) == message


def test_the_largest_integer_goes_both_ways() -> None:
    largest = (1 << MAX_INTEGER_BITS) - 1
    assert decode(encode([largest, -largest], MIB)) == [largest, -largest]


@pytest.mark.parametrize("wrap", [in_list, in_object])
def test_the_deepest_value_goes_both_ways(wrap: Callable[[Any], Any]) -> None:
    value = nested(MAX_JSON_DEPTH, wrap)
    assert decode(encode(value, MIB)) == value


@pytest.mark.parametrize("depth", [MAX_JSON_DEPTH + 1, 1_000, 100_000])
@pytest.mark.parametrize(("wrap", "step"), [(in_list, "[0]"), (in_object, ".a")])
def test_too_deep_is_refused_without_recursion(depth: int, wrap: Callable[[Any], Any], step: str) -> None:
    value = nested(depth, wrap)
    with pytest.raises(InvalidJson) as caught:
        encode(value, 10 * MIB)
    assert str(caught.value) == f"${step * (MAX_JSON_DEPTH + 1)} is nested deeper than {MAX_JSON_DEPTH} levels"


def test_a_list_that_contains_itself() -> None:
    circle: list[Any] = [1]
    circle.append(circle)
    with pytest.raises(InvalidJson, match=r"^\$(\[1\])+\[[01]\] is nested deeper than 64 levels$"):
        encode(circle, MIB)


def test_objects_that_contain_each_other() -> None:
    first: dict[str, Any] = {}
    first["b"] = {"a": first}
    with pytest.raises(InvalidJson, match=r"^\$(\.b\.a)+(\.b)? is nested deeper than 64 levels$"):
        encode({"x": first}["x"], MIB)


def test_a_wide_list_that_contains_itself_many_times() -> None:
    circle: list[Any] = []
    circle.extend([circle] * 1_000)
    with pytest.raises((InvalidJson, JsonTooLarge)):
        encode(circle, MIB)


def test_doubling_references_are_refused_by_size_before_they_are_written(nothing_is_written: None) -> None:
    """Thirty lists stand for a text of 2**30 numbers."""
    value: Any = 0
    for _ in range(30):
        value = [value, value]
    with pytest.raises(JsonTooLarge, match=r"^more than 10000 bytes of JSON$"):
        encode(value, 10_000)


# --- what is too large ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: "x" * (100 * MIB),
        lambda: ["x" * (50 * MIB)] * 2,
        lambda: [0] * (20 * MIB),
        lambda: [[0] * 1000] * 50_000,
        lambda: {"a": {"b": ["y" * (100 * MIB)]}},
        lambda: {"k" * (100 * MIB): 1},
        lambda: [{"k" * MIB: 0}] * 100,
    ],
    ids=["text", "texts", "list", "lists", "below", "key", "keys"],
)
def test_a_hundred_megabytes_are_refused_without_writing_them(
    make: Callable[[], Any], nothing_is_written: None
) -> None:
    with pytest.raises(JsonTooLarge, match=r"^more than 1048576 bytes of JSON$"):
        encode(make(), MIB)


class Unread(str):
    """A text that nobody may look at, only measure."""

    def isascii(self) -> bool:
        pytest.fail("looked into a text that is known to be too large")

    def encode(self, *_: Any) -> NoReturn:
        pytest.fail("encoded a text that is known to be too large")


def test_a_text_that_is_too_large_is_not_searched_for_surrogates() -> None:
    with pytest.raises(JsonTooLarge):
        encode([Unread("é" * 1_000)], 100)
    with pytest.raises(JsonTooLarge):
        encode({Unread("é" * 1_000): 1}, 100)


def test_ten_million_keys_are_not_looked_at() -> None:
    class Wide(dict[str, int]):
        def __len__(self) -> int:
            return 10_000_000

        def __iter__(self) -> NoReturn:
            pytest.fail("looked at the keys of an object that is known to be too large")

        keys = values = items = __iter__

    with pytest.raises(JsonTooLarge):
        encode({"wide": Wide()}, MIB)


def test_what_grows_when_it_is_written_is_measured_too() -> None:
    assert len(encode("\x00" * 10, 62)) == 62
    with pytest.raises(JsonTooLarge, match=r"^62 bytes of JSON, more than the 61 allowed$"):
        encode("\x00" * 10, 61)


class EndlessList(list[int]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


class EndlessObject(dict[str, int]):
    def items(self) -> Any:
        number = 0
        while True:
            number += 1
            yield str(number), number


class EndlessTuple(tuple[int, ...]):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield 1


@pytest.mark.parametrize("value", [EndlessList([1]), EndlessObject(a=1), EndlessTuple([1])])
def test_a_container_with_an_iterator_of_its_own_is_refused(value: Any) -> None:
    """It could run for ever, or give something else each time."""
    with pytest.raises(InvalidJson) as caught:
        encode({"a": value}, MIB)
    assert str(caught.value) == f"$.a is a {type(value).__name__}, which JSON cannot hold"


# --- decode ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "Expecting value at line 1 column 1"),
        (b'{"a": 1,\n  "b": }', "Expecting value at line 2 column 8"),
        (b"{} x", "Extra data at line 1 column 4"),
        (b"{'a': 1}", "Expecting property name enclosed in double quotes at line 1 column 2"),
        (b'"abc', "Unterminated string starting at at line 1 column 1"),
        (b'["a\nb"]', "Invalid control character at at line 1 column 4"),
        (b"NaN", "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": [0, 1e999]}', "$.a[1] is inf, which JSON has no word for"),
        (b"-1e999", "$ is -inf, which JSON has no word for"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' stands twice in one object"),
        (b'[{"a": {"": 1, "": 1}}]', "the key '' stands twice in one object"),
        (b'{"a": 1, "\\u0061": 1}', "the key 'a' stands twice in one object"),
        (b'["\\ud800"]', "$[0] holds a lone surrogate, which is not valid Unicode text"),
        (b'{"a": {"\\udfff": 1}}', "$.a has a key with a lone surrogate"),
        (b"\xff", "not valid UTF-8 at byte 0"),
        (b'"abc\xc3"', "not valid UTF-8 at byte 4"),
        (b'"\xed\xa0\x80"', "not valid UTF-8 at byte 1"),
        (b'"\xc0\xaf"', "not valid UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "starts with a byte order mark; send plain UTF-8"),
        (b"\xff\xfe{\x00}\x00", "not valid UTF-8 at byte 0"),
        (b"1" * 5_000, "an integer of 5000 digits; at most 1365 are allowed"),
        (b"[-" + b"9" * 100_000 + b"]", "an integer of 100001 digits; at most 1365 are allowed"),
        (b"9" * 1_300, "$ is an integer of more than 4096 bits"),
        (b"[" * 65 + b"1" + b"]" * 65, f"${'[0]' * 65} is nested deeper than 64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, f"${'.a' * 65} is nested deeper than 64 levels"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b'{"a":' * 100_000, "nested deeper than 64 levels"),
    ],
)
def test_texts_that_are_not_strict_json(text: bytes, message: str) -> None:
    with pytest.raises(InvalidJson) as caught:
        decode(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b" [1, 2.5, -0, 1E2, true, false, null] ", [1, 2.5, 0, 100.0, True, False, None]),
        (b'{"a": {"b": 1}, "c": {"b": 1}}', {"a": {"b": 1}, "c": {"b": 1}}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\u0000"', "\x00"),
        (b'""', ""),
        (b'["\\ufeff"]', ["\ufeff"]),
        (b"{}", {}),
        (b"1" * 1_233, int("1" * 1_233)),
    ],
)
def test_texts_that_are_strict_json(text: bytes, value: Any) -> None:
    assert decode(text) == value


@given(st.binary(max_size=60))
def test_decoding_anything_gives_a_value_or_invalid_json(text: bytes) -> None:
    try:
        value = decode(text)
    except InvalidJson as error:
        assert str(error)
    else:
        assert decode(encode(value, MIB)) == value


@given(st.text('[]{}:,"\\u0123456789abcdefNIntyul-+.eE ', max_size=40))
def test_decoding_what_looks_like_json_gives_a_value_or_invalid_json(text: str) -> None:
    try:
        value = decode(text.encode())
    except InvalidJson as error:
        assert str(error)
    else:
        assert json.loads(text) == value


def test_long_keys_do_not_make_long_messages() -> None:
    text = b'{"' + b"k" * 100_000 + b'": [1e999]}'
    with pytest.raises(InvalidJson) as caught:
        decode(text)
    assert len(str(caught.value)) < 300
    assert "is inf, which JSON has no word for" in str(caught.value)


# --- canonical ------------------------------------------------------------------------------------


def shuffled(value: Any) -> Any:
    """The same value with the keys of every object in the opposite order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [shuffled(item) for item in value]
    return value


@given(VALUES)
def test_the_canonical_text_does_not_depend_on_the_order_of_keys(value: Any) -> None:
    assert canonical(value) == canonical(shuffled(value))
    assert json.loads(canonical(value)) == value


@given(VALUES, VALUES)
def test_values_that_differ_have_different_canonical_texts(first: Any, second: Any) -> None:
    if first != second:
        assert canonical(first) != canonical(second)
    else:
        assert json.loads(canonical(first)) == json.loads(canonical(second))


def test_canonical_text() -> None:
    assert canonical({"b": [1, 2.5, None], "a": "é", "A": {}}) == '{"A":{},"a":"é","b":[1,2.5,null]}'.encode()


@pytest.mark.parametrize("value", [math.nan, [math.inf], {1, 2}, {"a": object()}])
def test_there_is_no_canonical_text_of_what_is_not_json(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical(value)


def test_very_many_containers_are_refused_before_they_are_made() -> None:
    for text in (b"[]", b"{}"):
        most = b"[" + b",".join([text] * (MAX_JSON_CONTAINERS - 1)) + b"]"
        assert len(decode(most)) == MAX_JSON_CONTAINERS - 1
        with pytest.raises(InvalidJson, match=f"more than {MAX_JSON_CONTAINERS} lists and objects"):
            decode(b"[" + most + b"]")


def test_brackets_within_strings_are_no_containers() -> None:
    text = "[{" * MAX_JSON_CONTAINERS + '"\\'
    assert decode(json.dumps({text: [text]}).encode()) == {text: [text]}


@pytest.mark.parametrize("tail", [b'\\"' * 1_000_000, b'"\\', b'"' * 1_000_001])
def test_a_string_that_never_ends_takes_no_time(tail: bytes) -> None:
    with pytest.raises(InvalidJson):
        decode(b'"' + b"[" * (MAX_JSON_CONTAINERS + 1) + tail)
