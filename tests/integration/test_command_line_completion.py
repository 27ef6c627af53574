"""Completion, asked of a real shell."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Done

RunCommand = Callable[..., Done]

# What bash does at a tab: it calls the function that is registered for the command, and reads COMPREPLY.
ASK = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
COMP_LINE="${COMP_WORDS[*]}"
COMP_POINT=${#COMP_LINE}
function=$(complete -p workflow-engine | sed 's/.*-F \\([^ ]*\\).*/\\1/')
"$function" workflow-engine "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def complete(run_command: RunCommand, tmp_path: Path) -> Callable[..., list[str]]:
    """`complete("mig")`: what bash offers for `workflow-engine mig`."""

    def run(*words: str) -> list[str]:
        script = tmp_path / "completion.bash"
        script.write_text((run_command("completion", "bash")).output)
        done = subprocess.run(
            ["bash", "--norc", "-c", ASK, "bash", str(script), "workflow-engine", *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        return [line.strip() for line in done.stdout.splitlines() if line.strip()]

    return run


def test_commands(complete: Callable[..., list[str]]) -> None:
    assert complete("mig") == ["migrate"]
    assert {"serve", "run", "validate", "submit", "list", "doctor"} <= {*complete("")}


def test_verbs_options_and_choices(complete: Callable[..., list[str]]) -> None:
    assert complete("definitions", "ver") == ["versions"]
    assert "--created-from" in complete("list", "--cre")
    assert complete("list", "--state", "CO") == ["COMPLETED"]


def test_files(complete: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "my_flow.json").touch()
    assert complete("validate", "my_") == ["my_flow.json"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_can_read_its_script(run_command: RunCommand, tmp_path: Path, shell: str) -> None:
    done = run_command("completion", shell)
    assert done.code == 0
    assert all(name in done.output for name in ("submit", "definitions", "--api-key-file"))
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(done.output)
        subprocess.run([shell, "-n", str(script)], check=True)
