"""Every example runs, from the command line, as its readers will run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
MOCKED = {
    "linear.json": ["process"],
    "fan_out_fan_in.json": ["task_b", "task_c", "task_d"],
    "llm_analysis.json": ["analyze"],
}


def _run(*arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "workflow_engine", "run", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def service_url() -> Iterator[str]:
    service = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "local_service" / "service.py"), "0"], stdout=subprocess.PIPE, text=True
    )
    assert service.stdout is not None
    yield service.stdout.readline().split()[-1]
    service.terminate()
    service.wait()
    service.stdout.close()


def test_every_example_is_tried() -> None:
    found = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.json")}

    assert found == {*MOCKED, "local_service/workflow.json"}


@pytest.mark.parametrize("name", MOCKED)
def test_the_specifications_workflows_run_in_demo_mode(name: str) -> None:
    output = _run(str(EXAMPLES / name), "--demo", "--input", "user_id=123")

    assert list(output) == MOCKED[name]
    assert all(answer["mocked"] is True for answer in output.values())


def test_the_local_service_is_really_called(service_url: str) -> None:
    output = _run(str(EXAMPLES / "local_service" / "workflow.json"), "--input", f"base_url={service_url}")

    received = output["send"]["response"]["received"]
    assert received["greeting"] == "Hello Ada"
    assert received["first_post"] == "Notes on the engine"
    assert [post["id"] for post in received["posts"]] == [1, 2]
    assert received["language"] == "en"
    assert output["send"]["response"]["idempotency_key"].endswith("/send/1")
