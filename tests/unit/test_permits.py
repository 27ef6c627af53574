"""The arithmetic of permits: slots and buckets, to the microsecond, at times that the test says."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.core.permits import Answer, Ask, Limits, Permits, Refusal

SECOND = 1_000_000
FIVE_A_SECOND = Limits(0, 5, SECOND)
THREE_IN_TEN = Limits(0, 3, 10 * SECOND)
ONE_AT_ONCE = Limits(1, 0, 0)


def take(
    permits: Permits, limits: Limits, count: int, now: int, *, key: str = "", lease: int | None = None, first: int = 0
) -> Answer:
    return permits.take(limits, [Ask(f"{first + each}", key) for each in range(count)], lease, now)


def given_to(answer: Answer) -> int:
    return sum(refusal is None for refusal in answer.refusals)


def test_a_bucket_is_full_at_first_and_its_tokens_come_back_evenly() -> None:
    permits = Permits()
    assert take(permits, FIVE_A_SECOND, 7, 0).refusals == [None] * 5 + [Refusal("token", 0.2)] * 2
    assert take(permits, FIVE_A_SECOND, 1, 199_999).refusals == [Refusal("token", 0.000001)]
    assert given_to(take(permits, FIVE_A_SECOND, 2, 200_000)) == 1
    assert given_to(take(permits, FIVE_A_SECOND, 9, 800_000)) == 3
    assert given_to(take(permits, FIVE_A_SECOND, 9, 60 * SECOND)) == 5


def test_thirds_of_a_microsecond_are_not_lost() -> None:
    """A token takes 3.333 seconds: after ten seconds three are back, however often somebody looked."""
    permits = Permits()
    take(permits, THREE_IN_TEN, 3, 0)
    given = [given_to(take(permits, THREE_IN_TEN, 1, now)) for now in range(0, 10 * SECOND + 1, SECOND // 100)]
    assert sum(given) == 3
    assert [at for at, each in enumerate(given) if each] == [334, 667, 1000]


@given(st.lists(st.tuples(st.integers(0, SECOND), st.integers(1, 8)), max_size=30), st.integers(1, 7))
def test_no_more_than_the_rate_whatever_is_asked_for_and_when(asks: Sequence[tuple[int, int]], tokens: int) -> None:
    limits, permits = Limits(0, tokens, SECOND), Permits()
    now, begun = 0, list[int]()
    for pause, count in asks:
        now += pause
        begun += [now] * given_to(take(permits, limits, count, now))
    for first, start in enumerate(begun):
        for last in range(first, len(begun)):
            assert (last - first + 1 - tokens) * SECOND <= (begun[last] - start) * tokens


@given(st.lists(st.integers(0, SECOND), min_size=1, max_size=20), st.integers(1, 7))
def test_who_asks_when_he_is_told_to_gets_it(pauses: Sequence[int], tokens: int) -> None:
    limits, permits, now = Limits(0, tokens, SECOND), Permits(), 0
    for pause in pauses:
        now += pause
        [refusal] = take(permits, limits, 1, now).refusals
        if refusal is not None:
            [earlier] = take(permits, limits, 1, now + round(refusal.seconds * SECOND) - 1).refusals
            assert earlier is not None
            now += round(refusal.seconds * SECOND)
            assert take(permits, limits, 1, now).refusals == [None]


def test_a_closed_key_gives_nothing_until_then_and_fills_meanwhile() -> None:
    permits = Permits()
    take(permits, FIVE_A_SECOND, 5, 0)
    permits.close(FIVE_A_SECOND, "", 30 * SECOND, 0)
    permits.close(FIVE_A_SECOND, "", SECOND, 0)
    assert take(permits, FIVE_A_SECOND, 1, 10 * SECOND).refusals == [Refusal("token", 20.0)]
    assert given_to(take(permits, FIVE_A_SECOND, 1, 10 * SECOND, key="other")) == 1
    assert given_to(take(permits, FIVE_A_SECOND, 9, 30 * SECOND)) == 5


def test_a_clock_that_is_set_back_stops_nobody_for_long() -> None:
    permits = Permits()
    take(permits, FIVE_A_SECOND, 5, 3_600 * SECOND)
    assert take(permits, FIVE_A_SECOND, 1, 0).refusals == [Refusal("token", 0.2)]
    assert given_to(take(permits, FIVE_A_SECOND, 1, SECOND // 5)) == 1


def test_a_slot_is_free_when_it_is_given_back_or_its_lease_has_ended() -> None:
    permits = Permits()
    assert take(permits, ONE_AT_ONCE, 2, 0, lease=1_000) == Answer([None, Refusal("slot", 1.0)], 1)
    permits.renew(["0"], 1_000, SECOND // 2)
    assert take(permits, ONE_AT_ONCE, 1, SECOND, first=1).refusals == [Refusal("slot", 0.5)]
    assert given_to(take(permits, ONE_AT_ONCE, 1, 3 * SECOND // 2, first=1)) == 1
    assert permits.release(["0"]) is False
    assert permits.release(["1"]) is True
    assert permits.release(["1"]) is False
    assert given_to(take(permits, ONE_AT_ONCE, 1, 3 * SECOND // 2, first=2)) == 1


def test_nobody_is_told_of_a_slot_that_nobody_was_refused() -> None:
    permits = Permits()
    take(permits, ONE_AT_ONCE, 1, 0)
    assert permits.release(["0"]) is False


def test_buckets_that_are_full_again_are_forgotten() -> None:
    permits = Permits()
    for each in range(5_000):
        take(permits, FIVE_A_SECOND, 1, each * SECOND, key=f"key {each}")
    assert len(permits._buckets) <= 1_000
