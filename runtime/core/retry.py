"""When a failed attempt is tried again, and how long that waits."""

from __future__ import annotations

from dataclasses import dataclass

from .limits import MAX_RETRY_AFTER_SECONDS


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff. `max_retries` counts the attempts after the first; delays are in seconds.

    With `jitter` a delay is drawn evenly between zero and the backoff ("full jitter"), so that what
    failed together does not come back together.
    """

    max_retries: int = 3
    initial_delay_seconds: float = 1.0
    max_delay_seconds: float = 60.0
    exponential_base: float = 2.0
    jitter: bool = True


def backoff_seconds(policy: RetryPolicy, failed_attempt: int) -> float:
    """The longest wait after the failed attempt of that number (the first is 1)."""
    try:
        delay = policy.initial_delay_seconds * policy.exponential_base ** (failed_attempt - 1)
    except OverflowError:
        return policy.max_delay_seconds
    return min(delay, policy.max_delay_seconds)


def delay_seconds(policy: RetryPolicy, failed_attempt: int, jitter: float, retry_after_seconds: float | None) -> float:
    """How long the next attempt waits.

    `jitter` is a draw from [0, 1). `retry_after_seconds` is what the far side asked for: never less
    than that, and never more than a day because of it.
    """
    delay = backoff_seconds(policy, failed_attempt)
    if policy.jitter:
        delay *= jitter
    if retry_after_seconds is None:
        return delay
    return max(delay, min(retry_after_seconds, MAX_RETRY_AFTER_SECONDS))


def may_retry(policy: RetryPolicy, failed_attempt: int) -> bool:
    """Whether the policy allows an attempt after the failed one of that number."""
    return failed_attempt <= policy.max_retries
