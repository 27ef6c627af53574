"""Versions that follow one another while the work goes on: a database of the one before, and one of the next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from commit_times import connected, count_running
from fleet import ALL, QUICK, Fleet
from postgres_server import PostgresServer
from stored import load_sound
from users import User, check_outcomes, until_some_are_triggered

from workflow_engine.runtime.store import postgres_migrations
from workflow_engine.sql import load_migrations

pytestmark = [pytest.mark.chaos, pytest.mark.campaign]

EXECUTIONS = 200
DEADLINE_SECONDS = 60.0
COLUMNS = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"


async def columns_of(connection: asyncpg.Connection[Any]) -> dict[str, set[str]]:
    """The columns of each table."""
    found: dict[str, set[str]] = {}
    for table, column in await connection.fetch(COLUMNS):
        found.setdefault(table, set()).add(column)
    return found


async def copy_rows(source: asyncpg.Connection[Any], target: asyncpg.Connection[Any]) -> None:
    """What both have room for, of every table but that of the migrations."""
    there, here = await columns_of(source), await columns_of(target)
    for table in there.keys() & here.keys() - {"schema_migrations"}:
        columns: Sequence[str] = sorted(there[table] & here[table])
        names = ", ".join(columns)
        rows = await source.fetch(f"SELECT {names} FROM {table}")
        places = ", ".join(f"${number}" for number in range(1, len(columns) + 1))
        await target.execute(f"DELETE FROM {table}")
        await target.executemany(
            f"INSERT INTO {table} ({names}) OVERRIDING SYSTEM VALUE VALUES ({places})", [tuple(row) for row in rows]
        )


async def until_nothing_runs(variables: dict[str, str]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS), connected(variables) as connection:
        while await count_running(connection):
            await asyncio.sleep(0.05)


async def test_what_was_in_flight_under_the_schema_before_goes_on_when_all_start_at_once_and_one_dies_migrating(
    fleet: Fleet, durable_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    [server] = await fleet.start(ALL, **QUICK)
    user = User()
    using = asyncio.create_task(user.use(server.url, EXECUTIONS))
    await until_some_are_triggered(user, EXECUTIONS // 2)
    server.kill()
    await using
    older = {**fleet.variables, "POSTGRES_DATABASE": durable_postgres.create_database()}
    async with connected(fleet.variables) as source, connected(older) as target:
        in_flight = await count_running(source)
        with monkeypatch.context() as before:
            before.setattr(postgres_migrations, "load_migrations", lambda dialect: load_migrations(dialect)[:-1])
            await postgres_migrations.migrate(target, round(time.time() * 1000))
        await copy_rows(source, target)
    fleet.variables = older

    with pytest.raises(AssertionError, match="did not start"):
        await fleet.start(ALL, **QUICK, FAILPOINTS="store.migration.statement:kill")
    await fleet.start(ALL, ALL, ALL, **QUICK)
    await until_nothing_runs(older)

    print(f"{in_flight} of {len(user.triggered)} executions were in flight under the schema before")  # noqa: T201
    assert in_flight > 0
    assert await fleet.stop() == [0, 0, 0]
    check_outcomes(await load_sound(older, user.submitted), user.triggered)


async def test_processes_go_on_while_a_newer_version_extends_the_database_and_none_of_theirs_starts_any_more(
    fleet: Fleet,
) -> None:
    """What a version adds must be additions: this is what the processes of the one before can live with."""
    servers = await fleet.start(ALL, ALL, **QUICK)
    user = User()
    using = asyncio.gather(*(user.use(server.url, EXECUTIONS) for server in servers))
    await until_some_are_triggered(user, EXECUTIONS // 2)
    async with connected(fleet.variables) as connection, connection.transaction():
        for table in (await columns_of(connection)).keys() - {"schema_migrations"}:
            await connection.execute(f"ALTER TABLE {table} ADD COLUMN later text")
        await connection.execute(
            "INSERT INTO schema_migrations SELECT max(number) + 1, 'later', 'later', 0 FROM schema_migrations"
        )
    before = len(user.triggered)
    await using
    await until_nothing_runs(fleet.variables)

    assert before < len(user.triggered) == 2 * EXECUTIONS
    with pytest.raises(AssertionError, match="newer"):
        await fleet.start(ALL, **QUICK)
    assert await fleet.stop() == [0, 0]
    assert "Traceback" not in "".join(server.log for server in servers)
    async with connected(fleet.variables) as connection:
        await connection.execute("DELETE FROM schema_migrations WHERE name = 'later'")
    check_outcomes(await load_sound(fleet.variables, user.submitted), user.triggered)
    print(f"{len(user.triggered)} executions, {len(user.triggered) - before} begun under a newer schema")  # noqa: T201
