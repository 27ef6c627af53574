"""`workflow-engine config`: the settings in effect, for people and for programs."""

from __future__ import annotations

import json

import pytest

from workflow_engine.runtime.cli.main import main

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_a_table_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "canary")
    assert main(["config", "--host", "::1"]) == 0
    output, errors = capsys.readouterr()
    rows = [line.split() for line in output.splitlines()]
    assert rows[0] == ["variable", "value", "from"]
    assert ["API_HOST", "::1", "command", "line"] in rows
    assert ["HANDLER_TIMEOUT_CALL_EXTERNAL_SERVICE", "60.0", "default"] in rows
    assert ["API_KEYS_REQUIRED", "false", "ENVIRONMENT", "and", "API_HOST"] in rows
    assert ["LLM_API_KEY", "********", "environment"] in rows
    assert "canary" not in output
    assert errors == ""


def test_markup_in_a_value_is_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILPOINTS", "[red]x[/red][bold")
    assert main(["config"]) == 0
    assert "[red]x[/red][bold " in capsys.readouterr().out


def test_what_a_terminal_would_act_on_is_escaped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLITE_PATH", "a\x1b[31mb\nc")
    monkeypatch.setenv("WORKER_\x1b[31mX", "1")
    for arguments in (["config"], ["config", "--json"]):
        assert main(arguments) == 0
        output, errors = capsys.readouterr()
        assert "\x1b" not in output + errors
        assert "SQLITE_PATH" in output
        assert "WORKER_" in errors


def test_a_document_for_programs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_CONCURENCY", "1")
    monkeypatch.setenv("RUNTIME_ROLES", "api")
    assert main(["config", "--json", "--port", "0"]) == 0
    output, errors = capsys.readouterr()
    document = json.loads(output)
    assert {"group": "API", "variable": "API_PORT", "value": 0, "origin": "command line"} in document["settings"]
    roles, slip = document["warnings"]
    assert roles.startswith("RUNTIME_ROLES: api needs other processes for the rest")
    assert slip == "WORKER_CONCURENCY is no setting; did you mean WORKER_CONCURRENCY?"
    assert errors.splitlines() == [f"warning: {roles}", f"warning: {slip}"]


def test_bad_values_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "x")
    monkeypatch.setenv("DEBUG", "x")
    assert main(["config"]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert [line.partition(":")[0] for line in errors.splitlines()] == ["DEBUG", "API_PORT"]
