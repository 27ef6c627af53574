"""`kill -9` in the middle of 200 running executions, ten times in a row, on one database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from users import User, check_outcomes, until_some_are_triggered

from workflow_engine.runtime.core.state import WorkflowState

pytestmark = pytest.mark.chaos

ROUNDS = 10
EXECUTIONS = 200


async def test_killed_ten_times_everything_acknowledged_completes_once(
    tmp_path: Path, start_server: Callable[..., Any], audit_database: Callable[[Path], Any]
) -> None:
    database, log = tmp_path / "engine.db", tmp_path / "handlers.log"
    random, user = Random(1), User()
    in_flight_at_death = []
    for _ in range(ROUNDS):
        server = start_server(SQLITE_PATH=str(database), WORKER_CONCURRENCY="50", CHAOS_HANDLER_LOG=str(log))
        using = asyncio.create_task(user.use(server.url, EXECUTIONS))
        await until_some_are_triggered(user, len(user.triggered) + random.randrange(20, EXECUTIONS // 2))
        server.kill()
        await using
        found = audit_database(database)
        assert found.broken == []
        assert found.integrity == "ok"
        states = Counter(item.record.state for item in found.executions.values())
        in_flight_at_death.append(states[WorkflowState.RUNNING])
    server = start_server(SQLITE_PATH=str(database), WORKER_CONCURRENCY="50", CHAOS_HANDLER_LOG=str(log))
    final = await user.wait_for_all(server.url)
    assert server.stop() == 0

    assert min(in_flight_at_death) > 0, "the server was killed while nothing ran: no test at all"
    assert final == {"COMPLETED": len(user.triggered)}
    assert len(user.triggered) >= ROUNDS * 20
    found = audit_database(database)
    assert found.broken == []
    assert user.submitted <= set(found.executions)
    check_outcomes(found.executions, user.triggered)
    print(f"{len(user.triggered)} executions, in flight when killed: {in_flight_at_death}")  # noqa: T201
