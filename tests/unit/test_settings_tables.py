"""The tables that are generated from the settings, and the view of what is in effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflow_engine.config import Settings, load_settings
from workflow_engine.config.effective import effective_settings
from workflow_engine.config.families import FAMILIES
from workflow_engine.config.tables import BEGIN_MARK, END_MARK, markdown_tables, rewrite, setting_groups, with_tables

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_every_setting_stands_in_one_row() -> None:
    variables = [row.variable for group in setting_groups() for row in group.rows]
    families = {family.field for family in FAMILIES}
    fields = [name.upper() for name in Settings.model_fields if name not in families]
    members = [family.prefix + suffix for family in FAMILIES for suffix in [*family.defaults, "<HANDLER>"]]
    assert sorted(variables) == sorted(fields + members)


@pytest.mark.parametrize(
    "line",
    [
        "**Core**",
        "| `LOG_LEVEL` | `INFO` | least severe level logged |",
        "| `RETRY_MAX_DELAY` | `60.0` | longest delay between attempts (seconds) |",
        "| `RUNTIME_ROLES` | `all` | what this process does: some of `api`, `orchestrator` and `worker`, with commas "
        "between them; without all three only with `BACKEND=distributed` |",
        "| `STALE_TIMEOUT_LLM_SERVICE` | `180` | how long a delivery of `llm_service` may be out, "
        "while heartbeats cannot be read, before it counts as lost (seconds) |",
        "| `HANDLER_TIMEOUT_DEFAULT` | `60` | longest attempt of every other handler, unless its node says otherwise "
        "(seconds) |",
        "| `LLM_API_KEY` |  | its key, sent as a bearer token |",
    ],
)
def test_a_line_of_the_tables(line: str) -> None:
    assert line in markdown_tables().splitlines()


def test_only_what_is_between_the_marks_is_renewed(tmp_path: Path) -> None:
    file = tmp_path / "a.md"
    file.write_text(f"before\n{BEGIN_MARK}\nold\n{END_MARK}\nafter\n", "utf-8")
    rewrite(file)
    text = file.read_text("utf-8")
    assert text == f"before\n{BEGIN_MARK}\n\n{markdown_tables()}\n\n{END_MARK}\nafter\n"
    assert with_tables(text) == text


@pytest.mark.parametrize("document", ["", BEGIN_MARK, END_MARK, f"{END_MARK}{BEGIN_MARK}"])
def test_a_document_without_the_marks_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        with_tables(document)


def view(**overrides: object) -> dict[str, tuple[object, str]]:
    """Value and origin by variable."""
    shown = effective_settings(load_settings(overrides), overrides)
    return {setting.variable: (setting.value, setting.origin) for setting in shown}


def test_where_each_value_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("api_port", "81")
    monkeypatch.setenv("WORKER_CONCURRENCY", "3")
    monkeypatch.setenv("HANDLER_TIMEOUT_MINE", "7")
    shown = view(api_port=82, demo_mode=True)
    assert shown["API_PORT"] == (82, "command line")
    assert shown["DEMO_MODE"] == (True, "command line")
    assert shown["WORKER_CONCURRENCY"] == (3, "environment")
    assert shown["HANDLER_TIMEOUT_MINE"] == (7, "environment")
    assert shown["HANDLER_TIMEOUT_INPUT"] == (30, "default")
    assert shown["SQLITE_PATH"] == ("workflow-engine.db", "default")
    assert shown["LLM_BASE_URL"] == (None, "default")
    assert shown["RUNTIME_ROLES"] == ("all", "default")


def test_every_row_of_the_tables_is_in_the_view() -> None:
    rows = [row.variable for group in setting_groups() for row in group.rows if "<" not in row.variable]
    assert list(view()) == rows


def test_what_others_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "prod")
    assert view()["API_KEYS_REQUIRED"] == (True, "ENVIRONMENT and API_HOST")
    assert view()["HTTP_ALLOW_PRIVATE"] == (False, "ENVIRONMENT")
    monkeypatch.setenv("API_KEYS_REQUIRED", "false")
    assert view()["API_KEYS_REQUIRED"] == (False, "environment")


def test_secrets_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "canary")
    monkeypatch.setenv("LLM_BASE_URL", "http://user:canary@llm/v1")
    monkeypatch.setenv("POSTGRES_PASSWORD", "canary")
    monkeypatch.setenv("REDIS_URL", "rediss://:canary@cache:7000/3")
    shown = view()
    assert "canary" not in repr(shown)
    assert shown["LLM_API_KEY"] == ("********", "environment")
    assert shown["LLM_BASE_URL"] == ("http://********@llm/v1", "environment")
    assert shown["POSTGRES_PASSWORD"] == ("********", "environment")
    assert shown["REDIS_URL"] == ("rediss://********@cache:7000/3", "environment")
    assert shown["REDIS_PASSWORD"] == ("********", "REDIS_URL")
    assert shown["REDIS_PORT"] == (7000, "REDIS_URL")
    assert shown["REDIS_SOCKET_TIMEOUT"] == (10.0, "default")
