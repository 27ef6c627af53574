"""What a failed HTTP call means for the attempt: try it again, and when, or leave it.

Both handlers that call a service follow this one mapping:

- 408, 429 and 5xx: try again (`http_429`), not before the server's Retry-After;
- every other status that was not expected: permanent (`http_404`);
- no connection, or one that broke: try again (`network_error`); too slow: try again (`timeout`);
- an address that the engine refuses to connect to, and a URL that is none: permanent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ..plugins import PermanentError, RetryAfter

# A server may ask for more patience than this; it is not given more.
RETRY_AFTER_SECONDS_MAX = 86_400.0

_SECONDS = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def status_failure(what: str, status: int, headers: Mapping[str, str], excerpt: str) -> PermanentError | RetryAfter:
    """Return the exception for an answer whose status was not expected.

    `what` was asked for (as in `network_failures`), `excerpt` is the beginning of the answer's body.
    `headers` are asked for `Retry-After` and `Date`: give a case-insensitive mapping.
    """
    message = f"{what} answered {status}"
    if excerpt:
        message += f": {excerpt}"
    error_type = f"http_{status}"
    if status in (408, 429) or 500 <= status <= 599:
        return RetryAfter(message, seconds=retry_after_seconds(headers), error_type=error_type)
    return PermanentError(message, error_type=error_type)


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the server asks to wait, from 0 to `RETRY_AFTER_SECONDS_MAX`.

    A number of seconds or an HTTP date. A date is counted from the answer's own Date: the two clocks need
    not agree. Anything else, and a date with nothing to count from, asks for nothing: None.
    """
    text = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(text):
        seconds = float(text)
    else:
        until, answered = _http_date(text), _http_date(headers.get("Date", ""))
        if until is None or answered is None:
            return None
        seconds = (until - answered).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_SECONDS_MAX)


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


@contextmanager
def network_failures(what: str) -> Iterator[None]:
    """Turn what goes wrong on the way to a server into `RetryAfter` or `PermanentError`.

    `what` begins the messages: the method and the URL, without anything secret. The original exception
    is not kept as the cause: aiohttp's carry the request's headers, and with them its credentials.
    """
    from aiohttp import (
        ClientConnectorError,
        ClientError,
        ClientResponseError,
        InvalidURL,
        NonHttpUrlClientError,
    )

    try:
        yield
    except TimeoutError:
        raise RetryAfter(f"{what} did not answer in time", error_type="timeout") from None
    except (InvalidURL, NonHttpUrlClientError, UnicodeError):
        # UnicodeError: a host name that the name service cannot be asked for.
        raise PermanentError(f"{what}: not a valid http or https URL", error_type="invalid_url") from None
    except ClientConnectorError as error:
        if isinstance(error.os_error, PermanentError):
            refusal = error.os_error
            raise PermanentError(f"{what}: {refusal}", error_type=refusal.error_type) from None
        raise RetryAfter(f"{what}: {error}", error_type="network_error") from None
    except ClientResponseError as error:
        # An answer that is not HTTP. The exception's own text repeats the whole URL.
        raise RetryAfter(f"{what}: {error.message}", error_type="network_error") from None
    except ClientError as error:
        description = str(error) or type(error).__name__
        raise RetryAfter(f"{what}: {description}", error_type="network_error") from None
