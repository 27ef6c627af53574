"""docker-compose.yml: valid, as the specification says, and every variable in it a setting."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from deployment import ROOT, documents, image_variables, no_settings, setting_defaults, specified_defaults
from jsonschema.validators import validator_for

from workflow_engine.config import load_settings

pytestmark = pytest.mark.usefixtures("clean_environment")

VENDORED = Path(__file__).parents[1] / "support" / "compose"
SCHEMA = json.loads((VENDORED / "compose_spec.json").read_text("utf-8"))
[COMPOSE] = documents(ROOT / "docker-compose.yml")
SERVICES: dict[str, Any] = COMPOSE["services"]
ENGINES = ("api", "worker")
SERVERS = ("postgres", "redis")
SPECIFIED_COMMANDS = (
    "docker compose up",
    "docker compose up -d --scale api=3",
    "docker compose up -d --scale worker=3",
    "docker compose up -d --scale api=2 --scale worker=2",
)


def faults(compose: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator_for(SCHEMA)(SCHEMA).iter_errors(compose)]


def interpolated(text: str) -> str:
    """As Compose reads it where the shell's environment has nothing of the kind."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def variables(service: str) -> dict[str, str]:
    """What Compose sets for the processes of a service."""
    return {name: interpolated(text) for name, text in SERVICES[service]["environment"].items()}


def seconds(text: str) -> float:
    """A duration as Compose writes it."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60}[unit]


def test_the_specification_has_these_variables() -> None:
    assert len(specified_defaults()) == 26
    assert specified_defaults()["STALE_TIMEOUT_LLM_SERVICE"] == "180"


def test_the_specifications_defaults_are_those_of_the_settings() -> None:
    defaults = setting_defaults()
    assert {name: defaults[name] for name in specified_defaults()} == specified_defaults()


@pytest.mark.parametrize("service", ENGINES)
def test_every_variable_of_the_specification_is_listed_with_its_default(service: str) -> None:
    listed = variables(service)
    assert {name: listed.get(name) for name in specified_defaults()} == specified_defaults()


def test_the_file_is_valid() -> None:
    assert faults(COMPOSE) == []


@pytest.mark.parametrize("where", [(), ("services", "api"), ("services", "api", "deploy")])
def test_a_key_that_compose_does_not_know_is_found(where: tuple[str, ...]) -> None:
    changed = place = copy.deepcopy(COMPOSE)
    for key in where:
        place = place[key]
    place["unknown"] = 1
    assert any("unknown" in fault for fault in faults(changed))


def test_the_schema_is_the_one_that_was_taken() -> None:
    digest = hashlib.sha256((VENDORED / "compose_spec.json").read_bytes()).hexdigest()
    assert f"| {digest}\n" in (VENDORED / "VENDORED").read_text("utf-8")


@pytest.mark.parametrize("service", ENGINES)
def test_every_variable_is_a_setting_that_is_taken(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = image_variables() | variables(service)
    assert all(isinstance(text, str) for text in SERVICES[service]["environment"].values())
    assert no_settings(given) == []
    for name, text in given.items():
        monkeypatch.setenv(name, text)
    settings = load_settings()
    assert settings.backend == "distributed"
    assert settings.demo_mode
    assert not settings.keys_required


def test_each_service_has_its_roles() -> None:
    assert set(SERVICES) == {*ENGINES, *SERVERS}
    assert variables("api")["RUNTIME_ROLES"] == "api,orchestrator"
    assert variables("worker")["RUNTIME_ROLES"] == "worker"


def test_demo_mode_is_the_only_setting_of_the_shell_beside_the_password() -> None:
    asked = re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text("utf-8"))
    assert {*asked} == {"DEMO_MODE", "POSTGRES_PASSWORD"}
    assert SERVICES["api"]["environment"]["DEMO_MODE"] == "${DEMO_MODE:-true}"


def test_ports_are_those_of_the_specification_and_of_this_machine_only() -> None:
    assert {name: service.get("ports", []) for name, service in SERVICES.items()} == {
        "api": ["127.0.0.1:8000-8010:8000"],
        "worker": [],
        "redis": ["127.0.0.1:6379:6379"],
        "postgres": ["127.0.0.1:5432:5432"],
    }


@pytest.mark.parametrize("service", ENGINES)
def test_it_can_be_scaled(service: str) -> None:
    given = SERVICES[service]
    assert "container_name" not in given
    assert "volumes" not in given
    assert "REPLICA_ID" not in given["environment"]
    assert given["build"] == "."


@pytest.mark.parametrize("service", ENGINES)
def test_it_starts_after_the_servers_and_has_the_time_to_end(service: str) -> None:
    conditions = {name: each["condition"] for name, each in SERVICES[service]["depends_on"].items()}
    assert conditions == dict.fromkeys(SERVERS, "service_healthy")
    assert all("healthcheck" in SERVICES[server] for server in SERVERS)
    shutdown_seconds = float(variables(service)["WORKER_GRACEFUL_SHUTDOWN_TIMEOUT"])
    assert seconds(SERVICES[service]["stop_grace_period"]) >= shutdown_seconds + 10


@pytest.mark.parametrize("service", [*ENGINES, *SERVERS])
def test_it_has_no_more_rights_than_it_needs(service: str) -> None:
    given = SERVICES[service]
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in given["security_opt"]
    assert given.get("user", "the image's") != "root"
    assert ("user" in given) == (service in SERVERS)
    assert given["deploy"]["resources"]["limits"]["memory"]


def test_redis_keeps_what_it_is_given() -> None:
    options = SERVICES["redis"]["command"][1:]
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert given["--appendonly"] == "yes"
    assert given["--maxmemory-policy"] == "noeviction"


def test_postgresql_is_made_for_the_engines_settings() -> None:
    server, engine = variables("postgres"), variables("api")
    assert server["POSTGRES_DB"] == engine["POSTGRES_DATABASE"]
    assert server["POSTGRES_USER"] == engine["POSTGRES_USER"]
    assert server["POSTGRES_PASSWORD"] == engine["POSTGRES_PASSWORD"]


@pytest.mark.parametrize("document", ["README.md", "docs/how-to/deploy.md"])
def test_the_documents_have_the_specifications_commands(document: str) -> None:
    lines = (ROOT / document).read_text("utf-8").splitlines()
    assert [command for command in SPECIFIED_COMMANDS if command not in lines] == []
