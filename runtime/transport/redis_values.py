"""What lies in Redis, as text and back. (What a replica says of itself lies in the store too.)

Whoever can write to the Redis can write anything, and so can another version of the engine: what does not read as
exactly what is written here is `Unreadable`. Outputs are passed through as they are, and looked at by nobody here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..broker import InboxEntry, News
from ..core.deliveries import DeliveryKey, Heartbeat, SeenHeartbeat, Sighting, Taken, Task
from ..core.machine import AttemptError, Outcome
from ..core.permits import Refusal

VERSION = 1
_MOST = 2**31
_LAST_MOMENT = 2**53
_LONGEST_TEXT = 200

# Without spaces, and ASCII only: so that any text can be encoded, be it Unicode or not.
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Unreadable(ValueError):
    """This is nothing that this version of the engine has written."""


# --- what is written ------------------------------------------------------------------------------------


def key_text(key: DeliveryKey) -> str:
    """An attempt, as `out` and the queues name it."""
    return f"{key.node} {key.attempt} {key.execution_id}"


def outcome_key(outcome: Outcome) -> str:
    """The same of the attempt that an outcome is of."""
    return f"{outcome.node} {outcome.attempt} {outcome.execution_id}"


def outcome_header(outcome: Outcome) -> str:
    """An outcome without its output."""
    execution_id, node, attempt, _, error, started_at, finished_at, jitter, _ = outcome
    return _encode([execution_id, node, attempt, started_at, finished_at, jitter, error])


def wake_ups_text(execution_ids: Sequence[str]) -> str:
    return _encode(execution_ids)


def heartbeat_text(heartbeat: Heartbeat) -> str:
    return _encode({"v": VERSION, **heartbeat._asdict()})


def news_text(news: News) -> str:
    said = {name: list(values) for name, values in zip(_NEWS, news, strict=True) if values}
    return _encode(said)


# --- what is read ---------------------------------------------------------------------------------------


def read_key(text: bytes) -> DeliveryKey:
    node, attempt, execution_id = _split(text, b" ", 3)
    return DeliveryKey(_identifier(_text(execution_id)), _digits(node), _digits(attempt))


def read_entry(entry_id: bytes, fields: Mapping[bytes, bytes]) -> InboxEntry:
    if fields.get(b"v") != b"%d" % VERSION:
        raise Unreadable("its version is not known")
    if fields.keys() == {b"v", b"w"}:
        return InboxEntry(entry_id.decode(), [_identifier(each) for each in _list(_json(fields[b"w"]))], None)
    if fields.keys() == {b"v", b"h", b"o"}:
        return InboxEntry(entry_id.decode(), (), _read_outcome(fields[b"h"], fields[b"o"]))
    raise Unreadable("its fields are not known")


def _read_outcome(header: bytes, output: bytes) -> Outcome:
    parts = _list(_json(header))
    if len(parts) != 7:
        raise Unreadable("an outcome has seven parts")
    execution_id, node, attempt, started_at, finished_at, jitter, error = parts
    if not (type(jitter) in (int, float) and 0 <= jitter < 1):
        raise Unreadable("the draw is out of bounds")
    if error is not None and output:
        raise Unreadable("an attempt that failed has no output")
    return Outcome(
        _identifier(execution_id),
        _number(node, _MOST),
        _number(attempt, _MOST),
        output if error is None else None,
        None if error is None else _read_error(error),
        _number(started_at, _LAST_MOMENT),
        _number(finished_at, _LAST_MOMENT),
        jitter,
    )


def _read_error(value: object) -> AttemptError:
    match value:
        case [str(kind), str(message), bool(retryable), None]:
            return AttemptError(kind, message, retryable)
        case [str(kind), str(message), bool(retryable), (int() | float()) as seconds] if (
            not isinstance(seconds, bool) and 0 <= seconds < _MOST
        ):
            return AttemptError(kind, message, retryable, seconds)
    raise Unreadable("the error is none")


def read_taken(entry_id: bytes, handler: bytes, key: bytes, definition_id: bytes) -> Taken:
    return Taken(entry_id.decode(), Task(read_key(key), _text(handler), _text(definition_id)))


def read_sighting(text: bytes) -> Sighting:
    entry_id, taken_at, replica, _ = _split(text, b"\n", 4)
    return Sighting(_text(entry_id), _digits(taken_at) if taken_at else None, _text(replica))


def read_heartbeat(text: bytes) -> SeenHeartbeat:
    at, said = _split(text, b" ", 2)
    return SeenHeartbeat(_digits(at), read_said(said))


def read_said(said: bytes) -> Heartbeat:
    value = _json(said)
    if not isinstance(value, dict) or value.pop("v", None) != VERSION or value.keys() != set(Heartbeat._fields):
        raise Unreadable("its version or its fields are not known")
    heartbeat = Heartbeat(**value)
    for each in (heartbeat.replica, heartbeat.host, heartbeat.version, *_list(heartbeat.roles)):
        _identifier(each)
    return heartbeat._replace(
        roles=tuple(heartbeat.roles),
        handlers=tuple(_string(each) for each in _list(heartbeat.handlers)),
        slots=_number(heartbeat.slots, _MOST),
        free_slots=_number(heartbeat.free_slots, _MOST),
        partitions=_number(heartbeat.partitions, _MOST),
        started_at=_number(heartbeat.started_at, _LAST_MOMENT),
        attempts=tuple(map(_read_attempt, _list(heartbeat.attempts))),
    )


def _read_attempt(value: object) -> DeliveryKey:
    match value:
        case [execution_id, node, attempt]:
            return DeliveryKey(_identifier(execution_id), _number(node, _MOST), _number(attempt, _MOST))
    raise Unreadable("an attempt has three parts")


def read_refusal(lacks: int, microseconds: int) -> Refusal | None:
    """Of a permit: nothing when it was given."""
    return Refusal("slot" if lacks == 1 else "token", microseconds / 1_000_000) if lacks else None


_NEWS = ("i", "t", "c", "e", "o", "p")


def read_news(text: bytes) -> News:
    value = _json(text)
    if not isinstance(value, dict):
        raise Unreadable("news are an object")
    inbox, tasks, changed, ended, owners, permits = (_list(value.get(name, [])) for name in _NEWS)
    return News(
        [_number(each, _MOST) for each in inbox],
        [_number(each, _MOST) for each in tasks],
        [_identifier(each) for each in changed],
        [_identifier(each) for each in ended],
        [_identifier(each) for each in owners],
        [_identifier(each) for each in permits],
    )


# --- the parts ------------------------------------------------------------------------------------------


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("it is not JSON") from error


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise Unreadable("a list is none")
    return value


def _split(text: bytes, separator: bytes, parts: int) -> list[bytes]:
    found = text.split(separator, parts - 1)
    if len(found) != parts:
        raise Unreadable("a part is missing")
    return found


def _digits(text: bytes) -> int:
    if not text.isdigit() or len(text) > 16:
        raise Unreadable("a number is none")
    return int(text)


def _number(value: object, end: int) -> int:
    if type(value) is not int or not 0 <= value < end:
        raise Unreadable("a number is none, or out of bounds")
    return value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Unreadable("a text is none") from error


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise Unreadable("a text is none")
    return value


def _identifier(value: object) -> str:
    """A name that any store takes and any log can show."""
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TEXT or not value.isprintable():
        raise Unreadable("an identifier is none")
    return value
