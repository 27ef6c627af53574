"""Settings: what the environment says, what is refused, and that nothing secret is shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from workflow_engine.config import Settings, SettingsError, load_settings
from workflow_engine.config.families import FAMILIES, HANDLER_TIMEOUTS
from workflow_engine.runtime.process import Runtime


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any of our variables."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name.upper().startswith(("HANDLER_TIMEOUT_", "STALE_TIMEOUT_")):
            monkeypatch.delenv(name)


def test_defaults() -> None:
    settings = load_settings()
    assert (settings.api_host, settings.api_port) == ("127.0.0.1", 8000)
    assert settings.sqlite_path == Path("workflow-engine.db")
    assert settings.worker_concurrency == 10
    assert (settings.retry_max_retries, settings.retry_initial_delay, settings.retry_max_delay) == (3, 1.0, 60.0)
    assert settings.demo_mode is False
    assert settings.failpoints == ""


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("ENVIRONMENT", "prod", "environment", "prod"),
        ("LOG_LEVEL", "DEBUG", "log_level", "DEBUG"),
        ("LOG_FORMAT", "json", "log_format", "json"),
        ("API_HOST", "0.0.0.0", "api_host", "0.0.0.0"),
        ("API_PORT", "0", "api_port", 0),
        ("SQLITE_PATH", "/data/engine.db", "sqlite_path", Path("/data/engine.db")),
        ("WORKER_CONCURRENCY", "10000", "worker_concurrency", 10_000),
        ("WORKER_GRACEFUL_SHUTDOWN_TIMEOUT", "0", "worker_graceful_shutdown_timeout", 0.0),
        ("RETRY_MAX_RETRIES", "0", "retry_max_retries", 0),
        ("RETRY_INITIAL_DELAY", "0.5", "retry_initial_delay", 0.5),
        ("RETRY_MAX_DELAY", "1e3", "retry_max_delay", 1000.0),
        ("RETRY_EXPONENTIAL_BASE", "1", "retry_exponential_base", 1.0),
        ("RETRY_JITTER", "false", "retry_jitter", False),
        ("DEMO_MODE", "1", "demo_mode", True),
        ("HTTP_ALLOW_PRIVATE", "true", "http_allow_private", True),
        ("LLM_BASE_URL", "http://llm/v1", "llm_base_url", "http://llm/v1"),
        ("FAILPOINTS", "a@1:kill", "failpoints", "a@1:kill"),
        ("api_port", "81", "api_port", 81),
    ],
)
def test_each_variable_is_read(monkeypatch: pytest.MonkeyPatch, name: str, text: str, field: str, value: Any) -> None:
    monkeypatch.setenv(name, text)
    assert getattr(load_settings(), field) == value


def test_every_setting_is_described_and_has_a_default() -> None:
    families = {family.field for family in FAMILIES}
    documented = {name: field for name, field in Settings.model_fields.items() if name not in families}
    assert len(documented) >= 50
    assert [name for name, field in documented.items() if not field.description] == []
    assert [name for name, field in documented.items() if field.is_required()] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ENVIRONMENT", "production"),
        ("LOG_LEVEL", "info"),
        ("LOG_FORMAT", "xml"),
        ("API_PORT", "65536"),
        ("API_PORT", "-1"),
        ("API_PORT", ""),
        ("API_PORT", "80.5"),
        ("WORKER_CONCURRENCY", "0"),
        ("WORKER_CONCURRENCY", "10001"),
        ("WORKER_CONCURRENCY", "9" * 5_000),
        ("WORKER_GRACEFUL_SHUTDOWN_TIMEOUT", "-0.1"),
        ("WORKER_GRACEFUL_SHUTDOWN_TIMEOUT", "nan"),
        ("RETRY_MAX_RETRIES", "101"),
        ("RETRY_INITIAL_DELAY", "inf"),
        ("RETRY_MAX_DELAY", "soon"),
        ("RETRY_EXPONENTIAL_BASE", "0.5"),
        ("RETRY_JITTER", "perhaps"),
        ("DEMO_MODE", "\n"),
        ("HTTP_ALLOW_PRIVATE", "yes please"),
        ("HANDLER_TIMEOUT_INPUT", "0"),
        ("HANDLER_TIMEOUT_INPUT", "-1"),
        ("HANDLER_TIMEOUT_INPUT", "nan"),
        ("HANDLER_TIMEOUT_INPUT", "inf"),
        ("HANDLER_TIMEOUT_INPUT", "604801"),
        ("HANDLER_TIMEOUT_OF_MINE", "fast"),
        ("HANDLER_TIMEOUT_OF_MINE", ""),
        ("HANDLER_TIMEOUT_OF_MINE", "1\n2"),
    ],
)
def test_a_bad_value_is_named_with_what_it_is(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    [line] = str(caught.value).splitlines()
    assert line.startswith(f"{name}: ")
    assert repr(text[:80]) in line or repr(text) in line
    assert len(line) < 400


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_PORT", "RETRY_JITTER", "HANDLER_TIMEOUT_INPUT"):
        monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    named = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert named == ["API_PORT", "RETRY_JITTER", "HANDLER_TIMEOUT_INPUT"]


def test_arguments_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_PORT", "81")
    monkeypatch.setenv("API_HOST", "::1")
    settings = load_settings({"api_port": 82})
    assert (settings.api_port, settings.api_host) == (82, "::1")
    with pytest.raises(SettingsError, match=r"^API_PORT: "):
        load_settings({"api_port": 99_999})


def test_variables_of_others_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    unset = load_settings()
    monkeypatch.setenv("NUMBER_OF_PROCESSORS", "many")
    assert load_settings() == unset


def test_no_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("API_PORT=81\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings().api_port == 8000


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.api_port = 1


@pytest.mark.parametrize(
    ("environment", "given", "allowed"),
    [
        ("dev", None, True),
        ("test", None, True),
        ("prod", None, False),
        ("prod", True, True),
        ("dev", False, False),
    ],
)
def test_private_addresses_by_setting_or_environment(environment: str, given: bool | None, allowed: bool) -> None:
    settings = load_settings({"environment": environment, "http_allow_private": given})
    assert settings.allow_private_addresses is allowed


def test_the_key_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "sk-canary")
    settings = load_settings()
    assert settings.llm_api_key is not None
    assert settings.llm_api_key.get_secret_value() == "sk-canary"
    assert "sk-canary" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    monkeypatch.setenv("API_PORT", "x")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "sk-canary" not in str(caught.value)


def test_handler_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDLER_TIMEOUT_LLM_SERVICE", "5.5")
    monkeypatch.setenv("handler_timeout_my_own_2", "7")
    settings = load_settings()
    assert settings.handler_timeout_seconds("llm_service") == 5.5
    assert settings.handler_timeout_seconds("my-own.2") == 7
    assert settings.handler_timeout_seconds("input") == HANDLER_TIMEOUTS.defaults["INPUT"]
    assert settings.handler_timeout_seconds("call_external_service") == 60
    assert settings.handler_timeout_seconds("anything") == HANDLER_TIMEOUTS.defaults["DEFAULT"]
    monkeypatch.setenv("HANDLER_TIMEOUT_DEFAULT", "9")
    assert load_settings().handler_timeout_seconds("anything") == 9


def test_settings_made_without_the_loader_have_handler_timeouts_too() -> None:
    settings = Settings()  # type: ignore[call-arg]
    assert settings.handler_timeout_seconds("anything") == HANDLER_TIMEOUTS.defaults["DEFAULT"]


@pytest.mark.parametrize("text", ["{", '{"INPUT": -5, "MINE": -5}', "5"])
def test_the_timeouts_come_from_their_own_variables_only(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("HANDLER_TIMEOUTS_SECONDS", text)
    settings = load_settings()
    assert settings.handler_timeouts_seconds == HANDLER_TIMEOUTS.defaults


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"backend": "postgres"}, "BACKEND"),
        ({"backend": "distributed"}, "BACKEND"),
        ({"runtime_roles": "api"}, "RUNTIME_ROLES"),
    ],
)
def test_what_this_version_does_not_have_stops_the_start(given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=f"^{named}: .*this version has the embedded backend only"):
        Runtime(load_settings(given))


@pytest.mark.parametrize("text", ["all", "api,orchestrator,worker", "worker, api, orchestrator"])
def test_all_roles_in_any_order_are_all(text: str) -> None:
    assert load_settings({"runtime_roles": text}).runtime_roles == ("api", "orchestrator", "worker")
