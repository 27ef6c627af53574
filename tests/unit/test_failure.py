"""What an exception of a handler means: its recorded type and message, and whether it is tried again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from workflow_engine.plugins import PermanentError, RetryAfter
from workflow_engine.runtime.core.json_text import InvalidJson, JsonTooLarge
from workflow_engine.runtime.core.machine import AttemptError
from workflow_engine.runtime.core.template import TemplateFailed
from workflow_engine.runtime.worker.failure import ConfigInvalid, describe_bad_output, describe_failure, timed_out


class Mine(Exception):
    """An exception of a plugin."""


class MineAndValue(Mine, ValueError):
    """One that is a ValueError too."""


class Impolite(BaseException):
    """Not an Exception."""


RETRIED: list[BaseException] = [
    asyncio.CancelledError("x"),
    Exception("x"),
    RuntimeError("x"),
    OSError("x"),
    ConnectionResetError("x"),
    TimeoutError("x"),
    asyncio.IncompleteReadError(b"", 1),
    EOFError("x"),
    MemoryError("x"),
    RecursionError("x"),
    ArithmeticError("x"),
    BufferError("x"),
    StopAsyncIteration("x"),
    ExceptionGroup("x", [ValueError("y")]),
    Mine("x"),
]
PERMANENT: list[BaseException] = [
    ValueError("x"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    json.JSONDecodeError("x", "", 0),
    TypeError("x"),
    KeyError("x"),
    IndexError("x"),
    LookupError("x"),
    AttributeError("x"),
    NameError("x"),
    UnboundLocalError("x"),
    ImportError("x"),
    ModuleNotFoundError("x"),
    AssertionError("x"),
    NotImplementedError("x"),
    MineAndValue("x"),
    SystemExit(1),
    KeyboardInterrupt("x"),
    GeneratorExit("x"),
    BaseExceptionGroup("x", [KeyboardInterrupt()]),
    Impolite("x"),
]


@pytest.mark.parametrize("error", RETRIED, ids=lambda error: type(error).__name__)
def test_what_may_pass_is_tried_again(error: BaseException) -> None:
    assert describe_failure(error) == AttemptError(type(error).__name__, str(error), True, None)


@pytest.mark.parametrize("error", PERMANENT, ids=lambda error: type(error).__name__)
def test_what_trying_again_cannot_change_is_not(error: BaseException) -> None:
    assert describe_failure(error) == AttemptError(type(error).__name__, str(error), False, None)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PermanentError("gone"), AttemptError("PermanentError", "gone", False)),
        (PermanentError("gone", error_type="refused"), AttemptError("refused", "gone", False)),
        (RetryAfter("busy"), AttemptError("RetryAfter", "busy", True)),
        (RetryAfter("busy", seconds=3, error_type="http_429"), AttemptError("http_429", "busy", True, 3.0)),
        (RetryAfter("busy", seconds=0), AttemptError("RetryAfter", "busy", True, 0.0)),
        (TemplateFailed("no user"), AttemptError("template_failed", "no user", False)),
        (ConfigInvalid("config.url is required"), AttemptError("config_invalid", "config.url is required", False)),
    ],
)
def test_what_says_outright_what_it_means(error: BaseException, expected: AttemptError) -> None:
    assert describe_failure(error) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (1e300, 86_400.0),
        (10**400, 86_400.0),
        (float("inf"), 86_400.0),
        (float("nan"), None),
        (-1, None),
        (float("-inf"), None),
        ("5", None),
        (b"5", None),
        ([5], None),
    ],
)
def test_seconds_that_make_no_sense_are_not_waited_for(seconds: Any, expected: float | None) -> None:
    assert describe_failure(RetryAfter("busy", seconds=seconds)).retry_after_seconds == expected


@pytest.mark.parametrize(
    ("error_type", "expected"),
    [
        (None, "PermanentError"),
        ("", "PermanentError"),
        (5, "PermanentError"),
        ("a\ud800", "a?"),
        ("x" * 999, "x" * 200),
    ],
)
def test_a_type_that_is_no_short_text_is_mended(error_type: Any, expected: str) -> None:
    assert describe_failure(PermanentError("gone", error_type=error_type)).type == expected


def test_a_subclass_that_forgets_its_base_is_still_what_it_is() -> None:
    class Refused(PermanentError):
        def __init__(self) -> None:
            pass

    class Busy(RetryAfter):
        def __init__(self) -> None:
            pass

    assert describe_failure(Refused()) == AttemptError("Refused", "Refused", False)
    assert describe_failure(Busy()) == AttemptError("Busy", "Busy", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Mine"),
        ("x" * 5_000, "x" * 4_000),
        ("a\ud800b\udfff", "a?b?"),
        ("ä€😀\x00\n", "ä€😀\x00\n"),
    ],
)
def test_messages_can_be_stored(text: str, message: str) -> None:
    assert describe_failure(Mine(text)).message == message


@pytest.mark.parametrize("raised", [ValueError("no"), SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
def test_an_exception_that_cannot_be_shown(raised: BaseException) -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise raised

    expected = AttemptError("Unprintable", "(the exception cannot be shown as text)", True)
    assert describe_failure(Unprintable()) == expected


def test_what_cannot_be_stored_is_never_tried_again() -> None:
    invalid = describe_bad_output(InvalidJson("$.a is a set, which JSON cannot hold"))
    message = "the handler's result: $.a is a set, which JSON cannot hold"
    assert invalid == AttemptError("output_invalid", message, False)
    large = describe_bad_output(JsonTooLarge("more than 10 bytes of JSON"))
    assert large == AttemptError("output_too_large", "the handler's result: more than 10 bytes of JSON", False)
    odd = describe_bad_output(Impolite("a\ud800"))
    assert odd == AttemptError("output_invalid", "the handler's result: Impolite: a?", False)


def test_a_timeout_is_tried_again() -> None:
    assert timed_out(0.5) == AttemptError("timeout", "the attempt took longer than 0.5 seconds", True)
    assert timed_out(60.0).message == "the attempt took longer than 60 seconds"
