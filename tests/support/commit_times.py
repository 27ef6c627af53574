"""When PostgreSQL has committed each attempt's outcome, against the handlers' own word of when they began.

Both are readings of one clock: of the machine that everything runs on. The server needs `track_commit_timestamp`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from fleet import Start

READ = """
SELECT e.name, a.execution_id, a.node_id, a.attempt, a.state,
       (extract(epoch FROM pg_xact_commit_timestamp(a.xmin)) * 1000000)::bigint AS committed_at
FROM attempts a JOIN executions e USING (execution_id)
"""


@asynccontextmanager
async def connected(variables: Mapping[str, str]) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection to the database that the variables name."""
    connection = await asyncpg.connect(
        host=variables["POSTGRES_HOST"],
        port=int(variables["POSTGRES_PORT"]),
        user=variables["POSTGRES_USER"],
        database=variables["POSTGRES_DATABASE"],
    )
    try:
        yield connection
    finally:
        await connection.close()


async def count_running(connection: asyncpg.Connection[Any]) -> int:
    """How many executions have not ended."""
    count: int = await connection.fetchval("SELECT count(*) FROM executions WHERE state = 'RUNNING'")
    return count


async def premature_starts(
    connection: asyncpg.Connection[Any],
    starts: Iterable[Start],
    dependencies: Mapping[tuple[str, str], Sequence[str]],
) -> tuple[int, list[str]]:
    """How many commits were looked at, and the starts that came before one. `dependencies`: by workflow and node."""
    names: dict[str, str] = {}
    completed: dict[tuple[str, str], int] = {}
    outcomes: dict[tuple[str, str, int], int] = {}
    for name, execution_id, node_id, attempt, state, committed_at in await connection.fetch(READ):
        names[execution_id] = name
        outcomes[execution_id, node_id, attempt] = committed_at
        if state == "COMPLETED":
            completed[execution_id, node_id] = committed_at
    checked = 0
    early = []
    for start in starts:
        # Nothing of an execution that was cancelled before anything had ended is stored.
        needed = (
            [
                (f"the outcome of {each}", completed.get((start.execution_id, each)))
                for each in dependencies[names[start.execution_id], start.node_id]
            ]
            if start.execution_id in names
            else []
        )
        if start.attempt > 1:
            before = (start.execution_id, start.node_id, start.attempt - 1)
            needed.append((f"the outcome of attempt {start.attempt - 1}", outcomes.get(before)))
        for what, committed_at in needed:
            checked += 1
            if committed_at is None or committed_at > start.nanoseconds // 1000:
                early.append(f"{start} began before {what} was committed at {committed_at} us")
    return checked, early
