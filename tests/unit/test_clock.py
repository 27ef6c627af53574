"""Identifiers: the format of version 7 UUIDs, and that they sort by the time they were made."""

from __future__ import annotations

import re
import uuid

from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.clock import SystemClock, format_uuid7

FORMAT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIMES = st.integers(0, 2**48 - 1)
BITS = st.integers(0, 2**80 - 1)


def timestamp(identifier: str) -> int:
    return uuid.UUID(identifier).int >> 80


@given(TIMES, BITS)
def test_format(now: int, bits: int) -> None:
    identifier = format_uuid7(now, bits)
    assert FORMAT.fullmatch(identifier)
    parsed = uuid.UUID(identifier)
    assert str(parsed) == identifier
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert timestamp(identifier) == now


def test_known_value() -> None:
    """The example of RFC 9562, appendix A.6."""
    random_bits = (0xCC3 << 62) | 0x18C4DC0C0C07398F
    assert format_uuid7(0x017F22E279B0, random_bits) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_neither_chance_nor_time_reaches_version_and_variant() -> None:
    assert format_uuid7(0, 0) == "00000000-0000-7000-8000-000000000000"
    assert format_uuid7(2**48 - 1, 2**80 - 1) == "ffffffff-ffff-7fff-bfff-ffffffffffff"
    assert format_uuid7(2**48, 0) == format_uuid7(0, 0)


@given(TIMES, st.integers(0, 2**74 - 1), st.integers(0, 73))
def test_each_of_74_bits_of_chance_counts(now: int, bits: int, position: int) -> None:
    assert format_uuid7(now, bits) != format_uuid7(now, bits ^ (1 << position))


@given(st.lists(st.tuples(TIMES, BITS), min_size=2, max_size=30, unique_by=lambda made: made[0]))
def test_identifiers_sort_by_time(made: list[tuple[int, int]]) -> None:
    identifiers = [format_uuid7(now, bits) for now, bits in sorted(made)]
    assert sorted(identifiers) == identifiers


class StoppedClock(SystemClock):
    """A system clock that stands still, so that only chance tells its identifiers apart."""

    def now(self) -> int:
        return 1_700_000_000_000


def test_new_ids_are_version_7_and_differ_within_one_millisecond() -> None:
    clock = StoppedClock()
    identifiers = [clock.new_id() for _ in range(2_000)]
    assert len(set(identifiers)) == 2_000
    assert all(FORMAT.fullmatch(identifier) for identifier in identifiers)
    assert {timestamp(identifier) for identifier in identifiers} == {1_700_000_000_000}


def test_every_bit_of_chance_of_a_new_id_is_drawn() -> None:
    clock = StoppedClock()
    drawn = [uuid.UUID(clock.new_id()).int for _ in range(1_000)]
    ever_set, always_set = 0, (1 << 128) - 1
    for number in drawn:
        ever_set |= number
        always_set &= number
    varying = ever_set & ~always_set
    assert varying.bit_count() == 74


def test_new_ids_carry_the_time() -> None:
    clock = SystemClock()
    before = clock.now()
    made = timestamp(clock.new_id())
    assert before <= made <= clock.now()


def test_two_clocks_do_not_share_their_chance() -> None:
    first, second = StoppedClock(), StoppedClock()
    assert {first.new_id() for _ in range(500)}.isdisjoint(second.new_id() for _ in range(500))
    assert [first.chance() for _ in range(10)] != [second.chance() for _ in range(10)]


def test_chance_is_a_draw_from_zero_to_below_one() -> None:
    clock = SystemClock()
    draws = [clock.chance() for _ in range(1_000)]
    assert all(0 <= draw < 1 for draw in draws)
    assert len(set(draws)) > 990


def test_monotonic_never_goes_back() -> None:
    clock = SystemClock()
    times = [clock.monotonic() for _ in range(1_000)]
    assert times == sorted(times)
