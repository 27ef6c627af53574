"""The parts of the API that need no server: lines of a stream, moments, cursors, keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.api.errors import Unauthenticated
from workflow_engine.runtime.api.keys import Keys, digest_of
from workflow_engine.runtime.api.lines import LineReader, TooLong
from workflow_engine.runtime.api.pages import cursor_of_id, cursor_of_name, id_of_cursor, name_of_cursor
from workflow_engine.runtime.api.routing import Scope
from workflow_engine.runtime.api.values import format_moment, parse_moment
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.ports import KeyRecord

# --- lines --------------------------------------------------------------------------------------------------


class Chunks:
    """A stream that comes in these pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    async def readany(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


def read_lines(pieces: Sequence[bytes], max_line_bytes: int = 1000, limit: int = 3) -> list[bytes | None]:
    """Every line; None for one that was too long."""

    async def read() -> list[bytes | None]:
        lines: list[bytes | None] = []
        reader = LineReader(Chunks(pieces), max_line_bytes)
        while window := await reader.read(limit):
            assert len(window) <= limit
            lines += [None if isinstance(line, TooLong) else line for line in window]
        return lines

    return asyncio.run(read())


@given(st.binary(max_size=60), st.lists(st.integers(0, 60), max_size=6))
def test_lines_do_not_depend_on_how_they_come(text: bytes, cuts: list[int]) -> None:
    places = sorted(cut for cut in cuts if cut < len(text))
    pieces = [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]
    expected = text.split(b"\n")
    assert read_lines(pieces) == (expected if expected[-1] else expected[:-1])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_line_that_is_too_long_is_skipped_and_not_kept(size: int) -> None:
    text = b"good\n" + b"x" * 11 + b"\n" + b"y" * 10 + b"\n" + b"z" * 500
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert read_lines(pieces, max_line_bytes=10) == [b"good", None, b"y" * 10, None]


# --- moments and cursors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:01.5z", 1500),
        ("1970-01-01T00:00:00.0009Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00-00:30", 1_800_000),
        ("1970-01-01T00:00:00.123456789Z", 123),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("9999-12-31T23:59:59.999Z", 253_402_300_799_999),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000),
    ],
)
def test_a_moment(text: str, milliseconds: int) -> None:
    assert parse_moment(text) == milliseconds
    assert parse_moment(format_moment(milliseconds)) == milliseconds


@pytest.mark.parametrize(
    "value",
    ["", "now", "1970-01-01", "1970-01-01T00:00:00", "1970-01-01 00:00:00Z", "1970-02-30T00:00:00Z", "0", 0, None,
     "1970-01-01T24:00:01Z", "1970-01-01T00:00:61Z", "1970-01-01T00:00:00+25:00", "0000-01-01T00:00:00Z", "x" * 10_000,
     "9999-12-31T23:59:60Z", "9999-12-31T23:59:59-00:01", "0001-01-01T00:00:00+00:01"],
)  # fmt: skip
def test_what_is_no_moment(value: Any) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_moment(value)


@given(st.integers(0, 253_402_300_799_999))
def test_a_moment_there_and_back(milliseconds: int) -> None:
    text = format_moment(milliseconds)
    assert parse_moment(text) == milliseconds


@given(st.text())
def test_a_name_as_a_cursor(name: str) -> None:
    assert name_of_cursor(cursor_of_name(name)) == name


def test_an_id_as_a_cursor() -> None:
    identifier = SystemClock().new_id()
    assert id_of_cursor(cursor_of_id(identifier)) == identifier
    assert id_of_cursor(None) is None


# --- keys ---------------------------------------------------------------------------------------------------


class Records:
    """A store of keys whose answer to a look-up a test can hold back."""

    def __init__(self) -> None:
        self.records: dict[str, KeyRecord] = {}
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        self.answer.set()
        self.look_ups = 0

    async def add_key(self, record: KeyRecord) -> None:
        self.records[record.digest] = record

    async def list_keys(self) -> Sequence[KeyRecord]:
        return [*self.records.values()]

    async def find_key(self, digest: str) -> KeyRecord | None:
        self.look_ups += 1
        found = self.records.get(digest)
        self.asked.set()
        await self.answer.wait()
        return found

    async def revoke_key(self, key_id: str, revoked_at: int) -> bool:
        [digest] = [digest for digest, record in self.records.items() if record.key_id == key_id]
        self.records[digest] = self.records[digest]._replace(revoked_at=revoked_at)
        return True


async def test_a_key_is_stored_as_its_digest_and_looked_up_once() -> None:
    store = Records()
    keys = Keys(store, SystemClock())
    text, record = await keys.create("a", Scope.RUN, None)
    assert text not in repr(store.records)
    assert record.digest == digest_of(text)
    principals = [await keys.authenticate(text) for _ in range(5)]
    assert {(principal.name, principal.scope) for principal in principals} == {(record.key_id, Scope.RUN)}
    assert store.look_ups == 1


async def test_a_look_up_that_a_revocation_overtakes_is_not_believed() -> None:
    store = Records()
    keys = Keys(store, SystemClock())
    text, record = await keys.create("a", Scope.RUN, None)
    store.answer.clear()
    looking = asyncio.create_task(keys.authenticate(text))
    await store.asked.wait()
    await keys.revoke(record.key_id)
    store.answer.set()
    await looking
    with pytest.raises(Unauthenticated, match="revoked"):
        await keys.authenticate(text)


async def test_what_is_not_known_is_not_remembered() -> None:
    keys = Keys(Records(), SystemClock())
    for number in range(3):
        with pytest.raises(Unauthenticated, match="not known"):
            await keys.authenticate(f"wfe_{number}")
    assert not keys._believed
