"""Lines of what happens often while something is wrong: one a second for each cause."""

from __future__ import annotations

import asyncio
import logging

import pytest

from workflow_engine.observability.rare_log import RareLog


async def test_one_line_a_second_for_each_cause(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [1000.0]
    rare_log = RareLog(logging.getLogger("test"))
    with monkeypatch.context() as patch:
        patch.setattr(asyncio.get_running_loop(), "time", lambda: times[0])
        for number in range(3):
            rare_log.write(logging.WARNING, "store", f"store {number}")
        rare_log.write(logging.WARNING, "broker", "broker")
        times[0] += 1.0
        rare_log.write(logging.WARNING, "store", "store 3")
        rare_log.write(logging.WARNING, "store", "store 4")
        times[0] += 5.0
        rare_log.write(logging.WARNING, "broker", "broker")
        rare_log.write(logging.WARNING, "store", "store 5")
    assert [record.message for record in caplog.records] == [
        "store 0",
        "broker",
        "store 3 (2 more of this kind)",
        "broker",
        "store 5 (1 more of this kind)",
    ]
