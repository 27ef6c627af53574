"""Exponential backoff, full jitter, the longest delay, Retry-After, and when there is no further attempt."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.core.limits import MAX_DELAY_SECONDS, MAX_RETRIES, MAX_RETRY_AFTER_SECONDS
from workflow_engine.runtime.core.retry import RetryPolicy, backoff_seconds, delay_seconds, may_retry

JITTERS = st.floats(min_value=0, max_value=1, exclude_max=True)
POLICIES = st.builds(
    RetryPolicy,
    max_retries=st.integers(0, MAX_RETRIES),
    initial_delay_seconds=st.floats(0, MAX_DELAY_SECONDS),
    max_delay_seconds=st.floats(0, MAX_DELAY_SECONDS),
    exponential_base=st.floats(1, 100),
    jitter=st.booleans(),
)
ATTEMPTS = st.integers(1, MAX_RETRIES + 1)


def test_backoff_doubles_up_to_the_longest_delay() -> None:
    policy = RetryPolicy(initial_delay_seconds=1, max_delay_seconds=60, exponential_base=2)
    assert [backoff_seconds(policy, attempt) for attempt in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    ("initial", "base", "longest", "expected"),
    [
        (0.5, 3.0, 100.0, [0.5, 1.5, 4.5, 13.5, 40.5, 100.0]),
        (2.0, 1.0, 100.0, [2.0, 2.0, 2.0, 2.0]),
        (5.0, 2.0, 3.0, [3.0, 3.0]),
        (0.0, 2.0, 60.0, [0.0, 0.0, 0.0]),
        (1.0, 2.0, 0.0, [0.0, 0.0]),
    ],
)
def test_backoff(initial: float, base: float, longest: float, expected: list[float]) -> None:
    policy = RetryPolicy(initial_delay_seconds=initial, exponential_base=base, max_delay_seconds=longest)
    assert [backoff_seconds(policy, attempt + 1) for attempt in range(len(expected))] == expected


def test_backoff_of_a_huge_attempt_number_is_the_longest_delay() -> None:
    for base in (100.0, 100):
        policy = RetryPolicy(initial_delay_seconds=1.0, max_delay_seconds=60, exponential_base=base)
        assert backoff_seconds(policy, 5_000) == 60


@given(POLICIES, ATTEMPTS)
def test_backoff_never_falls_and_stays_below_the_longest_delay(policy: RetryPolicy, attempt: int) -> None:
    this, following = backoff_seconds(policy, attempt), backoff_seconds(policy, attempt + 1)
    assert 0 <= this <= following <= policy.max_delay_seconds


@given(POLICIES, ATTEMPTS, JITTERS)
def test_full_jitter_draws_between_zero_and_the_backoff(policy: RetryPolicy, attempt: int, jitter: float) -> None:
    delay = delay_seconds(policy, attempt, jitter, None)
    backoff = backoff_seconds(policy, attempt)
    assert delay == (backoff * jitter if policy.jitter else backoff)
    assert 0 <= delay <= backoff


def test_jitter_uses_the_whole_range() -> None:
    policy = RetryPolicy(initial_delay_seconds=8, max_delay_seconds=60, jitter=True)
    assert [delay_seconds(policy, 1, draw, None) for draw in (0.0, 0.25, 0.5, 0.75)] == [0, 2, 4, 6]
    assert 7.99 < delay_seconds(policy, 1, math.nextafter(1, 0), None) < 8


def test_without_jitter_the_draw_does_not_matter() -> None:
    policy = RetryPolicy(initial_delay_seconds=8, max_delay_seconds=60, jitter=False)
    assert {delay_seconds(policy, 2, draw, None) for draw in (0.0, 0.3, 0.999)} == {16}


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        (None, 4.0),
        (0.0, 4.0),
        (3.9, 4.0),
        (4.0, 4.0),
        (90.0, 90.0),
        (86_400.0, MAX_RETRY_AFTER_SECONDS),
        (86_401.0, MAX_RETRY_AFTER_SECONDS),
        (1e300, MAX_RETRY_AFTER_SECONDS),
        (math.inf, MAX_RETRY_AFTER_SECONDS),
        (-5.0, 4.0),
        (-math.inf, 4.0),
        (math.nan, 4.0),
    ],
)
def test_retry_after_is_the_least_that_is_waited_and_at_most_a_day(asked: float | None, waits: float) -> None:
    policy = RetryPolicy(initial_delay_seconds=4, max_delay_seconds=10, jitter=False)
    assert delay_seconds(policy, 1, 0.5, asked) == waits


def test_a_longer_delay_of_the_policy_is_not_cut_to_a_day() -> None:
    policy = RetryPolicy(initial_delay_seconds=200_000, max_delay_seconds=200_000, jitter=False)
    assert delay_seconds(policy, 1, 0, math.inf) == 200_000


@given(POLICIES, ATTEMPTS, JITTERS, st.floats(0, MAX_RETRY_AFTER_SECONDS))
def test_retry_after_is_kept_whatever_the_policy(
    policy: RetryPolicy, attempt: int, jitter: float, asked: float
) -> None:
    delay = delay_seconds(policy, attempt, jitter, asked)
    assert delay == max(asked, delay_seconds(policy, attempt, jitter, None))


@pytest.mark.parametrize("retries", [0, 1, 3, MAX_RETRIES])
def test_there_are_as_many_retries_as_the_policy_says(retries: int) -> None:
    policy = RetryPolicy(max_retries=retries)
    allowed = [attempt for attempt in range(1, MAX_RETRIES + 5) if may_retry(policy, attempt)]
    assert allowed == list(range(1, retries + 1))


def test_defaults() -> None:
    assert RetryPolicy() == RetryPolicy(
        max_retries=3, initial_delay_seconds=1, max_delay_seconds=60, exponential_base=2, jitter=True
    )
