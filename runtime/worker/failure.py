"""What an exception of a handler means: the error users see, and whether trying again can help."""

from __future__ import annotations

import asyncio

from ...plugins.errors import PermanentError, RetryAfter
from ..core.json_text import InvalidJson, JsonTooLarge
from ..core.limits import MAX_ERROR_MESSAGE_CHARACTERS, MAX_RETRY_AFTER_SECONDS
from ..core.machine import AttemptError
from ..core.template import TemplateFailed

# What a second try cannot change: wrong data or a wrong program. `json.JSONDecodeError` is a ValueError.
_PERMANENT = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    NameError,
    ImportError,
    AssertionError,
    NotImplementedError,
)


MAX_ERROR_TYPE_CHARACTERS = 200


class ConfigInvalid(Exception):
    """The configuration does not fit the handler once its templates are resolved."""


class OpenFailed(Exception):
    """A handler that is a class could not get ready. The next attempt tries again."""

    def __init__(self, handler_name: str, cause: BaseException) -> None:
        described = describe_failure(cause)
        super().__init__(f"the handler {handler_name} could not be opened: {described.type}: {described.message}")
        self.retry_after_seconds = described.retry_after_seconds


class KeyInvalid(Exception):
    """The handler's rate limit makes no key of the configuration."""


def describe_failure(error: BaseException) -> AttemptError:
    """The error that is recorded for an attempt that ended with `error`.

    Whatever a plugin has put into its exception comes out as something that can be stored.
    """
    if isinstance(error.__cause__, PermanentError) and not isinstance(error, RetryAfter):
        # A library's exception around a refusal of ours, such as of an address that may not be called.
        error = error.__cause__
    if isinstance(error, RetryAfter):
        return AttemptError(_error_type(error), _message(error), True, _seconds(error))
    if isinstance(error, PermanentError):
        return AttemptError(_error_type(error), _message(error), False)
    if isinstance(error, OpenFailed):
        return AttemptError("open_failed", _message(error), True, error.retry_after_seconds)
    if isinstance(error, TemplateFailed):
        return AttemptError("template_failed", _message(error), False)
    if isinstance(error, ConfigInvalid):
        return AttemptError("config_invalid", _message(error), False)
    if isinstance(error, KeyInvalid):
        return AttemptError("rate_limit_key_invalid", _message(error), False)
    # A CancelledError that leaks out of a handler nobody cancelled is a passing fault of what it waited for.
    passing = isinstance(error, (Exception, asyncio.CancelledError))
    retryable = passing and not isinstance(error, _PERMANENT)
    return AttemptError(_storable(type(error).__name__, MAX_ERROR_TYPE_CHARACTERS), _message(error), retryable)


def describe_bad_output(error: BaseException) -> AttemptError:
    """The error of an attempt whose result cannot be stored."""
    kind = "output_too_large" if isinstance(error, JsonTooLarge) else "output_invalid"
    known = isinstance(error, (InvalidJson, JsonTooLarge))
    reason = _message(error) if known else f"{type(error).__name__}: {_message(error)}"
    return AttemptError(kind, f"the handler's result: {reason}", False)


def timed_out(timeout_seconds: float) -> AttemptError:
    """The error of an attempt that took longer than it may."""
    return AttemptError("timeout", f"the attempt took longer than {timeout_seconds:g} seconds", True)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException:
        text = "(the exception cannot be shown as text)"
    return _storable(text or type(error).__name__, MAX_ERROR_MESSAGE_CHARACTERS)


def _error_type(error: PermanentError | RetryAfter) -> str:
    given = getattr(error, "error_type", None)
    return _storable(given if given and isinstance(given, str) else type(error).__name__, MAX_ERROR_TYPE_CHARACTERS)


def _seconds(error: RetryAfter) -> float | None:
    given = getattr(error, "seconds", None)
    # Written so that what is not a number fails: it compares as neither.
    if isinstance(given, (int, float)) and given >= 0:
        return float(min(given, MAX_RETRY_AFTER_SECONDS))
    return None


def _storable(text: str, max_characters: int) -> str:
    return text[:max_characters].encode("utf-8", "replace").decode()
