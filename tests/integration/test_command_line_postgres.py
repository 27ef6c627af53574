"""The commands that use the database themselves, with BACKEND=postgres."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from commands import Done
from postgres_server import PostgresServer

RunCommand = Callable[..., Done]


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
    assert run_command("migrate", "up").output == "the schema is up to date\n"
    assert run_command("keys", "create", "--name", "first", "--scope", "admin").output.startswith("wfe_")
    assert [row[1:3] for row in run_command("keys", "list").rows[1:]] == [["first", "admin"]]


@pytest.mark.usefixtures("database")
def test_what_is_for_sqlite_only(run_command: RunCommand) -> None:
    for arguments in (["status"], ["up", "--dry-run"]):
        done = run_command("migrate", *arguments)
        assert (done.code, done.output) == (2, "")
        assert "with BACKEND=postgres there is migrate up" in done.errors


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
