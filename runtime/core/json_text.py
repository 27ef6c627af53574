"""JSON in and out, strictly: what RFC 8259 allows and every store can hold, nothing more.

Python's own reader takes NaN and duplicate keys and its writer emits NaN; another reader of our
data would refuse or misread them. So both directions check, and say what is wrong and where.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice
from typing import Any, NoReturn

from .limits import MAX_INTEGER_BITS, MAX_JSON_CONTAINERS, MAX_JSON_DEPTH
from .problem import join_path, show

_LARGEST_INTEGER = (1 << MAX_INTEGER_BITS) - 1
_SMALLEST_INTEGER = -_LARGEST_INTEGER
# Also matches a string that never ends, so that each character is looked at once.
_STRING = re.compile(r'"(?:[^"\\]|\\.?)*+"?', re.DOTALL)
_NESTING_MESSAGE = f"nested deeper than {MAX_JSON_DEPTH} levels"


class InvalidJson(ValueError):
    """A text is not strict JSON, or a value cannot be written as such; the message says where and why."""


class JsonTooLarge(ValueError):
    """A value's JSON is larger than allowed."""


_write = json.JSONEncoder(allow_nan=False, separators=(",", ":"), ensure_ascii=False, check_circular=True).encode


def encode(value: Any, max_bytes: int) -> bytes:
    """The JSON text of `value` in UTF-8.

    Raises `InvalidJson` naming the place of what JSON cannot hold (NaN, a set, an object, a key that is
    not text, a lone surrogate, too deep), and `JsonTooLarge` beyond `max_bytes`, without writing it first.
    """
    if value is None:
        return b"null"
    _inspect(value, max_bytes)
    try:
        text = _write(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJson(f"cannot be written as JSON: {error}") from None
    if len(text) > max_bytes:
        raise JsonTooLarge(f"{len(text)} bytes of JSON, more than the {max_bytes} allowed")
    return text


def canonical(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no white space. Equal values have equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "surrogatepass"
    )


def decode(text: bytes) -> Any:
    """The value of a strict JSON text; raises `InvalidJson` naming the line and column, or the key."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidJson(f"not valid UTF-8 at byte {error.start}") from None
    if decoded.startswith("\ufeff"):
        raise InvalidJson("starts with a byte order mark; send plain UTF-8")
    _check_containers(decoded)
    try:
        value = _read(decoded)
    except json.JSONDecodeError as error:
        raise InvalidJson(f"{error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise InvalidJson(_NESTING_MESSAGE) from None
    _inspect(value, len(text))
    return value


def _check_containers(text: str) -> None:
    """Refuse a text of very many lists and objects, before they are made: Python stands still while it makes them,
    and each time that it looks for garbage among them. Brackets within strings do not count."""
    if text.count("[") + text.count("{") > MAX_JSON_CONTAINERS:
        bare = _STRING.sub("", text)
        if bare.count("[") + bare.count("{") > MAX_JSON_CONTAINERS:
            raise InvalidJson(f"has more than {MAX_JSON_CONTAINERS} lists and objects")


def _inspect(value: Any, max_bytes: int) -> None:
    """Raise unless `value` is strict JSON that may fit into `max_bytes`; stops as soon as it knows.

    Walks without recursion: a value may be nested as deep as memory allows, or contain itself. `total`
    never exceeds the size of the text: a container counts its brackets, commas and keys and one byte
    for each value in it, and what is longer than one byte adds the rest when its turn comes.
    """
    total = 1
    stack: list[tuple[Any, Any, int]] = [(value, None, 0)]
    while stack:
        item, place, depth = stack.pop()
        if depth > MAX_JSON_DEPTH:
            raise InvalidJson(f"{_path(place)} is {_NESTING_MESSAGE}")
        if isinstance(item, str):
            total += len(item) + 1
            if total <= max_bytes and not item.isascii() and _has_surrogate(item):
                raise InvalidJson(f"{_path(place)} holds a lone surrogate, which is not valid Unicode text")
        elif isinstance(item, dict):
            total += 5 * len(item) or 1
            if total <= max_bytes:
                _check_iteration(type(item).items, item, place)
                total += _count_key_characters(item, place)
            if total <= max_bytes:
                _check_keys(item, place)
                total += _take_children(dict.items(item), place, depth + 1, stack)
        elif isinstance(item, (list, tuple)):
            total += 2 * len(item) or 1
            if total <= max_bytes:
                _check_iteration(type(item).__iter__, item, place)
                total += _take_children(enumerate(item), place, depth + 1, stack)
        else:
            _check_scalar(item, place)
        if total > max_bytes:
            raise JsonTooLarge(f"more than {max_bytes} bytes of JSON")


def _take_children(
    children: Iterable[tuple[str | int, Any]], place: Any, depth: int, stack: list[tuple[Any, Any, int]]
) -> int:
    """Put on the stack what needs a closer look. The rest, nearly everything, only counts: returns its bytes."""
    total = 0
    if depth <= MAX_JSON_DEPTH:
        for key, child in children:
            kind = type(child)
            if kind is str and child.isascii():
                total += len(child) + 1
            elif not (
                (kind is int and _SMALLEST_INTEGER <= child <= _LARGEST_INTEGER)
                or (kind is float and math.isfinite(child))
                or child is None
                or kind is bool
            ):
                stack.append((child, (place, key), depth))
    else:
        stack.extend((child, (place, key), depth) for key, child in islice(children, 1))
    return total


_KNOWN_ITERATION = (dict.items, OrderedDict.items, list.__iter__, tuple.__iter__)


def _check_iteration(method: object, item: Any, place: Any) -> None:
    """Refuse a container that iterates in a way of its own: it might never end, or differ each time."""
    if method not in _KNOWN_ITERATION:
        raise InvalidJson(f"{_path(place)} is a {type(item).__name__}, which JSON cannot hold")


def _count_key_characters(item: dict[Any, Any], place: Any) -> int:
    characters = 0
    for key in dict.keys(item):
        if not isinstance(key, str):
            raise InvalidJson(f"{_path(place)} has the key {show(key)}, which is not text")
        characters += len(key)
    return characters


def _check_keys(item: dict[str, Any], place: Any) -> None:
    for key in dict.keys(item):
        if not key.isascii() and _has_surrogate(key):
            raise InvalidJson(f"{_path(place)} has a key with a lone surrogate")


def _check_scalar(item: Any, place: Any) -> None:
    if item is None or isinstance(item, bool):
        return
    if isinstance(item, int):
        if item.bit_length() > MAX_INTEGER_BITS:
            raise InvalidJson(f"{_path(place)} is an integer of more than {MAX_INTEGER_BITS} bits")
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise InvalidJson(f"{_path(place)} is {item}, which JSON has no word for")
    else:
        raise InvalidJson(f"{_path(place)} is a {type(item).__name__}, which JSON cannot hold")


def _path(place: Any) -> str:
    segments: list[str | int] = []
    while place is not None:
        place, segment = place
        segments.append(segment)
    return join_path("$", reversed(segments))


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise InvalidJson(f"the key {show(key)} stands twice in one object")
        seen.add(key)
    return found


def _refuse_constant(word: str) -> NoReturn:
    raise InvalidJson(f"{word} is not JSON")


def _bounded_integer(digits: str) -> int:
    if len(digits) > MAX_INTEGER_BITS // 3:
        raise InvalidJson(f"an integer of {len(digits)} digits; at most {MAX_INTEGER_BITS // 3} are allowed")
    return int(digits)


# Made once: making one costs more than reading a short text.
_read = json.JSONDecoder(
    object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=_bounded_integer
).decode
