"""A process is killed at its first failpoint, its second, and so on until it gets through.

After each death the next process, or the other one, finishes everything that was acknowledged, and nothing twice.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from commit_times import connected, count_running
from postgres_server import PostgresServer
from redis_server import RedisServer
from stored import load_sound

from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, WorkflowState

pytestmark = pytest.mark.chaos

DRIVER = Path(__file__).parent / "failpoint_driver.py"
DEADLINE_SECONDS = 60
MOST_FAILPOINTS = 1_000
AT_ONCE = 2
SOME = 9
"""By default one in so many is tried."""

Environment = Callable[..., dict[str, str]]
Found = Mapping[str, Any]
"""Executions as they are stored, by id; each was found to be sound."""

TIMES = {
    "ORCHESTRATOR_STALE_RESULT_TIMEOUT": "1",
    "WORKER_HEARTBEAT_INTERVAL": "0.3",
    "WORKER_HEARTBEAT_TIMEOUT": "1",
    "WORKER_STALE_CLAIM_INTERVAL": "0.5",
}


class Journal:
    """What one workload was told is done."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def acknowledged(self, kind: str) -> set[str]:
        """The ids of what was `submitted` or `triggered`."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return {line.split()[1] for line in lines if line.startswith(kind + " ")}


def _drive(journal: Journal, environment: dict[str, str]) -> int:
    process = subprocess.run(
        [sys.executable, str(DRIVER), str(journal.path)],
        env=environment,
        timeout=DEADLINE_SECONDS,
        stdout=subprocess.DEVNULL,
        check=False,
    )
    return process.returncode


async def _kill_at(number: int, journal: Journal, environment: Environment, **variables: str) -> bool:
    """Run the workload and kill it at its n-th failpoint; False when it got through before."""
    code = await asyncio.to_thread(_drive, journal, environment(FAILPOINTS=f"*@{number}:kill", **variables))
    assert code in (0, -signal.SIGKILL), f"the driver ended with {code} at failpoint {number}"
    return code != 0


def _check(number: int, journal: Journal, found: Found) -> None:
    submitted, triggered = journal.acknowledged("submitted"), journal.acknowledged("triggered")
    assert submitted <= set(found), f"an acknowledged submit is lost at failpoint {number}"
    for execution_id in triggered:
        assert found[execution_id].record.state in TERMINAL_WORKFLOW_STATES
    states = [item.record.state for item in found.values()]
    assert WorkflowState.RUNNING not in states, f"left running after a death at failpoint {number}"


async def _kill_and_recover(
    number: int, journal: Journal, environment: Environment, variables: dict[str, str], audit: Callable[[], Any]
) -> bool:
    """Kill at the n-th failpoint, let the next process finish, audit; False when the first got through."""
    died = await _kill_at(number, journal, environment, **variables)
    code = await asyncio.to_thread(_drive, journal, environment(**variables))
    assert code == 0, f"the process after a death at failpoint {number} did not end well"
    found: Found = await audit()
    _check(number, journal, found)
    assert [item.record.state for item in found.values()].count(WorkflowState.COMPLETED) >= 2
    return died


async def _at_each(step: int, kill: Callable[[int], Awaitable[bool]]) -> int:
    """Kill at one failpoint in `step`, a few at a time, until none is reached; returns how many were."""
    killed = 0
    for first in range(1, MOST_FAILPOINTS, AT_ONCE * step):
        died = await asyncio.gather(*(kill(first + step * each) for each in range(AT_ONCE)))
        killed += sum(died)
        if not any(died):
            return killed
    pytest.fail(f"{MOST_FAILPOINTS} failpoints and no end")


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(SOME, id="some"),
        pytest.param(1, id="every", marks=[pytest.mark.campaign, pytest.mark.timeout(1_800)]),
    ],
)
async def test_killed_at_every_failpoint_nothing_is_lost_or_doubled(
    tmp_path: Path, audit_database: Callable[[Path], Any], chaos_environment_of: Environment, step: int
) -> None:
    async def kill(number: int) -> bool:
        folder = tmp_path / str(number)
        folder.mkdir()
        database = folder / "engine.db"

        async def audit() -> Found:
            found = audit_database(database)
            assert found.integrity == "ok"
            assert found.broken == [], f"killed at failpoint {number}"
            executions: Found = found.executions
            return executions

        variables = {"SQLITE_PATH": str(database)}
        return await _kill_and_recover(number, Journal(folder / "journal"), chaos_environment_of, variables, audit)

    killed = await _at_each(step, kill)
    assert killed * step > 30, "the workload passes too few failpoints to mean anything"
    print(f"killed at {killed} failpoints")  # noqa: T201


def _distributed(database: Mapping[str, str], redis: RedisServer) -> dict[str, str]:
    return {
        **database,
        **TIMES,
        "BACKEND": "distributed",
        "PARTITIONS": "4",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis.port),
    }


@pytest.mark.campaign
@pytest.mark.timeout(1_800)
async def test_killed_at_every_failpoint_with_real_servers_nothing_is_lost_or_doubled(
    tmp_path: Path, durable_postgres: PostgresServer, durable_redis: RedisServer, chaos_environment_of: Environment
) -> None:
    """One replica, which comes back under its name."""

    async def kill(number: int) -> bool:
        settings = durable_postgres.settings(durable_postgres.create_database())
        database = {name.upper(): str(value) for name, value in settings.items()}
        journal = Journal(tmp_path / f"journal-{number}")
        redis_number = number % AT_ONCE
        with durable_redis.client(db=redis_number) as client:
            client.flushdb()
        variables = {**_distributed(database, durable_redis), "REPLICA_ID": "one", "REDIS_DB": str(redis_number)}

        async def audit() -> Found:
            return await load_sound(database, journal.acknowledged("submitted"))

        return await _kill_and_recover(number, journal, chaos_environment_of, variables, audit)

    killed = await _at_each(1, kill)
    assert killed > 50, "the workload passes too few failpoints to mean anything"
    print(f"killed at {killed} failpoints")  # noqa: T201


@pytest.mark.campaign
@pytest.mark.timeout(1_800)
async def test_replicas_killed_at_every_failpoint_leave_everything_to_the_one_that_lives(
    tmp_path: Path,
    start_server: Callable[..., Any],
    database: dict[str, str],
    durable_redis: RedisServer,
    chaos_environment_of: Environment,
) -> None:
    """Two at a time die beside a third; what they have begun is finished by that one."""
    durable_redis.ask("FLUSHALL")
    variables = _distributed(database, durable_redis)
    survivor = await asyncio.to_thread(start_server, WORKER_CONCURRENCY="2", **variables)
    journals: list[Journal] = []

    async def kill(number: int) -> bool:
        journal = Journal(tmp_path / f"journal-{number}")
        journals.append(journal)
        died = await _kill_at(number, journal, chaos_environment_of, WORKER_CONCURRENCY="2", **variables)
        async with asyncio.timeout(DEADLINE_SECONDS), connected(database) as connection:
            while await count_running(connection):
                await asyncio.sleep(0.05)
        _check(number, journal, await load_sound(database, journal.acknowledged("submitted")))
        return died

    killed = await _at_each(1, kill)
    assert killed > 50, "the workload passes too few failpoints to mean anything"
    assert survivor.is_alive
    assert survivor.stop() == 0
    assert "Traceback" not in survivor.log
    print(f"killed at {killed} failpoints, {len(journals)} processes")  # noqa: T201
