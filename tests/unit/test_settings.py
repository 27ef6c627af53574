"""Settings: what the environment says, what is refused, and that nothing secret is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from workflow_engine.config import Settings, SettingsError, load_settings
from workflow_engine.config.families import FAMILIES, HANDLER_TIMEOUTS
from workflow_engine.config.settings import GROUPS
from workflow_engine.runtime.errors import SetupError
from workflow_engine.runtime.process import Runtime

pytestmark = pytest.mark.usefixtures("clean_environment")


SPECIFIED_DEFAULTS = {
    "ENVIRONMENT": "dev",
    "DEBUG": True,
    "LOG_LEVEL": "INFO",
    "REDIS_HOST": "redis",
    "REDIS_PORT": 6379,
    "POSTGRES_HOST": "postgres",
    "POSTGRES_PORT": 5432,
    "POSTGRES_USER": "postgres",
    "POSTGRES_PASSWORD": SecretStr("postgres"),
    "POSTGRES_DATABASE": "workflow_engine",
    "WORKER_CONCURRENCY": 10,
    "WORKER_HANDLERS": None,
    "REPLICA_ID": None,
    "REDIS_CLUSTER": False,
    "UNKNOWN_HANDLER_TIMEOUT": 3600.0,
    "HEALTH_PORT": None,
    "WORKER_HEARTBEAT_INTERVAL": 5.0,
    "WORKER_HEARTBEAT_TIMEOUT": 15.0,
    "WORKER_STALE_CLAIM_INTERVAL": 30.0,
    "ORCHESTRATOR_CHECKPOINT_INTERVAL": 10.0,
    "ORCHESTRATOR_RECOVERY_TIMEOUT": 60.0,
    "ORCHESTRATOR_STALE_CLAIM_INTERVAL": 15.0,
    "ORCHESTRATOR_STALE_RESULT_TIMEOUT": 30.0,
    "RETRY_MAX_RETRIES": 3,
    "RETRY_INITIAL_DELAY": 1.0,
    "RETRY_MAX_DELAY": 60.0,
}
OTHER_DEFAULTS = {
    "WORKER_PROCESSES": 4,
    "WORKER_PROCESS_MEMORY": 1024,
    "BACKEND": "embedded",
    "RUNTIME_ROLES": ("api", "orchestrator", "worker"),
    "DEMO_MODE": False,
    "LOG_FORMAT": "console",
    "API_HOST": "127.0.0.1",
    "API_PORT": 8000,
    "API_KEYS_REQUIRED": None,
    "API_MAX_CONCURRENT_REQUESTS": 1000,
    "API_REQUEST_TIMEOUT": 30.0,
    "IDEMPOTENCY_KEY_HOURS": 24,
    "SQLITE_PATH": Path("workflow-engine.db"),
    "SKIP_MIGRATIONS": False,
    "RETENTION_DAYS": 0,
    "WORKER_GRACEFUL_SHUTDOWN_TIMEOUT": 30.0,
    "RETRY_EXPONENTIAL_BASE": 2.0,
    "RETRY_JITTER": True,
    "MAX_DEFINITION_BYTES": 4 * 1024 * 1024,
    "MAX_INPUT_BYTES": 1024 * 1024,
    "MAX_NODE_OUTPUT_BYTES": 4 * 1024 * 1024,
    "HTTP_ALLOW_PRIVATE": None,
    "LLM_BASE_URL": None,
    "LLM_API_KEY": None,
    "PLUGINS_ALLOW": None,
    "PLUGINS_DIR": None,
    "PLUGINS_ON_ERROR": "stop",
    "SECRETS_DIR": None,
    "REDIS_DB": 0,
    "REDIS_PASSWORD": None,
    "REDIS_URL": None,
    "REDIS_MAX_CONNECTIONS": 50,
    "REDIS_SOCKET_TIMEOUT": 10.0,
    "POSTGRES_URL": None,
    "POSTGRES_POOL_SIZE": 10,
    "PARTITIONS": 16,
    "FAILPOINTS": "",
}


def test_the_defaults() -> None:
    settings = load_settings()
    defaults = {name.upper(): getattr(settings, name) for group in GROUPS for name in group.model_fields}
    assert defaults == SPECIFIED_DEFAULTS | OTHER_DEFAULTS


def test_the_defaults_of_the_timeouts() -> None:
    settings = load_settings()
    assert settings.handler_timeouts_seconds == {
        "INPUT": 30,
        "OUTPUT": 30,
        "CALL_EXTERNAL_SERVICE": 60,
        "LLM_SERVICE": 120,
        "DEFAULT": 60,
    }
    assert settings.stale_timeouts_seconds == {
        "INPUT": 30,
        "OUTPUT": 30,
        "CALL_EXTERNAL_SERVICE": 120,
        "LLM_SERVICE": 180,
        "DEFAULT": 120,
    }


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
        ("DEBUG", "off", "debug", False),
        ("BACKEND", "distributed", "backend", "distributed"),
        ("RUNTIME_ROLES", "worker,api", "runtime_roles", ("api", "worker")),
        ("API_KEYS_REQUIRED", "false", "api_keys_required", False),
        ("API_KEYS_REQUIRED", "", "api_keys_required", None),
        ("API_MAX_CONCURRENT_REQUESTS", "1", "api_max_concurrent_requests", 1),
        ("API_REQUEST_TIMEOUT", "0.5", "api_request_timeout", 0.5),
        ("IDEMPOTENCY_KEY_HOURS", "1", "idempotency_key_hours", 1),
        ("SKIP_MIGRATIONS", "yes", "skip_migrations", True),
        ("RETENTION_DAYS", "30", "retention_days", 30),
        ("MAX_DEFINITION_BYTES", "1024", "max_definition_bytes", 1024),
        ("MAX_INPUT_BYTES", "2048", "max_input_bytes", 2048),
        ("MAX_NODE_OUTPUT_BYTES", "16777216", "max_node_output_bytes", 16 * 1024 * 1024),
        ("REDIS_PASSWORD", "x", "redis_password", SecretStr("x")),
        ("POSTGRES_PASSWORD", "", "postgres_password", SecretStr("")),
        ("PARTITIONS", "1", "partitions", 1),
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
        ("DEBUG", "*"),
        ("BACKEND", "redis"),
        ("RUNTIME_ROLES", "api,api"),
        ("RUNTIME_ROLES", ""),
        ("API_MAX_CONCURRENT_REQUESTS", "0"),
        ("API_REQUEST_TIMEOUT", "0"),
        ("API_REQUEST_TIMEOUT", "3601"),
        ("IDEMPOTENCY_KEY_HOURS", "0"),
        ("RETENTION_DAYS", "-1"),
        ("RETENTION_DAYS", "1.5"),
        ("MAX_DEFINITION_BYTES", "1023"),
        ("MAX_INPUT_BYTES", "4 MiB"),
        ("MAX_NODE_OUTPUT_BYTES", "16777217"),
        ("SQLITE_PATH", ""),
        ("REDIS_PORT", "0"),
        ("REDIS_DB", "-1"),
        ("REDIS_SOCKET_TIMEOUT", "0"),
        ("POSTGRES_HOST", ""),
        ("POSTGRES_POOL_SIZE", "0"),
        ("PARTITIONS", "0"),
        ("WORKER_HEARTBEAT_INTERVAL", "0"),
        ("WORKER_HEARTBEAT_TIMEOUT", "5"),
        ("ORCHESTRATOR_CHECKPOINT_INTERVAL", "never"),
        ("STALE_TIMEOUT_DEFAULT", "0"),
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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ENVIRONMENT", "production", "must be dev, test or prod, got 'production'"),
        ("DEBUG", "*", "must be true or false, got '*'"),
        ("BACKEND", "redis", "must be embedded, postgres or distributed, got 'redis'"),
        ("API_PORT", "x", "must be a whole number from 0 to 65535, got 'x'"),
        ("API_KEYS_REQUIRED", "x", "must be true or false, got 'x'"),
        ("API_REQUEST_TIMEOUT", "x", "must be a number from 0.01 to 3600, got 'x'"),
        ("WORKER_GRACEFUL_SHUTDOWN_TIMEOUT", "x", "must be a number of at least 0, got 'x'"),
        ("MAX_DEFINITION_BYTES", "x", "must be a whole number from 1024 to 67108864, got 'x'"),
        ("POSTGRES_HOST", "", "must be a text that is not empty, got ''"),
        ("SQLITE_PATH", "", "must be the path of a file, got ''"),
        ("SQLITE_PATH", "/", "must be the path of a file, got '/'"),
        ("SQLITE_PATH", "data/..", "must be the path of a file, got 'data/..'"),
        (
            "RUNTIME_ROLES",
            "api,cook",
            "must be all, or some of api, orchestrator and worker with commas between them, got 'cook'",
        ),
        ("STALE_TIMEOUT_INPUT", "x", "must be a number of seconds above 0 and at most 604800, got 'x'"),
        ("HANDLER_TIMEOUT_", "1", "names no handler; write HANDLER_TIMEOUT_DEFAULT for all that have none"),
        (
            "WORKER_HEARTBEAT_INTERVAL",
            "15",
            "must be below WORKER_HEARTBEAT_TIMEOUT (15), or every worker counts as dead between two heartbeats, "
            "got '15'",
        ),
        (
            "REDIS_PORT",
            "tcp://10.0.0.1:6379",
            "must be a whole number from 1 to 65535, got 'tcp://10.0.0.1:6379'; Kubernetes sets this for a service "
            "called 'redis': put enableServiceLinks: false into the pod's spec, or set REDIS_PORT there yourself",
        ),
    ],
)
def test_the_message_says_what_is_allowed(monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == f"{name}: {message}"


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


@pytest.mark.parametrize(
    ("environment", "host", "given", "required"),
    [
        ("dev", "127.0.0.1", None, False),
        ("test", "::1", None, False),
        ("dev", "localhost", None, False),
        ("dev", "127.9.9.9", None, False),
        ("prod", "127.0.0.1", None, True),
        ("dev", "0.0.0.0", None, True),
        ("dev", "::", None, True),
        ("dev", "10.0.0.1", None, True),
        ("dev", "example.com", None, True),
        ("dev", "", None, True),
        ("prod", "0.0.0.0", False, False),
        ("dev", "127.0.0.1", True, True),
    ],
)
def test_keys_are_required_by_setting_or_environment_and_host(
    environment: str, host: str, given: bool | None, required: bool
) -> None:
    settings = load_settings({"environment": environment, "api_host": host, "api_keys_required": given})
    assert settings.keys_required is required


@pytest.mark.parametrize(
    ("environment", "debug", "shown"),
    [("dev", True, True), ("test", True, True), ("dev", False, False), ("prod", True, False), ("prod", False, False)],
)
def test_faults_are_shown_with_debug_and_never_in_production(environment: str, debug: bool, shown: bool) -> None:
    assert load_settings({"environment": environment, "debug": debug}).shows_faults is shown


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


@pytest.mark.parametrize("backend", ["embedded", "postgres"])
@pytest.mark.parametrize(
    ("given", "named"), [({"runtime_roles": "api"}, "RUNTIME_ROLES"), ({"worker_handlers": "input"}, "WORKER_HANDLERS")]
)
def test_what_needs_processes_that_talk_stops_the_start(backend: str, given: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=f"^{named}: .*BACKEND={backend} .*or set BACKEND=distributed"):
        Runtime(load_settings({"backend": backend, **given}))


def test_a_handler_to_serve_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(SetupError, match=r"^WORKER_HANDLERS: no plugin here has nobody; there are .*input"):
        Runtime(load_settings({"backend": "distributed", "worker_handlers": "input,nobody"}))


@pytest.mark.parametrize("text", ["all", "api,orchestrator,worker", "worker, api, orchestrator"])
def test_all_roles_in_any_order_are_all(text: str) -> None:
    assert load_settings({"runtime_roles": text}).runtime_roles == ("api", "orchestrator", "worker")
