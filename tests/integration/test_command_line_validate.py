"""`validate FILE`: without a server, against the handlers that are installed."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Done

RunCommand = Callable[..., Done]

GOOD = '{"name": "good", "dag": {"nodes": [{"id": "a", "handler": "input"}]}}'
BAD = """{
  "name": "bad",
  "dag": {"nodes": [
    {"id": "a", "handler": "inptu"},
    {"id": "b", "handler": "call_external_service", "dependencies": ["a", "c"],
     "config": {
       "urll": "http://example.com/{{ c.output }}"
     }}
  ]}
}"""
# The line of each path: of the key, or of what should have it.
LINES = {
    "dag.nodes[0].handler": 4,
    "dag.nodes[1].dependencies[1]": 5,
    "dag.nodes[1].config.url": 6,
    "dag.nodes[1].config.urll": 7,
}


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """`file(text)`: a file with it."""

    def write(text: str) -> Path:
        path = tmp_path / "flow.json"
        path.write_text(text)
        return path

    return write


def test_a_valid_file(run_command: RunCommand, file: Callable[[str], Path]) -> None:
    path = file(GOOD)
    assert run_command("validate", path) == (0, f"{path} is valid: 1 node\n", "")
    assert run_command("validate", "--json", path).document == {"valid": True, "errors": []}


def test_every_problem_has_its_line(run_command: RunCommand, file: Callable[[str], Path]) -> None:
    path = file(BAD)
    done = run_command("validate", path)
    assert (done.code, done.output) == (2, "")
    first, *lines = done.errors.splitlines()
    assert first == f"{path}: {len(lines)} problems"
    found = {line.split(": ")[1]: int(line.split(": ")[0].rpartition(":")[2]) for line in lines}
    assert found == LINES


def test_every_problem_as_json(run_command: RunCommand, file: Callable[[str], Path]) -> None:
    done = run_command("validate", "--json", file(BAD))
    assert (done.code, done.errors, done.document["valid"]) == (2, "", False)
    assert {each["path"]: each["line"] for each in done.document["errors"]} == LINES


def test_standard_input(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert run_command("validate", "-").output == "standard input is valid: 1 node\n"


def test_a_file_that_is_no_json(run_command: RunCommand, file: Callable[[str], Path]) -> None:
    path = file('{"name": "x",\n 5}')
    done = run_command("validate", path)
    assert (done.code, done.output) == (2, "")
    assert f"{path} is not valid JSON: " in done.errors
    assert "line 2 column 2" in done.errors


def test_a_file_that_is_too_large(
    run_command: RunCommand, file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_DEFINITION_BYTES", "1024")
    document = json.loads(GOOD) | {"description": "x" * 2000}
    done = run_command("validate", "--json", file(json.dumps(document)))
    assert done.code == 2
    assert [(each["path"], each["line"]) for each in done.document["errors"]] == [("$", 1)]
    assert "at most 1024 are allowed" in done.output


def test_paths_cannot_move_the_cursor(run_command: RunCommand, file: Callable[[str], Path]) -> None:
    done = run_command("validate", file(json.dumps(json.loads(GOOD) | {"\x1b[31m": 1, "\u202e": 1})))
    assert done.code == 2
    assert "\x1b" not in done.errors
    assert "\u202e" not in done.errors
