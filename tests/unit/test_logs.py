"""Log lines: one for people or one JSON object, and none that a message can forge."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest

from workflow_engine.observability.logs import configure_logging

HOSTILE = "first\n2030-01-01 00:00:00,000 ERROR   root: forged\r\x1b[31mred\x00\x85\u2028\u202etxt\x7f end"


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], io.StringIO]]:
    """`configure("INFO", "json")`: set logging up; what is written then. Undone at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    others = {name: logging.getLogger(name).level for name in ("aiosqlite", "asyncio")}

    def configure(level: str, log_format: str) -> io.StringIO:
        written = io.StringIO()
        monkeypatch.setattr(sys, "stderr", written)
        configure_logging(level, log_format)
        return written

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, former in others.items():
        logging.getLogger(name).setLevel(former)


@pytest.fixture
def log() -> logging.Logger:
    """A logger of the engine."""
    return logging.getLogger("workflow_engine.test")


def fail(message: str) -> None:
    raise RuntimeError(message)


Configure = Callable[[str, str], io.StringIO]


def test_console(configure: Configure, log: logging.Logger) -> None:
    written = configure("INFO", "console")
    log.debug("not shown")
    log.info("shown %d: ä€😀", 1)
    log.warning("warned")
    first, second = written.getvalue().splitlines()
    assert first.endswith(" INFO    workflow_engine.test: shown 1: ä€😀")
    assert second.endswith(" WARNING workflow_engine.test: warned")
    assert datetime.fromisoformat(first[:19])


@pytest.mark.parametrize("message", [HOSTILE, "\n", "\r\n\r\n", "\x1b]0;title\x07", "a\tb", "\ud800"])
def test_console_control_characters_cannot_forge_a_line(
    configure: Configure, log: logging.Logger, message: str
) -> None:
    written = configure("INFO", "console")
    log.info("got %s", message)
    [line] = written.getvalue().splitlines()
    assert line.isprintable()
    assert "\n" not in written.getvalue()[:-1]
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
    assert line.endswith(f"INFO    workflow_engine.test: got {shown}")


def test_console_traces_cannot_forge_a_line_either(configure: Configure, log: logging.Logger) -> None:
    written = configure("INFO", "console")
    try:
        fail(HOSTILE)
    except RuntimeError:
        log.exception("it failed", stack_info=True)
    first, *rest = written.getvalue().split("\n")[:-1]
    assert first.endswith("ERROR   workflow_engine.test: it failed")
    assert "    Traceback (most recent call last):" in rest
    assert any("RuntimeError: first" in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_json(configure: Configure, log: logging.Logger) -> None:
    written = configure("WARNING", "json")
    log.info("not shown")
    log.warning("got %s", HOSTILE, extra={"execution_id": "e-1", "odd": {1, 2} - {2}})
    [line] = written.getvalue().split("\n")[:-1]
    assert line.isascii()
    assert line.isprintable()
    record: dict[str, Any] = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == (
        "WARNING",
        "workflow_engine.test",
        f"got {HOSTILE}",
    )
    assert (record["execution_id"], record["odd"]) == ("e-1", "{1}")
    assert datetime.fromisoformat(record["time"]).tzinfo is not None
    assert set(record) == {"time", "level", "logger", "message", "execution_id", "odd"}


def test_json_has_the_trace_in_the_same_line(configure: Configure, log: logging.Logger) -> None:
    written = configure("INFO", "json")
    try:
        fail(HOSTILE)
    except RuntimeError:
        log.exception("it failed")
    [line] = written.getvalue().split("\n")[:-1]
    record = json.loads(line)
    assert record["message"] == "it failed"
    assert f"RuntimeError: {HOSTILE}" in record["exception"]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_is_logged_may_be_hostile_itself(configure: Configure, log: logging.Logger, log_format: str) -> None:
    class Odd:
        def __repr__(self) -> str:
            return "odd\nodd"

        __str__ = __repr__

    written = configure("INFO", log_format)
    log.info("got %s and %r", Odd(), Odd(), extra={"odd": Odd()})
    log.info("100 %", extra={"name_of_mine": "x"})
    assert len(written.getvalue().splitlines()) == 2


def test_noisy_libraries_are_quiet(configure: Configure) -> None:
    written = configure("DEBUG", "console")
    logging.getLogger("aiosqlite").debug("every statement")
    logging.getLogger("asyncio").info("every selector")
    logging.getLogger("asyncio").error("a fault")
    [line] = written.getvalue().splitlines()
    assert line.endswith("a fault")


def test_setting_it_up_twice_writes_once(configure: Configure, log: logging.Logger) -> None:
    configure("INFO", "console")
    written = configure("INFO", "json")
    log.info("once")
    assert json.loads(written.getvalue())["message"] == "once"
