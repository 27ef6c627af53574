"""Runs the shell blocks of a document one after another, as a reader types them into one terminal."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from markdown_blocks import Block

PATIENCE_SECONDS = 240
SERVING = "listening on"

# Ports that documents name; each session puts free ones in their place, so that sessions may run side by side.
_PORTS = ("8000", "8001", "8765")
_EXECUTION_ID = re.compile(r'"execution_id": ?"([^"]+)"')

# Variables and the folder outlive a block, as they do in a terminal.
_RESUME = """
if [ -f "$SESSION_STATE" ]; then . "$SESSION_STATE"; fi
set -euao pipefail
"""
# The commands look for their server on the port that documents name. Without that variable, or --url, `keys` and
# `doctor` work on this machine's setup, as they do for a reader who has not set it.
_AT_THE_SERVER = ': "${WORKFLOW_ENGINE_URL:=$SESSION_SERVER}"\n'
_ON_THE_SETUP = 'if [ "${WORKFLOW_ENGINE_URL-}" = "$SESSION_SERVER" ]; then unset WORKFLOW_ENGINE_URL; fi\n'
_KEEP = """
trap 'code=$?; { export -p; printf "cd %q\\n" "$PWD"; } > "$SESSION_STATE"; exit $code' EXIT
"""


class BlockFailed(AssertionError):
    """A block of a document did not do what the document says."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Session:
    """One terminal: a folder, an environment, at most one server. `close` ends all that was started."""

    def __init__(self, folder: Path, state_folder: Path, variables: Mapping[str, str]) -> None:
        """`variables` are added to the environment: where servers are that a reader has by other means."""
        self._folder = folder
        self._ports = {port: str(free_port()) for port in _PORTS}
        self._execution_id = ""
        self._server: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._groups: list[int] = []
        self._output = state_folder / "output"
        commands = str(Path(sys.executable).parent)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE_", "PYTEST_"))}
        self._environment = {
            **kept,
            "PATH": os.pathsep.join((commands, os.environ["PATH"])),
            "SESSION_STATE": str(state_folder / "state"),
            "API_PORT": self._ports["8000"],
            "SESSION_SERVER": f"http://127.0.0.1:{self._ports['8000']}",
            **variables,
        }

    def run(self, block: Block) -> None:
        """Do what the block is for. Raises `BlockFailed`."""
        if block.stop_server:
            self._stop_server()
        if block.file is not None:
            self._write(block)
        elif block.output:
            self._compare(block)
        elif block.language == "bash" and block.server:
            self._serve(block)
        elif block.language == "bash" and block.not_run is None:
            self._run(block)

    def close(self) -> None:
        """Stop the server and whatever the blocks have left behind."""
        self._stop_server()
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _write(self, block: Block) -> None:
        target = self._folder / str(block.file)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(self._as_typed(block.text), "utf-8")

    def _compare(self, block: Block) -> None:
        said = self._said()
        for line in filter(None, map(str.strip, block.text.splitlines())):
            if re.search(re.escape(line).replace("…", ".*"), said) is None:
                raise BlockFailed(f"{block.place}: the output has no line {line!r}:\n{said}")

    def _run(self, block: Block) -> None:
        with self._output.open("wb+") as output:
            process = self._start(block, output, _RESUME + _KEEP)
            try:
                code = process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                raise BlockFailed(f"{block.place} does not end:\n{block.text}\n{self._said()}") from None
        said = self._said()
        if code != block.exit_code:
            raise BlockFailed(f"{block.place} ended with {code}, not {block.exit_code}:\n{block.text}\n{said}")
        missing = [text for text in block.shows if self._as_typed(text) not in said]
        if missing:
            raise BlockFailed(f"{block.place} does not show {missing}:\n{block.text}\n{said}")
        if found := _EXECUTION_ID.findall(said):
            self._execution_id = found[-1]

    def _serve(self, block: Block) -> None:
        self._stop_server()
        self._server = self._start(block, subprocess.PIPE, _RESUME)
        assert self._server.stdout is not None
        lines = []
        for line in self._server.stdout:
            lines.append(line.decode("utf-8", "replace"))
            if SERVING in lines[-1]:
                self._reader = threading.Thread(target=self._server.stdout.read)
                self._reader.start()
                return
        raise BlockFailed(f"{block.place} ended, but should serve:\n{block.text}\n{''.join(lines)}")

    def _stop_server(self) -> None:
        if self._server is None:
            return
        server, self._server = self._server, None
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGINT)
        code = server.wait(PATIENCE_SECONDS)
        if self._reader is not None:
            self._reader.join(PATIENCE_SECONDS)
        assert server.stdout is not None
        server.stdout.close()
        if code not in (0, -signal.SIGINT):
            raise BlockFailed(f"the server ended with {code}")

    def _start(self, block: Block, output: IO[bytes] | int, before: str) -> subprocess.Popen[bytes]:
        on_the_setup = re.search(r"workflow-engine (?:keys|doctor)", block.text) and "--url" not in block.text
        before += _ON_THE_SETUP if on_the_setup else _AT_THE_SERVER
        process = subprocess.Popen(
            ["bash", "-c", before + self._as_typed(block.text)],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._groups.append(process.pid)
        return process

    def _as_typed(self, text: str) -> str:
        """`…` is the id that the last answer gave; ports are this session's."""
        for port, own in self._ports.items():
            text = re.sub(rf"\b{port}\b", own, text)
        return text.replace("…", self._execution_id)

    def _said(self) -> str:
        return self._output.read_text("utf-8", "replace")
