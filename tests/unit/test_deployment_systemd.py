"""The unit of deploy/systemd and the example of its environment."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from deployment import ROOT, no_settings

from workflow_engine.config import load_settings

FOLDER = ROOT / "deploy" / "systemd"
UNIT = (FOLDER / "workflow-engine.service").read_text("utf-8")
ENVIRONMENT = (FOLDER / "workflow-engine.env").read_text("utf-8")
ASSIGNMENT = re.compile(r"^#?([A-Z_]+)=(.*)$", re.MULTILINE)
PROGRAM = "/opt/workflow-engine/bin/workflow-engine"
MOST_EXPOSURE = 20
"""In tenths: 2.0 of 10 by systemd's count, which it calls OK."""


def option(name: str) -> str:
    """The value of an option of the unit that is set once."""
    [value] = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def in_effect() -> dict[str, str]:
    """The variables of the example that are not commented out."""
    return dict(ASSIGNMENT.findall("\n".join(line for line in ENVIRONMENT.splitlines() if not line.startswith("#"))))


@pytest.mark.usefixtures("clean_environment")
def test_every_variable_is_a_setting_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert no_settings(dict(ASSIGNMENT.findall(ENVIRONMENT))) == []
    for name, text in in_effect().items():
        monkeypatch.setenv(name, text)
    settings = load_settings()
    assert settings.backend == "embedded"
    assert settings.keys_required
    assert settings.sqlite_path.parent == Path("/var/lib") / option("StateDirectory")


def test_it_has_the_time_to_end() -> None:
    assert option("KillSignal") == "SIGTERM"
    assert float(option("TimeoutStopSec")) >= float(in_effect()["WORKER_GRACEFUL_SHUTDOWN_TIMEOUT"]) + 10


def test_the_guide_and_the_unit_name_the_same_places() -> None:
    guide = (ROOT / "docs" / "how-to" / "production.md").read_text("utf-8")
    assert option("ExecStart") == f"{PROGRAM} serve"
    for place in (option("EnvironmentFile"), "/opt/workflow-engine/bin/pip", option("User")):
        assert place in guide


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there."""
    program = tmp_path / "workflow-engine"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    file = tmp_path / "workflow-engine.service"
    file.write_text(UNIT.replace(PROGRAM, str(program)))
    return file


def verified(file: Path) -> str:
    """What systemd says of a unit; it says nothing of one that is sound."""
    command = ["systemd-analyze", "verify", "--man=no", str(file)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_has_nothing_to_say_against_it(unit: Path) -> None:
    assert verified(unit) == ""
    unit.write_text(unit.read_text().replace("UMask=", "UMsak="))
    assert "UMsak" in verified(unit)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_it_is_confined(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(unit)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "Overall exposure level" in done.stdout
    assert done.returncode == 0, done.stdout
