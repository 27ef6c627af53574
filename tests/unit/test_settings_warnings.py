"""What the start warns of: names that are nearly ours, settings without effect; and what it says nothing of."""

from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.config import load_settings, setting_warnings
from workflow_engine.config.settings import GROUPS
from workflow_engine.config.unknown import unknown_handlers, unknown_variables

NAMES = [name.upper() for group in GROUPS for name in group.model_fields]
HANDLERS = ["input", "output", "call_external_service", "llm_service", "my-own.2"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment of nobody."""
    for name in list(os.environ):
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("API_PROT", "API_PORT"),
        ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
        ("RETRY_MAX_RETRYS", "RETRY_MAX_RETRIES"),
        ("RETRY_INITIAL_DELAY_SECONDS", "RETRY_INITIAL_DELAY"),
        ("ORCHESTRATOR_CHECKPOINT_INTERVALL", "ORCHESTRATOR_CHECKPOINT_INTERVAL"),
        ("STALE_TIMOUT_INPUT", "STALE_TIMEOUT_INPUT"),
        ("HANDLER_TIMEOUTS_INPUT", "HANDLER_TIMEOUT_INPUT"),
        ("REDIS_HOTS", "REDIS_HOST"),
        ("REDIS_MAX_CONNECTION", "REDIS_MAX_CONNECTIONS"),
        ("POSTGRES_DATABSE", "POSTGRES_DATABASE"),
        ("SQLITE_PAHT", "SQLITE_PATH"),
        ("HTTP_ALLOW_PRIVAT", "HTTP_ALLOW_PRIVATE"),
        ("LLM_BASEURL", "LLM_BASE_URL"),
        ("LOG_LEVL", "LOG_LEVEL"),
        ("RETENTION_DAY", "RETENTION_DAYS"),
        ("IDEMPOTENCY_KEYS_HOURS", "IDEMPOTENCY_KEY_HOURS"),
        ("MAX_OUTPUT_BYTES", "MAX_NODE_OUTPUT_BYTES"),
        ("SKIP_MIGRATION", "SKIP_MIGRATIONS"),
        ("RUNTIME_ROLE", "RUNTIME_ROLES"),
        ("DEMO_MOD", "DEMO_MODE"),
        ("PARTITION", "PARTITIONS"),
    ],
)
def test_a_slip_of_the_pen_is_named_with_what_was_meant(name: str, meant: str) -> None:
    assert list(unknown_variables({name: "1"})) == [f"{name} is no setting; did you mean {meant}?"]


@pytest.mark.parametrize("name", ["WORKER_SHOE_SIZE", "API_FOO", "REDIS_SENTINEL", "ORCHESTRATOR_X"])
def test_what_is_near_to_nothing_is_named_alone(name: str) -> None:
    assert list(unknown_variables({name: "1"})) == [f"{name} is no setting"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HTTP_PROXY", "http://proxy:3128"),
        ("HTTP_HOST", "example.com"),
        ("LOG_FILE", "/var/log/x"),
        ("LOG_DIR", "/var/log"),
        ("MAX_JOBS", "4"),
        ("API_KEY", "x"),
        ("API_URL", "http://x"),
        ("POSTGRES_DB", "x"),
        ("POSTGRES_INITDB_ARGS", "-k"),
        ("POSTGRES_HOST_AUTH_METHOD", "trust"),
        ("POSTGRES_PASSWORD_FILE", "/run/secrets/x"),
        ("REDIS_VERSION", "8"),
        ("REDIS_SERVICE_HOST", "10.0.0.1"),
        ("REDIS_SERVICE_PORT", "6379"),
        ("REDIS_SERVICE_PORT_TCP_REDIS", "6379"),
        ("REDIS_PORT_6379_TCP", "tcp://10.0.0.1:6379"),
        ("REDIS_PORT_6379_TCP_ADDR", "10.0.0.1"),
        ("REDIS_MASTER_PORT", "tcp://10.0.0.1:6379"),
        ("REDIS_MASTER_SERVICE_HOST", "10.0.0.1"),
        ("REDIS_NAME", "/engine/redis"),
        ("REDIS_ENV_VERSION", "8"),
        ("WORKER_PORT_8000_UDP_PROTO", "udp"),
        ("HANDLER_TIMEOUT_ANYTHING", "5"),
        ("HANDLER_TIMEOUTS_SECONDS", "{"),
        ("PATH", "/bin"),
        ("RUNTIME_ENV", "x"),
        ("SKIP_TESTS", "1"),
    ],
)
def test_variables_of_others_are_let_pass(name: str, text: str) -> None:
    assert list(unknown_variables({name: text})) == []


@given(st.sampled_from([name for name in NAMES if re.search("_.{4}", name)]), st.data())
def test_any_letter_left_out_of_a_name_behind_its_prefix_is_found(name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(name.find("_") + 1, len(name) - 1))
    slip = name[:place] + name[place + 1 :]
    [line] = unknown_variables({slip: "1"})
    assert line.startswith(f"{slip} is no setting; did you mean ")


def test_every_setting_is_known() -> None:
    assert list(unknown_variables(dict.fromkeys(NAMES, "x"))) == []


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("HANDLER_TIMEOUT_LLM_SERVICES", "; did you mean HANDLER_TIMEOUT_LLM_SERVICE?"),
        ("STALE_TIMEOUT_MY_OWN", "; did you mean STALE_TIMEOUT_MY_OWN_2?"),
        ("STALE_TIMEOUT_ELSEWHERE", ""),
    ],
)
def test_a_timeout_of_a_handler_that_is_not_there(name: str, end: str) -> None:
    assert list(unknown_handlers({name: "1"}, HANDLERS)) == [f"{name} names no handler that is installed{end}"]


@pytest.mark.parametrize("suffix", ["DEFAULT", "INPUT", "LLM_SERVICE", "MY_OWN_2"])
def test_a_timeout_of_a_handler_that_is_there(suffix: str) -> None:
    assert list(unknown_handlers({f"HANDLER_TIMEOUT_{suffix}": "1"}, HANDLERS)) == []


def test_a_timeout_of_a_handler_that_another_process_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDLER_TIMEOUT_EMBED", "1")
    assert len(setting_warnings(load_settings(), HANDLERS)) == 1
    monkeypatch.setenv("BACKEND", "distributed")
    assert setting_warnings(load_settings(), HANDLERS) == []


def test_the_environment_is_read_whatever_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("api_prot", "1")
    monkeypatch.setenv("stale_timeout_inputs", "1")
    assert setting_warnings(load_settings(), HANDLERS) == [
        "API_PROT is no setting; did you mean API_PORT?",
        "STALE_TIMEOUT_INPUTS names no handler that is installed; did you mean STALE_TIMEOUT_INPUT?",
        "without effect with BACKEND=embedded: STALE_TIMEOUT_INPUTS",
    ]


def test_nothing_is_said_of_an_environment_without_our_settings() -> None:
    assert setting_warnings(load_settings(), HANDLERS) == []


REDIS = {"REDIS_HOST": "a", "REDIS_MAX_CONNECTIONS": "5"}
POSTGRES = {"POSTGRES_URL": "postgresql://b", "POSTGRES_POOL_SIZE": "5"}
HEARTBEATS = {"WORKER_HEARTBEAT_INTERVAL": "1", "WORKER_HEARTBEAT_TIMEOUT": "5", "WORKER_STALE_CLAIM_INTERVAL": "5"}
LEASES = {
    "ORCHESTRATOR_CHECKPOINT_INTERVAL": "5",
    "ORCHESTRATOR_STALE_CLAIM_INTERVAL": "5",
    "ORCHESTRATOR_STALE_RESULT_TIMEOUT": "5",
}
STALE = {"STALE_TIMEOUT_INPUT": "4", "STALE_TIMEOUT_DEFAULT": "4"}
EVERYWHERE = {
    "REPLICA_ID": "a",
    "ORCHESTRATOR_RECOVERY_TIMEOUT": "2",
    "UNKNOWN_HANDLER_TIMEOUT": "2",
    "WORKER_CONCURRENCY": "2",
    "RETENTION_DAYS": "2",
}


@pytest.mark.parametrize(
    ("backend", "used", "unused"),
    [
        ("embedded", {"SQLITE_PATH": "a"}, {**REDIS, **POSTGRES, "PARTITIONS": "4", **HEARTBEATS, **LEASES, **STALE}),
        ("postgres", {**POSTGRES, "PARTITIONS": "4", **LEASES}, {**REDIS, "SQLITE_PATH": "a", **HEARTBEATS, **STALE}),
        (
            "distributed",
            {**REDIS, **POSTGRES, "PARTITIONS": "4", **HEARTBEATS, **LEASES, **STALE, "WORKER_HANDLERS": "input"},
            {"SQLITE_PATH": "a"},
        ),
    ],
)
def test_what_a_backend_does_not_use_is_said(
    monkeypatch: pytest.MonkeyPatch, backend: str, used: dict[str, str], unused: dict[str, str]
) -> None:
    for name, text in {"BACKEND": backend, **used, **EVERYWHERE}.items():
        monkeypatch.setenv(name, text)
    assert setting_warnings(load_settings(), HANDLERS) == []
    for name, text in unused.items():
        monkeypatch.setenv(name, text)
    assert setting_warnings(load_settings(), HANDLERS) == [
        f"without effect with BACKEND={backend}: {', '.join(unused)}"
    ]


def test_a_variable_that_is_set_to_nothing_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PASSWORD", "")
    monkeypatch.setenv("WORKER_HANDLERS", "")
    assert setting_warnings(load_settings(), HANDLERS) == []


@pytest.mark.parametrize(
    ("roles", "line"),
    [
        ("all", "HEALTH_PORT has no effect in a process with the role api, which answers the same on API_PORT"),
        ("api", "HEALTH_PORT has no effect in a process with the role api, which answers the same on API_PORT"),
        ("worker", None),
    ],
)
def test_a_port_for_health_beside_the_api_is_said_to_do_nothing(
    monkeypatch: pytest.MonkeyPatch, roles: str, line: str | None
) -> None:
    for name, text in {"BACKEND": "distributed", "RUNTIME_ROLES": roles, "HEALTH_PORT": "8001"}.items():
        monkeypatch.setenv(name, text)
    assert setting_warnings(load_settings(), HANDLERS) == ([] if line is None else [line])
    monkeypatch.setenv("API_PORT", "8001")
    assert setting_warnings(load_settings(), HANDLERS) == [], "the image sets both, for whatever role it is given"


def test_handlers_of_a_process_that_runs_nothing_are_said_to_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"BACKEND": "distributed", "RUNTIME_ROLES": "api", "WORKER_HANDLERS": "input"}.items():
        monkeypatch.setenv(name, text)
    assert setting_warnings(load_settings(), HANDLERS) == [
        "WORKER_HANDLERS has no effect in a process without the role worker"
    ]


def test_debug_in_production_is_said_to_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "prod")
    assert setting_warnings(load_settings(), HANDLERS) == []
    monkeypatch.setenv("DEBUG", "true")
    assert setting_warnings(load_settings(), HANDLERS) == ["DEBUG has no effect with ENVIRONMENT=prod"]
    monkeypatch.setenv("DEBUG", "false")
    assert setting_warnings(load_settings(), HANDLERS) == []


def test_a_first_delay_above_the_longest_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRY_MAX_DELAY", "0.5")
    assert setting_warnings(load_settings(), HANDLERS) == []
    monkeypatch.setenv("RETRY_INITIAL_DELAY", "2")
    [line] = setting_warnings(load_settings(), HANDLERS)
    assert line == "RETRY_INITIAL_DELAY (2) is above RETRY_MAX_DELAY (0.5), so every delay is RETRY_MAX_DELAY"
