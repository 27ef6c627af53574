"""Real processes: servers that are started, killed and started again on the same database."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from audit import broken_invariants

from workflow_engine.config import load_settings
from workflow_engine.runtime.core.graph import compile_graph
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.parts import node_defaults
from workflow_engine.runtime.store.sqlite import assemble_loaded
from workflow_engine.sql import load_queries

PLUGIN_FOLDER = Path(__file__).parent / "plugin"


def chaos_environment(**variables: str) -> dict[str, str]:
    """The environment of a process under test, with the chaos plugin installed."""
    paths = [str(PLUGIN_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LOG_LEVEL": "WARNING", **variables}


class Server:
    """`workflow-engine serve` on a free port, listening."""

    def __init__(self, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workflow_engine", "serve", "--port", "0"],
            env=chaos_environment(**variables),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "listening on" in line, f"the server did not start: {line!r}"
        self.url = line.split()[-1]

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Start servers that are gone when the test ends."""
    servers: list[Server] = []

    def start(**variables: str) -> Server:
        servers.append(Server(**variables))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


class Audit:
    """What the database holds, read while nobody writes."""

    def __init__(self, database: Path) -> None:
        queries = load_queries("sqlite")
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            ids = [row[0] for row in connection.execute("SELECT execution_id FROM executions")]
            text = "[" + ",".join(f'"{execution_id}"' for execution_id in ids) + "]"
            values = {"execution_ids": text, "with_outputs": True}
            loaded = assemble_loaded(connection.execute(queries["load_executions"], values))
            bodies = dict(connection.execute("SELECT definition_id, body FROM definitions"))
            self.integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
        connection.close()
        defaults = node_defaults(load_settings({}))
        graphs = {definition_id: compile_graph(decode(body), defaults) for definition_id, body in bodies.items()}
        self.executions = {item.record.execution_id: item for item in loaded}
        self.broken = [line for item in loaded for line in broken_invariants(item, graphs[item.record.definition_id])]


@pytest.fixture
def audit_database() -> Callable[[Path], Audit]:
    """Audit a database file."""
    return Audit


@pytest.fixture
def chaos_environment_of() -> Callable[..., dict[str, str]]:
    """The environment of a process under test, with variables of its own."""
    return chaos_environment
