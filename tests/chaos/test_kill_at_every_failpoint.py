"""A process is killed at its first failpoint, its second, and so on until it gets through.

After each death the next process finishes everything that was acknowledged, and nothing twice.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, WorkflowState

pytestmark = pytest.mark.chaos

DRIVER = Path(__file__).parent / "failpoint_driver.py"
DEADLINE_SECONDS = 60
MOST_FAILPOINTS = 1_000
AT_ONCE = 2


def _drive(folder: Path, environment: dict[str, str]) -> int:
    process = subprocess.run(
        [sys.executable, str(DRIVER), str(folder / "engine.db"), str(folder / "journal")],
        env=environment,
        timeout=DEADLINE_SECONDS,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return process.returncode


def _acknowledged(journal: Path, kind: str) -> set[str]:
    lines = journal.read_text().splitlines() if journal.exists() else []
    return {line.split()[1] for line in lines if line.startswith(kind + " ")}


def _kill_at(
    number: int, folder: Path, environment: Callable[..., dict[str, str]], audit: Callable[[Path], Any]
) -> bool:
    """Kill at the n-th failpoint, recover, audit; False when the process got through before."""
    folder.mkdir()
    code = _drive(folder, environment(FAILPOINTS=f"*@{number}:kill"))
    assert code in (0, -signal.SIGKILL), f"the driver ended with {code} at failpoint {number}"
    submitted = _acknowledged(folder / "journal", "submitted")
    triggered = _acknowledged(folder / "journal", "triggered")
    assert _drive(folder, environment()) == 0, f"the process after a death at failpoint {number} did not end well"
    found = audit(folder / "engine.db")
    assert found.integrity == "ok"
    assert found.broken == [], f"killed at failpoint {number}"
    assert submitted <= set(found.executions), f"an acknowledged submit is lost at failpoint {number}"
    for execution_id in triggered:
        assert found.executions[execution_id].record.state in TERMINAL_WORKFLOW_STATES
    states = [item.record.state for item in found.executions.values()]
    assert WorkflowState.RUNNING not in states, f"left running after a death at failpoint {number}"
    assert states.count(WorkflowState.COMPLETED) >= 2
    return code != 0


def test_killed_at_every_failpoint_nothing_is_lost_or_doubled(
    tmp_path: Path, audit_database: Callable[[Path], Any], chaos_environment_of: Callable[..., dict[str, str]]
) -> None:
    killed = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in range(1, MOST_FAILPOINTS, AT_ONCE):
            numbers = range(first, first + AT_ONCE)
            runs = [
                pool.submit(_kill_at, number, tmp_path / str(number), chaos_environment_of, audit_database)
                for number in numbers
            ]
            died = [run.result() for run in runs]
            killed += sum(died)
            if not any(died):
                break
        else:
            pytest.fail(f"{MOST_FAILPOINTS} failpoints and no end")
    assert killed > 30, "the workload passes too few failpoints to mean anything"
    print(f"killed at each of {killed} failpoints")  # noqa: T201
