"""Servers as processes of their own: the engine's, with a handler that does nothing, and the reference's."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from http_driver import Address

PLUGIN_FOLDER = Path(__file__).parent / "plugin"


class Server(NamedTuple):
    """A process that listens."""

    address: Address
    process_id: int
    start_seconds: float
    """From the start of its process until it listened."""

    def resident_mebibytes(self) -> float:
        """The memory it has now."""
        pages = int(Path(f"/proc/{self.process_id}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2

    def processor_seconds(self) -> float:
        """What it has spent of the processors' time so far, in all its threads."""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def engine_server(**variables: str) -> Iterator[Server]:
    """`workflow-engine serve` with default settings but for `variables`."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(PLUGIN_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "LOG_LEVEL": "WARNING",
        **variables,
    }
    with _listening([sys.executable, "-m", "workflow_engine", "serve", "--port", "0"], environment) as server:
        yield server


@contextmanager
def reference_server(folder: Path, answers: Mapping[str, Sequence[Any]]) -> Iterator[Server]:
    """The bare application of `api_reference.py`."""
    file = folder / "answers.json"
    file.write_text(json.dumps(answers), "utf-8")
    script = str(Path(__file__).parent / "api_reference.py")
    with _listening([sys.executable, script, str(file)], dict(os.environ)) as server:
        yield server


@contextmanager
def _listening(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Server]:
    began = time.perf_counter()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            start_seconds = time.perf_counter() - began
            assert "listening on" in line, f"the server did not start: {line!r}"
            url = urlsplit(line.split()[-1])
            assert url.hostname is not None
            assert url.port is not None
            yield Server((url.hostname, url.port), process.pid, start_seconds)
        finally:
            process.terminate()


def completed_count(database: Path) -> int:
    """How many executions have ended well, by the database itself."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        query = "SELECT count(*) FROM executions WHERE state = 'COMPLETED'"
        return int(connection.execute(query).fetchone()[0])
