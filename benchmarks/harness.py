"""A runtime as `runtime/process.py` builds it, with a handler that does nothing, and ways to load it."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from plugin import noop_plugin

from workflow_engine.config import load_settings
from workflow_engine.runtime.process import Runtime, running
from workflow_engine.runtime.store import sqlite_writer

POLL_SECONDS = 0.002


def chain(nodes: int) -> dict[str, Any]:
    """A chain of `nodes`."""
    return {
        "name": f"chain-{nodes}",
        "dag": {
            "nodes": [
                {"id": f"n{index}", "handler": "noop", "dependencies": [f"n{index - 1}"] if index else []}
                for index in range(nodes)
            ]
        },
    }


def fan_out(width: int) -> dict[str, Any]:
    """One node, `width` nodes that wait for it, one node that waits for those."""
    middle = [f"n{index}" for index in range(width)]
    nodes: list[dict[str, Any]] = [{"id": "first", "handler": "noop"}]
    nodes += [{"id": node_id, "handler": "noop", "dependencies": ["first"]} for node_id in middle]
    nodes.append({"id": "last", "handler": "noop", "dependencies": middle})
    return {"name": f"fan-out-{width}", "dag": {"nodes": nodes}}


class BenchmarkRuntime:
    """A started runtime that is given work."""

    def __init__(self, runtime: Runtime, count_completed: Callable[[], Awaitable[int]]) -> None:
        """`count_completed`: how many executions have ended well, by the database itself."""
        self.runtime = runtime
        self._count_completed = count_completed

    async def run_many(self, document: dict[str, Any], *, executions: int, concurrency: int) -> float:
        """Submit and trigger that many, `concurrency` at a time; seconds until the last one has ended."""
        already = await self._count_completed()
        began = time.perf_counter()
        numbers = iter(range(executions))

        async def user() -> None:
            for _ in numbers:
                submitted = await self.runtime.engine.submit(document)
                await self.runtime.engine.trigger(submitted.execution_id)

        if executions == 1:
            await self._run_one(document)
        else:
            await asyncio.gather(*(user() for _ in range(min(concurrency, executions))))
            while await self._ended() - already < executions:
                await asyncio.sleep(POLL_SECONDS)
        return time.perf_counter() - began

    async def _run_one(self, document: dict[str, Any]) -> None:
        submitted = await self.runtime.engine.submit(document)
        await self.runtime.engine.trigger(submitted.execution_id)
        results = await self.runtime.engine.results(submitted.execution_id, 60)
        assert results.state == "COMPLETED", results

    async def _ended(self) -> int:
        assert self.runtime.owner is not None
        return 0 if self.runtime.owner.loaded_count else await self._count_completed()


class SqliteRuntime(BenchmarkRuntime):
    """One on SQLite, with counters of statements and commits."""

    def __init__(self, runtime: Runtime, reader: sqlite3.Connection) -> None:
        super().__init__(runtime, self._completed)
        self._reader = reader
        self._statements = 0
        self._commits = 0

    def start_counting(self) -> None:
        """Count every statement that the writing connection runs from now on."""
        writer: sqlite_writer.SqliteWriter = self.runtime.store._writer  # type: ignore[attr-defined]
        connection = writer._connection
        assert connection is not None
        connection.set_trace_callback(self._count)

    def _count(self, statement: str) -> None:
        self._statements += 1
        self._commits += statement == "COMMIT"

    def per_node(self, nodes: int) -> dict[str, float]:
        """Statements and commits (one fsync each, checkpoints apart) by node."""
        return {
            "statements per node": round(self._statements / nodes, 4),
            "fsyncs per node": round(self._commits / nodes, 4),
        }

    async def _completed(self) -> int:
        query = "SELECT count(*) FROM executions WHERE state = 'COMPLETED'"
        return int(self._reader.execute(query).fetchone()[0])


@asynccontextmanager
async def open_runtime() -> AsyncIterator[SqliteRuntime]:
    """A fresh runtime with default settings on a database of its own."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        database = Path(folder) / "engine.db"
        settings = load_settings({"sqlite_path": database})
        async with running(lambda: Runtime(settings, plugins=[noop_plugin])) as runtime:
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader:
                yield SqliteRuntime(runtime, reader)
