"""The Dockerfile, what of the tree it gets, and the script that a container starts with."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from deployment import ROOT, image_variables, instructions, no_settings

from workflow_engine.config import load_settings

ENTRYPOINT = ROOT / "deploy" / "entrypoint.sh"
GIVEN = list(instructions(ROOT / "Dockerfile"))

# Stands for the engine's command: writes down what it was asked.
COMMAND = """#!/bin/sh
echo "$*" >>"$CALLS"
[ "$1" != migrate ] || exit "${MIGRATE_CODE:-0}"
"""


def one(instruction: str) -> str:
    """The arguments of the last instruction of a kind, which counts."""
    return [arguments for name, arguments in GIVEN if name == instruction][-1]


def health_check() -> list[str]:
    """The command of the image's health check."""
    arguments: list[str] = json.loads(one("HEALTHCHECK").partition("CMD ")[2])
    return arguments


def test_both_stages_have_one_small_base() -> None:
    bases = [arguments.split()[0] for name, arguments in GIVEN if name == "FROM"]
    assert len(bases) == 2
    assert len({*bases}) == 1
    assert re.fullmatch(r"python:3\.1[1-3]-slim", bases[0])


def test_the_user_is_a_number_and_not_root() -> None:
    assert one("USER") == "10001:10001"
    assert "--uid 10001" in one("RUN")
    assert "--gid 10001" in one("RUN")


def test_the_command_is_stopped_by_a_signal_that_it_gets() -> None:
    assert one("STOPSIGNAL") == "SIGTERM"
    assert json.loads(one("ENTRYPOINT")) == ["/usr/local/bin/entrypoint.sh"]
    assert json.loads(one("CMD")) == ["serve"]
    assert os.access(ENTRYPOINT, os.X_OK)


@pytest.mark.usefixtures("clean_environment")
def test_the_images_variables_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert no_settings(image_variables()) == []
    for name, text in image_variables().items():
        monkeypatch.setenv(name, text)
    settings = load_settings()
    assert settings.keys_required, "an image that listens to everybody asks for keys, unless told otherwise"
    assert settings.sqlite_path.parent == Path(), "the database file lies in the working folder"
    assert one("WORKDIR") in one("RUN"), "and that is the user's own"
    assert str(settings.api_port) == str(settings.health_port) == one("EXPOSE")
    assert f"'127.0.0.1', {settings.api_port}" in health_check()[-1]


def test_the_image_is_made_of_the_packages_and_nothing_else() -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    folders = {line.partition("=")[2].strip() for line in parser["options"]["package_dir"].splitlines() if line}
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    given = [line for line in lines if line and not line.startswith("#")]
    assert given[0] == "*"
    assert {line[1:] for line in given if line.startswith("!")} == folders | {
        "LICENSE",
        "README.md",
        "deploy/entrypoint.sh",
        "pyproject.toml",
        "setup.cfg",
    }
    assert [line for line in given[1:] if not line.startswith("!")] == ["**/__pycache__"]


class Probed(BaseHTTPRequestHandler):
    """Answers the path of liveness."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/livez" else 404)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def probed_port() -> Iterator[int]:
    """The port of a server that is alive."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Probed) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_the_health_check_tells_a_living_server_from_none(probed_port: int) -> None:
    program, *arguments = health_check()
    assert program == "python"

    def code(old: str, new: str) -> int:
        changed = [argument.replace("8000", str(probed_port)).replace(old, new) for argument in arguments]
        return subprocess.run([sys.executable, *changed], check=False, capture_output=True, timeout=60).returncode

    assert code("", "") == 0
    assert code("/livez", "/other") == 1
    assert code(str(probed_port), "1") == 1


@pytest.fixture
def run_entrypoint(tmp_path: Path) -> Callable[..., tuple[int, list[str]]]:
    """`run_entrypoint("serve", SKIP_MIGRATIONS="1")`: its exit code, and what it asked of the engine's command."""
    command = tmp_path / "bin" / "workflow-engine"
    command.parent.mkdir()
    command.write_text(COMMAND)
    command.chmod(0o755)
    calls = tmp_path / "calls"

    def run(*arguments: str, **variables: str) -> tuple[int, list[str]]:
        environment = {"PATH": f"{command.parent}:/usr/bin:/bin", "CALLS": str(calls), **variables}
        done = subprocess.run([str(ENTRYPOINT), *arguments], check=False, env=environment, timeout=60)
        return done.returncode, calls.read_text().splitlines()

    return run


@pytest.mark.parametrize("skip", [{}, {"SKIP_MIGRATIONS": "false"}, {"SKIP_MIGRATIONS": "0"}, {"SKIP_MIGRATIONS": ""}])
def test_a_container_migrates_before_it_serves(
    run_entrypoint: Callable[..., tuple[int, list[str]]], skip: dict[str, str]
) -> None:
    assert run_entrypoint("serve", "--demo", **skip) == (0, ["migrate up --wait 60", "serve --demo"])


def test_a_container_that_may_not_migrate_waits_all_the_same(
    run_entrypoint: Callable[..., tuple[int, list[str]]],
) -> None:
    assert run_entrypoint("serve", SKIP_MIGRATIONS="true") == (0, ["migrate status --wait 60", "serve"])


def test_a_container_does_not_serve_a_database_that_it_cannot_use(
    run_entrypoint: Callable[..., tuple[int, list[str]]],
) -> None:
    assert run_entrypoint("serve", MIGRATE_CODE="1") == (1, ["migrate up --wait 60"])


def test_other_commands_are_run_as_they_are(run_entrypoint: Callable[..., tuple[int, list[str]]]) -> None:
    assert run_entrypoint("keys", "create", "--name", "a b") == (0, ["keys create --name a b"])


SCRIPTS = [ROOT / ".ci/run", *sorted((ROOT / "deploy").rglob("*.sh"))]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.relative_to(ROOT).as_posix())
def test_the_shell_can_read_the_scripts(script: Path) -> None:
    first = script.read_text("utf-8").splitlines()[0]
    shell = "bash" if "bash" in first else "sh"
    assert os.access(script, os.X_OK) == first.startswith("#!")
    assert shutil.which(shell)
    done = subprocess.run([shell, "-n", str(script)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_there_are_scripts() -> None:
    assert {"entrypoint.sh", "image.sh", "compose.sh", "common.sh"} <= {script.name for script in SCRIPTS}
