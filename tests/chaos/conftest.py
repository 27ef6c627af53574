"""Real processes: servers that are started, killed and started again on the same database."""

from __future__ import annotations

import importlib.util
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from audit import broken_invariants
from crew import Crew
from fleet import Fleet
from postgres_server import PostgresServer
from redis_server import RedisServer

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
    """`workflow-engine serve`, started; on a free port when it serves the API."""

    def __init__(self, log: Path, **variables: str) -> None:
        """`log`: the file that gets what the process logs."""
        self._log = log
        with log.open("ab") as standard_error:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "workflow_engine", "serve", "--port", "0"],
                env=chaos_environment(**variables),
                stdout=subprocess.PIPE,
                stderr=standard_error,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().split()
        self.url = line[-1] if "listening" in line else None
        """Where its API is; None for one without."""
        if self.url is None and line[-1:] != ["started"]:
            self.close()
            raise AssertionError(f"the server did not start:\n{self.log}")

    @property
    def log(self) -> str:
        """What the process has logged."""
        return self._log.read_text()

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self.process.poll() is None

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

    def terminate(self) -> None:
        """SIGTERM."""
        self.process.terminate()

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns the exit code."""
        return self.process.wait(timeout=60)

    def close(self) -> None:
        """Leave nothing behind."""
        if self.is_alive:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers that are gone when the test ends."""
    servers: list[Server] = []
    numbers = count(1)

    def start(**variables: str) -> Server:
        server = Server(tmp_path / f"server-{next(numbers)}.log", **variables)
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()
        sys.stderr.write(server.log)


@pytest.fixture(scope="session")
def durable_postgres() -> Iterator[PostgresServer]:
    """A server that is as durable as in production. It may be killed, and is to be started again."""
    server = PostgresServer(settings={"track_commit_timestamp": "on"})
    server.start()
    yield server
    server.close()


@pytest.fixture
def database(durable_postgres: PostgresServer) -> dict[str, str]:
    """The variables of an empty database."""
    settings = durable_postgres.settings(durable_postgres.create_database())
    return {name.upper(): str(value) for name, value in settings.items()}


@pytest.fixture(scope="session")
def durable_redis() -> Iterator[RedisServer]:
    """A server that keeps a file of what it is told, as in production."""
    server = RedisServer({"appendonly": "yes", "appendfsync": "everysec"})
    server.start()
    yield server
    server.close()


@pytest.fixture
async def fleet(
    tmp_path: Path, start_server: Callable[..., Server], database: dict[str, str], durable_redis: RedisServer
) -> AsyncIterator[Fleet]:
    """Processes that share the work of an empty database and an empty Redis. None is started yet."""
    durable_redis.ask("FLUSHALL")
    variables = {
        **database,
        "BACKEND": "distributed",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(durable_redis.port),
    }
    fleet = Fleet(start_server, variables, tmp_path / "handlers.log")
    yield fleet
    await fleet.close()


@pytest.fixture
async def start_crew(database: dict[str, str]) -> AsyncIterator[Callable[..., Awaitable[Crew]]]:
    """`await start_crew("all", "worker", redis_port=...)`: replicas in this process that share an empty database.

    They have the plugin of the chaos tests, and `plugins`. Keywords are settings.
    """
    specification = importlib.util.spec_from_file_location("chaos_plugin", PLUGIN_FOLDER / "chaos_plugin.py")
    assert specification is not None
    assert specification.loader is not None
    plugin = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(plugin)
    crews: list[Crew] = []

    async def start(*roles: str, plugins: Sequence[object] = (), **settings: Any) -> Crew:
        given = {"backend": "distributed", "redis_host": "127.0.0.1", **settings}
        crew = Crew(database, given, [plugin, *plugins])
        crews.append(crew)
        for each in roles:
            await crew.start(each)
        if roles:
            await crew.until_shared()
        return crew

    yield start
    for crew in crews:
        await crew.stop()


@pytest.fixture(scope="session")
def outage_seconds(pytestconfig: pytest.Config) -> float:
    """How long servers stay away."""
    seconds: float = pytestconfig.getoption("--outage-seconds")
    return seconds


@pytest.fixture(scope="session")
def chaos_seed(pytestconfig: pytest.Config) -> int:
    """What faults and workloads are drawn from."""
    seed: int = pytestconfig.getoption("--chaos-seed")
    return seed


@pytest.fixture(scope="session")
def chaos_executions(pytestconfig: pytest.Config) -> int:
    """How many executions there are, at least, when everything happens at once."""
    executions: int = pytestconfig.getoption("--chaos-executions")
    return executions


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
        self.broken = [
            line
            for item in loaded
            for line in broken_invariants(item, graphs[item.record.definition_id], clocks_agree=True)
        ]


@pytest.fixture
def audit_database() -> Callable[[Path], Audit]:
    """Audit a database file."""
    return Audit


@pytest.fixture
def chaos_environment_of() -> Callable[..., dict[str, str]]:
    """The environment of a process under test, with variables of its own."""
    return chaos_environment
