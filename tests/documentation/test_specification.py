"""The curl commands of the specification work as they stand there: on port 8000, against `serve --demo`.

`specification_usage.md` is the section "Usage" of the specification, letter by letter. Only the execution id of its
examples is replaced by the one that the submit answered. Where the kernel allows it, server and client run in a network
of their own, so that nothing else can be on the port.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from markdown_blocks import blocks_of

USAGE = Path(__file__).parent / "specification_usage.md"
EXAMPLE_ID = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"
PORT = 8000
PATIENCE_SECONDS = 60

# The loopback interface of a new network is down; this brings it up and becomes the command that follows.
ENTER = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    request = struct.pack("16sH14x", b"lo", 0x1 | 0x40)
    fcntl.ioctl(any_socket, 0x8914, request)
os.execvp(sys.argv[1], sys.argv[1:])
"""
OWN_NETWORK = ("unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", ENTER)

Shell = Callable[[str], str]


def commands() -> list[str]:
    return [block.text for block in blocks_of(USAGE) if block.language == "bash"]


def answers() -> list[Any]:
    return [json.loads(block.text) for block in blocks_of(USAGE) if block.language == "json"]


def own_network_works() -> bool:
    if not sys.platform.startswith("linux") or shutil.which("unshare") is None:
        return False
    return subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False).returncode == 0


def port_is_free() -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            return False
    return True


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """`shell(command)`: what a shell beside a running `serve --demo` prints for a command."""
    if shutil.which("curl") is None:
        assert not os.environ.get("CI"), "curl is missing: the specification's commands cannot be tried"
        pytest.skip("curl is not installed")
    network: tuple[str, ...] = OWN_NETWORK if own_network_works() else ()
    if not network and not port_is_free():
        pytest.fail(f"port {PORT} is taken: stop what listens on it; the specification's commands name that port")
    commands = str(Path(sys.executable).parent)
    kept = {name: value for name, value in os.environ.items() if name != "API_PORT"}
    environment = {
        **kept,
        "PATH": os.pathsep.join((commands, os.environ["PATH"])),
        "SQLITE_PATH": str(tmp_path / "e.db"),
    }
    # Server and client share one shell, and with it the network: commands come in, and their output goes out.
    process = subprocess.Popen(
        [*network, "bash"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def until(mark: str) -> str:
        lines = []
        for line in stdout:
            if mark in line:
                return "".join(lines)
            lines.append(line)
        raise AssertionError(f"the shell ended: {''.join(lines)}")

    def run(command: str) -> str:
        stdin.write(f"{command}\necho; echo 'end of the command'\n")
        stdin.flush()
        return until("end of the command").strip()

    run("mkfifo serving; workflow-engine serve --demo > serving & exec 3< serving")
    assert "listening on" in run("head -n 1 <&3")
    yield run
    stdin.write("kill %1; wait %1\n")
    stdin.close()
    process.wait(PATIENCE_SECONDS)
    stdout.close()


def test_the_specification_has_these_commands() -> None:
    assert [command.split()[:1] for command in commands()] == [["curl"]] * 4
    assert sum(EXAMPLE_ID in command for command in commands()) == 3


def test_the_curl_commands_of_the_specification_work_as_they_are(shell: Shell) -> None:
    submit, trigger, status, results = commands()
    submitted_like, triggered_like, status_like = answers()

    submitted = json.loads(shell(submit))
    assert submitted.keys() == submitted_like.keys()
    assert submitted["message"] == submitted_like["message"]
    execution_id = submitted["execution_id"]

    triggered = json.loads(shell(trigger.replace(EXAMPLE_ID, execution_id)))
    assert triggered == {**triggered_like, "execution_id": execution_id}

    looked = json.loads(shell(status.replace(EXAMPLE_ID, execution_id)))
    assert looked.keys() >= status_like.keys()
    assert looked["id"] == execution_id
    assert looked["state"] in (status_like["state"], "COMPLETED")
    assert looked["node_states"].keys() == status_like["node_states"].keys()

    early = json.loads(shell(results.replace(EXAMPLE_ID, execution_id)))
    assert early["id"] == execution_id

    # The specification does not say when the results are there, so this waits for them.
    ended = json.loads(shell(results.replace(EXAMPLE_ID, execution_id).strip() + "?wait=60"))
    assert ended["state"] == "COMPLETED"
    assert ended["output_data"].keys() == {"get_user", "get_posts"}
    assert ended["output_data"]["get_user"]["mocked"] is True
