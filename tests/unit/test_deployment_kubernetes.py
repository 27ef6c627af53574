"""The manifests of deploy/kubernetes: what they say of the engine is so, and no pod has more rights than it needs."""

from __future__ import annotations

from typing import Any

import pytest
from deployment import ROOT, documents, image_variables, no_settings

from workflow_engine import __version__
from workflow_engine.config import load_settings

FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.rglob("*.yaml"))
OBJECTS = [document for file in FILES for document in documents(file)]
ENGINES = ("api", "worker")
SERVERS = ("postgres", "redis")


def found(kind: str, name: str) -> Any:
    [document] = [each for each in OBJECTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return document


def workload(name: str) -> Any:
    return found("Deployment" if name in ENGINES else "StatefulSet", name)


def pod(name: str) -> Any:
    return workload(name)["spec"]["template"]["spec"]


def container(name: str) -> Any:
    [only] = pod(name)["containers"]
    return only


def variables(name: str) -> dict[str, str]:
    """What the containers of an engine's deployment get: of the image, the config map, the secret, and themselves."""
    own = {each["name"]: each.get("value", "a-pod-of-this-name") for each in container(name)["env"]}
    sources = [
        found("ConfigMap", each["configMapRef"]["name"])["data"]
        if "configMapRef" in each
        else found("Secret", each["secretRef"]["name"])["stringData"]
        for each in container(name)["envFrom"]
    ]
    return image_variables() | {name: text for source in sources for name, text in source.items()} | own


def test_the_namespace_comes_first_and_holds_everything() -> None:
    first, *others = OBJECTS
    assert first["kind"] == "Namespace"
    assert first["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {each["metadata"]["namespace"] for each in others} == {first["metadata"]["name"]}


def test_servers_for_trying_are_not_applied_with_the_rest() -> None:
    for name in SERVERS:
        file = FOLDER / "servers-for-trying" / f"{name}.yaml"
        assert file in FILES
        assert file.read_text("utf-8").startswith("# FOR TRYING ONLY")


def test_the_example_of_a_secret_says_so_loudly() -> None:
    text = (FOLDER / "20-secret.yaml").read_text("utf-8")
    assert "REPLACE EVERY ONE OF THEM" in text
    assert all("REPLACE-ME" in value for value in found("Secret", "workflow-engine")["stringData"].values())


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.usefixtures("clean_environment")
def test_every_variable_is_a_setting_that_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = variables(name)
    assert all(isinstance(text, str) for text in given.values())
    assert no_settings(given) == []
    for variable, text in given.items():
        monkeypatch.setenv(variable, text)
    settings = load_settings()
    assert (settings.environment, settings.backend) == ("prod", "distributed")
    assert settings.keys_required
    assert settings.replica_id is not None
    assert settings.runtime_roles == {"api": ("api", "orchestrator"), "worker": ("worker",)}[name]
    port = settings.api_port if name == "api" else settings.health_port
    assert container(name)["ports"] == [{"name": "http", "containerPort": port}]


@pytest.mark.parametrize("name", ENGINES)
def test_a_replica_is_called_after_its_pod(name: str) -> None:
    [source] = [each["valueFrom"] for each in container(name)["env"] if each["name"] == "REPLICA_ID"]
    assert source == {"fieldRef": {"fieldPath": "metadata.name"}}


@pytest.mark.parametrize("name", ENGINES)
def test_a_pod_is_probed_and_has_the_time_to_end(name: str) -> None:
    given = container(name)
    paths = {probe: given[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe: (each["path"], each["port"]) for probe, each in paths.items()} == {
        "startupProbe": ("/livez", "http"),
        "livenessProbe": ("/livez", "http"),
        "readinessProbe": ("/readyz", "http"),
    }
    # The entrypoint may wait for a minute.
    assert given["startupProbe"]["periodSeconds"] * given["startupProbe"]["failureThreshold"] >= 90
    pause = given.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["sleep", "0"])[1]
    shutdown_seconds = float(variables(name)["WORKER_GRACEFUL_SHUTDOWN_TIMEOUT"])
    assert pod(name)["terminationGracePeriodSeconds"] >= float(pause) + shutdown_seconds + 10
    assert found("PodDisruptionBudget", name)["spec"]["maxUnavailable"] == 1
    assert workload(name)["spec"]["replicas"] >= 2


@pytest.mark.parametrize("name", [*ENGINES, *SERVERS])
def test_a_pod_has_no_more_rights_than_it_needs(name: str) -> None:
    given = pod(name)
    assert given["enableServiceLinks"] is False
    assert given["automountServiceAccountToken"] is False
    assert given["securityContext"]["runAsNonRoot"] is True
    assert given["securityContext"]["runAsUser"] > 0
    assert given["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    resources = container(name)["resources"]
    assert {"cpu", "memory"} <= resources["requests"].keys()
    assert "memory" in resources["limits"]


@pytest.mark.parametrize("name", [*ENGINES, *SERVERS])
def test_labels_and_volumes_meet(name: str) -> None:
    spec = workload(name)["spec"]
    labels = spec["template"]["metadata"]["labels"]
    selectors = [spec["selector"]["matchLabels"]]
    if name in ENGINES:
        selectors.append(found("PodDisruptionBudget", name)["spec"]["selector"]["matchLabels"])
    if name != "worker":
        selectors.append(found("Service", "workflow-engine" if name == "api" else name)["spec"]["selector"])
    assert all(selector == labels for selector in selectors)
    volumes = {each["name"] for each in pod(name)["volumes"]}
    volumes |= {each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", [])}
    assert {each["name"] for each in container(name)["volumeMounts"]} == volumes


def test_the_image_is_this_version() -> None:
    assert {container(name)["image"] for name in ENGINES} == {f"workflow-engine:{__version__}"}


def test_the_servers_for_trying_are_those_of_the_settings() -> None:
    settings = found("ConfigMap", "workflow-engine")["data"]
    postgres = {each["name"]: each for each in container("postgres")["env"]}
    assert postgres["POSTGRES_DB"]["value"] == settings["POSTGRES_DATABASE"]
    assert postgres["POSTGRES_USER"]["value"] == settings["POSTGRES_USER"]
    for name, prefix in zip(SERVERS, ("POSTGRES", "REDIS"), strict=True):
        [port] = found("Service", settings[f"{prefix}_HOST"])["spec"]["ports"]
        assert str(port["port"]) == settings[f"{prefix}_PORT"]
        passwords = [each for each in container(name)["env"] if each["name"] == f"{prefix}_PASSWORD"]
        assert [each["valueFrom"]["secretKeyRef"]["key"] for each in passwords] == [f"{prefix}_PASSWORD"]
