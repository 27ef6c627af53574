"""The watchdog: what it counts, what it says, when it ends the process, and when it does not."""

from __future__ import annotations

import asyncio
import bdb
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from workflow_engine.runtime import watchdog as module
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.machine import Execution
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.watchdog import BEAT_SECONDS, BLOCKED_SECONDS, Watchdog

LIMIT_SECONDS = 5.0
GRAPH = compile_graph(
    {"name": "x", "dag": {"nodes": [{"id": name, "handler": name} for name in ("slow", "other")]}},
    NodeDefaults(RetryPolicy(), lambda _handler: 60.0),
)


class ManualClock(SystemClock):
    """Monotonic time by hand."""

    time = 100.0

    def monotonic(self) -> float:
        return self.time


class Watched:
    """A watchdog on this test's loop, which stands still while the test does not await; the test looks itself."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.left: list[int] = []
        self.delivery: Delivery | None = None
        self.asked: list[object] = []
        self.watchdog = Watchdog(
            clock=self.clock, find_attempt=self._find, limit_seconds=LIMIT_SECONDS, leave=self.left.append
        )

    def _find(self, task: object) -> Delivery | None:
        self.asked.append(task)
        return self.delivery

    def pass_time(self, seconds: float, *, step: float = BEAT_SECONDS) -> None:
        """Look so often, for so long, while the loop stands still."""
        for _ in range(round(seconds / step)):
            self.clock.time += step
            self.watchdog.look()

    def beat(self) -> None:
        self.watchdog._beat()
        self.pass_time(BEAT_SECONDS)


@pytest.fixture
async def watched() -> AsyncIterator[Watched]:
    """Attached to this loop, without a thread."""
    watched = Watched()
    watched.watchdog.attach()
    watched.pass_time(BEAT_SECONDS)
    yield watched
    watched.watchdog.stop()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def test_a_loop_that_beats_is_left_alone(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        watched.beat()
        watched.pass_time(BLOCKED_SECONDS - 2 * BEAT_SECONDS)
    assert (watched.watchdog.blocked_count, watched.watchdog.longest_block_seconds) == (0, 0.0)
    assert (caplog.records, watched.left) == ([], [])


async def test_each_block_is_counted_and_the_longest_is_kept(watched: Watched) -> None:
    for seconds in (2.0, 3.0, 1.5):
        watched.pass_time(seconds)
        watched.beat()
    assert (watched.watchdog.blocked_count, watched.watchdog.longest_block_seconds) == (3, 3.0)


async def test_who_blocks_is_named_once_with_the_stack(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.delivery = Delivery(Execution("e1", GRAPH, b"{}"), 0, 2)

    def block_the_loop() -> None:
        watched.pass_time(2.0)

    block_the_loop()
    watched.beat()
    block_the_loop()
    watched.beat()
    watched.delivery = Delivery(Execution("e2", GRAPH, b"{}"), 1, 1)
    block_the_loop()
    first, second = warnings(caplog)
    assert "by the handler slow, in attempt 2 of node slow of execution e1: nothing else runs" in first
    assert "by the handler other, in attempt 1 of node other of execution e2" in second
    assert watched.watchdog.blocked_count == 3
    assert set(watched.asked) == {asyncio.current_task()}
    [record, _other] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert (record.execution_id, record.attempt) == ("e1", 2)  # type: ignore[attr-defined]
    assert "in block_the_loop" in (record.stack_info or "")


async def test_what_is_no_attempt_is_named_by_its_place(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    watched.pass_time(2.0)
    [warning] = warnings(caplog)
    assert "by Watchdog._frame (workflow_engine.runtime.watchdog)" in warning, "which this test calls on the loop"


async def test_so_many_causes_are_told_and_no_more(
    watched: Watched, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_CAUSES", 1)
    for node in (0, 1):
        watched.delivery = Delivery(Execution("e1", GRAPH, b"{}"), node, 1)
        watched.pass_time(2.0)
        watched.beat()
    assert len(warnings(caplog)) == 1
    assert watched.watchdog.blocked_count == 2


async def test_a_process_that_can_renew_nothing_any_more_ends(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    watched.delivery = Delivery(Execution("e1", GRAPH, b"{}"), 0, 1)
    watched.pass_time(LIMIT_SECONDS - BEAT_SECONDS)
    assert watched.left == []
    watched.pass_time(BEAT_SECONDS)
    assert watched.left == [1]
    assert "by the handler slow, in attempt 1 of node slow of execution e1: what this process owned" in caplog.text


async def test_a_process_that_was_stopped_has_all_its_time_when_it_wakes(watched: Watched) -> None:
    """SIGSTOP, or a machine that slept: the thread stood still as well."""
    watched.pass_time(LIMIT_SECONDS - 4 * BEAT_SECONDS)
    watched.pass_time(3_600.0, step=3_600.0)
    assert watched.left == []
    watched.pass_time(BEAT_SECONDS)
    assert watched.left == []
    watched.beat()
    watched.pass_time(LIMIT_SECONDS - BEAT_SECONDS)
    assert watched.left == []


async def test_a_process_that_is_debugged_does_not_end(watched: Watched) -> None:
    bdb.Bdb().runcall(watched.pass_time, 2 * LIMIT_SECONDS)
    assert watched.watchdog.longest_block_seconds == 2 * LIMIT_SECONDS
    assert watched.left == []


async def test_a_log_that_blocks_does_not_keep_the_process(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    begun: list[Any] = []

    def block(*_values: Any, **_options: Any) -> None:
        begun.append(None)
        released.wait()

    monkeypatch.setattr(module.log, "handle", block)
    monkeypatch.setattr(module, "SAYING_SECONDS", 0.01)
    watched.pass_time(LIMIT_SECONDS)
    assert len(begun) == 2
    assert watched.left == [1]
    released.set()


PROGRAM = """
import asyncio
import sys
import threading
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.watchdog import Watchdog

async def main():
    watchdog = Watchdog(clock=SystemClock(), find_attempt=lambda task: None, limit_seconds=float(sys.argv[1]))
    watchdog.start()
    while not watchdog.blocked_count:
        hold_the_loop(watchdog)
    await asyncio.sleep(0)
    watchdog.stop()
    print(watchdog.blocked_count)

def hold_the_loop(watchdog):
    held = threading.Event()
    while not held.wait(0.01) and (watchdog.blocked_count == 0 or sys.argv[2] == "for ever"):
        pass

asyncio.run(main())
"""


@pytest.fixture
def run_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_program("1.5", "for ever")`: a process whose loop is held until the watchdog has seen it, or for ever."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_the_thread_ends_a_process_whose_loop_is_held(run_program: Callable[..., Any]) -> None:
    ended = run_program("1.5", "for ever")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "the event loop is blocked for " in ended.stderr
    assert "what this process owned is others' by now, so it ends" in ended.stderr
    assert "in hold_the_loop" in ended.stderr


def test_the_thread_lets_a_process_be_that_goes_on(run_program: Callable[..., Any]) -> None:
    ended = run_program("inf", "a while")
    assert (ended.returncode, ended.stdout) == (0, "1\n")
    assert ended.stderr.count("the event loop is blocked for ") == 1
