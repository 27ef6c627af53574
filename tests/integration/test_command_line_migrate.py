"""`migrate`: on no database, an old one, one in use, and one of a newer version."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands import Done

from workflow_engine.runtime.store.migrations import migrate
from workflow_engine.sql import load_migrations

RunCommand = Callable[..., Done]

NAMES = [f"{each.number:04}_{each.name}" for each in load_migrations("sqlite")]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database that has only the first migration."""
    path = tmp_path / "old.db"
    with monkeypatch.context() as patched, closing(sqlite3.connect(path, isolation_level=None)) as connection:
        first = load_migrations("sqlite")[:1]
        patched.setattr("workflow_engine.runtime.store.migrations.load_migrations", lambda _dialect: first)
        migrate(connection, 0)
    monkeypatch.setenv("SQLITE_PATH", str(path))
    return path


def test_without_a_database(run_command: RunCommand, tmp_path: Path) -> None:
    status = run_command("migrate", "status", "--json")
    assert (status.code, status.document["exists"], status.document["missing"]) == (0, False, NAMES)
    tried = run_command("migrate", "up", "--dry-run")
    assert tried.output.splitlines() == [f"{name}: can be applied" for name in NAMES]
    assert list(tmp_path.iterdir()) == []
    done = run_command("migrate", "up")
    assert done.output.splitlines() == [f"{name}: applied" for name in NAMES]
    assert (run_command("migrate", "up")).output == "the schema is up to date\n"


def test_an_old_database(run_command: RunCommand, database: Path) -> None:
    status = run_command("migrate", "status")
    assert [NAMES[0], "applied"] in status.rows
    assert [NAMES[1], "missing"] in status.rows
    before = database.read_bytes()
    tried = run_command("migrate", "up", "--dry-run", "--json")
    assert (tried.document["dry_run"], tried.document["applied"]) == (True, NAMES[1:])
    assert database.read_bytes() == before
    assert (run_command("migrate", "up", "--json")).document["applied"] == NAMES[1:]
    assert (run_command("migrate", "status", "--json")).document["missing"] == []


def test_a_start_that_may_not_migrate_says_what_to_do(
    run_command: RunCommand, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKIP_MIGRATIONS", "true")
    assert "0002" in (run_command("doctor")).output
    assert (run_command("migrate", "up")).code == 0
    assert (run_command("migrate", "status", "--json")).document["missing"] == []


async def test_while_a_server_runs(
    command: Callable[..., Awaitable[Done]],
    start_runtime: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await start_runtime()
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "engine.db"))
    assert (await command("migrate", "status", "--json")).document["applied"] == NAMES
    for arguments in (["up"], ["up", "--dry-run"]):
        refused = await command("migrate", *arguments)
        assert (refused.code, refused.output) == (1, "")
        assert "another process (pid " in refused.errors


def test_a_database_of_a_newer_version(run_command: RunCommand, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        rows = [(number, "made_up", "x", 0) for number in range(2, len(NAMES) + 2)]
        connection.executemany("INSERT INTO schema_migrations VALUES (?, ?, ?, ?)", rows)
    for verb in ("status", "up"):
        done = run_command("migrate", verb)
        assert (done.code, done.output) == (1, "")
        assert "newer version" in done.errors


def test_a_file_that_is_no_database(run_command: RunCommand, database: Path) -> None:
    database.write_text("text " * 1000)
    for arguments in (["status"], ["up"], ["up", "--dry-run"]):
        done = run_command("migrate", *arguments)
        assert (done.code, done.output) == (1, "")
        assert "is not a sound SQLite database" in done.errors
