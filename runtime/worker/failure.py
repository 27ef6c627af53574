"""What an exception of a handler means: the error users see, and whether trying again can help."""

from __future__ import annotations

from ...plugins.errors import PermanentError, RetryAfter
from ..core.json_text import InvalidJson, JsonTooLarge
from ..core.limits import MAX_ERROR_MESSAGE_CHARACTERS
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


class ConfigInvalid(Exception):
    """The configuration does not fit the handler once its templates are resolved."""


def describe_failure(error: BaseException) -> AttemptError:
    """The error that is recorded for an attempt that ended with `error`."""
    if isinstance(error, RetryAfter):
        return AttemptError(error.error_type, _message(error), True, error.seconds)
    if isinstance(error, PermanentError):
        return AttemptError(error.error_type, _message(error), False)
    if isinstance(error, TemplateFailed):
        return AttemptError("template_failed", _message(error), False)
    if isinstance(error, ConfigInvalid):
        return AttemptError("config_invalid", _message(error), False)
    retryable = isinstance(error, Exception) and not isinstance(error, _PERMANENT)
    return AttemptError(type(error).__name__, _message(error), retryable)


def describe_bad_output(error: InvalidJson | JsonTooLarge) -> AttemptError:
    """The error of an attempt whose result cannot be stored."""
    kind = "output_too_large" if isinstance(error, JsonTooLarge) else "output_invalid"
    return AttemptError(kind, f"the handler's result: {error}", False)


def timed_out(timeout_seconds: float) -> AttemptError:
    """The error of an attempt that took longer than it may."""
    return AttemptError("timeout", f"the attempt took longer than {timeout_seconds:g} seconds", True)


def _message(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(the exception cannot be shown as text)"
    return (text or type(error).__name__)[:MAX_ERROR_MESSAGE_CHARACTERS].encode("utf-8", "replace").decode()
