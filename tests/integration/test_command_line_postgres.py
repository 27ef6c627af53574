"""The commands that use the database themselves, with BACKEND=postgres."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Done, Process
from postgres_server import PostgresServer

from workflow_engine.sql import load_migrations

RunCommand = Callable[..., Done]

ENTRYPOINT = Path(__file__).parents[2] / "deploy" / "entrypoint.sh"
NAMES = [f"{each.number:04}_{each.name}" for each in load_migrations("postgres")]


@pytest.fixture
def database(run_command: RunCommand, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of an empty database."""
    for name, value in postgres_server.settings(postgres_server.create_database()).items():
        monkeypatch.setenv(name.upper(), str(value))


@pytest.mark.usefixtures("database")
def test_migrate_and_keys(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIP_MIGRATIONS", "true")
    refused = run_command("keys", "list")
    assert refused.code == 1
    assert "workflow-engine migrate up" in refused.errors
    assert run_command("migrate", "up").output.splitlines() == [f"{name}: applied" for name in NAMES]
    assert run_command("migrate", "up").output == "the schema is up to date\n"
    assert run_command("keys", "create", "--name", "first", "--scope", "admin").output.startswith("wfe_")
    assert [row[1:3] for row in run_command("keys", "list").rows[1:]] == [["first", "admin"]]


@pytest.mark.usefixtures("database")
def test_migrate_status_and_a_dry_run_change_nothing(run_command: RunCommand) -> None:
    for _ in range(2):
        status = run_command("migrate", "status", "--json").document
        assert (status["exists"], status["applied"], status["missing"]) == (True, [], NAMES)
        tried = run_command("migrate", "up", "--dry-run", "--json").document
        assert tried == {"dry_run": True, "applied": NAMES}
    assert run_command("migrate", "up", "--json").document == {"dry_run": False, "applied": NAMES}
    assert run_command("migrate", "status").rows[1:] == [[name, "applied"] for name in NAMES]
    assert run_command("migrate", "up", "--dry-run").output == "the schema is up to date\n"


@pytest.mark.usefixtures("database")
def test_migrate_names_the_settings_of_a_database_that_is_not_there(
    run_command: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_DATABASE", "absent")
    for arguments in (["status"], ["up"], ["up", "--dry-run"]):
        done = run_command("migrate", *arguments, "--wait", "60")
        assert (done.code, done.output) == (1, "")
        assert 'database "absent" does not exist; check POSTGRES_URL' in done.errors
        assert "waiting" not in done.errors


@pytest.mark.usefixtures("database")
def test_migrate_does_not_wait_for_ever(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PORT", "1")
    done = run_command("migrate", "up", "--wait", "1.5")
    assert (done.code, done.output) == (1, "")
    waiting, refused = done.errors.splitlines()
    assert waiting.startswith("waiting for PostgreSQL at postgres@127.0.0.1:1/")
    assert "no use of PostgreSQL at postgres@127.0.0.1:1/" in refused


async def test_a_container_waits_for_the_server_migrates_and_serves(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The entrypoint of the image, on this machine: `migrate up --wait`, then the engine in its place."""
    server = PostgresServer()
    settings = {name.upper(): str(value) for name, value in server.settings("postgres").items()}
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = Process(
        await asyncio.create_subprocess_exec(
            *(str(ENTRYPOINT), "serve", "--port", "0"),
            cwd=tmp_path,
            env=environment | settings | {"PATH": search},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    )
    try:
        await process.line("stderr", "waiting for PostgreSQL at ")
        await asyncio.to_thread(server.start)
        await process.line("stdout", "listening on")
        process.signal(signal.SIGTERM)
        assert await process.end() == 0
        assert process.output.splitlines()[: len(NAMES)] == [f"{name}: applied" for name in NAMES]
    finally:
        await process.kill()
        server.close()


@pytest.mark.usefixtures("database")
def test_doctor(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [each for each in run_command("doctor", "--json", "--port", "0").document["findings"]]
    [database] = [each for each in found if each["check"] == "database"]
    assert database["level"] == "ok"
    assert database["message"].startswith("PostgreSQL 1")
    monkeypatch.setenv("POSTGRES_PORT", "1")
    done = run_command("doctor", "--json", "--port", "0")
    [database] = [each for each in done.document["findings"] if each["check"] == "database"]
    assert (done.code, database["level"]) == (1, "error")
    assert "no connection to PostgreSQL at postgres@127.0.0.1:1/" in database["message"]
    assert "unused" not in done.output
