"""Attempts for processes of their own, by the handlers of `isolated_plugin`, and who sees what becomes of them."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from commands import PATIENCE_SECONDS

from workflow_engine.runtime.core.graph import NodeDefaults, compile_graph
from workflow_engine.runtime.core.json_text import encode
from workflow_engine.runtime.core.limits import MAX_ATTEMPT_INPUT_BYTES
from workflow_engine.runtime.core.machine import AttemptError, Execution
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.core.retry import RetryPolicy

Result = tuple[bytes | None, AttemptError | None]

MAX_OUTPUT_BYTES = 5 * 1024 * 1024
DEFAULTS = NodeDefaults(RetryPolicy(0, 1.0, 1.0, 2.0, False), lambda _handler: 30.0)

ENGINE = """
import asyncio, json, sys
from isolated import an_attempt, nothing
from workflow_engine.runtime.worker.assignment import ChildSettings
from workflow_engine.runtime.worker.isolated import Isolation

async def main():
    isolation = Isolation(ChildSettings({}, False, "INFO", "console"), idle_seconds=3600)
    output, error = await isolation.run(an_attempt(sys.argv[1], json.loads(sys.argv[2])), 1000, nothing)
    print(output.decode(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
"""A program: run one attempt of a handler with a configuration in a process of its own, print its output, and stay."""


def nothing() -> None:
    """Nobody wants to know when an attempt begins."""


def an_attempt(handler: str, config: Any = None, parameters: Any = None, **outputs: Any) -> Delivery:
    """The second attempt of a node that depends on nodes with these outputs; those of None are not there."""
    before = [{"id": node_id, "handler": "input"} for node_id in outputs]
    nodes = [
        {"id": "left", "handler": "input"},
        *before,
        {"id": "node", "handler": handler, "config": config or {}, "dependencies": list(outputs)},
        {"id": "right", "handler": "output", "dependencies": ["node"]},
    ]
    graph = compile_graph({"name": "a test", "dag": {"nodes": nodes}}, DEFAULTS)
    execution = Execution("execution-1", graph, encode(parameters or {}, MAX_ATTEMPT_INPUT_BYTES))
    execution.outputs[graph.index_of["left"]] = b'"of nobody else"'
    for node_id, output in outputs.items():
        execution.outputs[graph.index_of[node_id]] = encode(output, MAX_ATTEMPT_INPUT_BYTES)
    return Delivery(execution, graph.index_of["node"], 2)


def error_of(result: Result) -> AttemptError:
    output, error = result
    assert output is None
    assert error is not None
    return error


class Witness:
    """Where handlers say that they have begun, and where it is seen when everything that they started is gone."""

    def __init__(self) -> None:
        self.port = 0
        self._arrivals: asyncio.Queue[tuple[int, asyncio.StreamReader]] = asyncio.Queue()
        self._writers: list[tuple[int, asyncio.StreamWriter]] = []

    async def arrive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A handler has begun."""
        process_id = int(await reader.readline())
        self._writers.append((process_id, writer))
        self._arrivals.put_nowait((process_id, reader))

    async def begun(self) -> tuple[int, asyncio.StreamReader]:
        """The id of the process of the next attempt that begins, and its connection."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._arrivals.get()

    def release(self, process_id: int) -> None:
        """Let the last attempt that has begun in a process return, if it waits for that."""
        writer = [writer for writing, writer in self._writers if writing == process_id][-1]
        writer.write(b".")

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self._writers:
            writer.close()


async def until_gone(connection: asyncio.StreamReader) -> None:
    """Wait until no process holds the other end any more."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await connection.read() == b""


def is_there(process_id: int) -> bool:
    """Whether a process has not ended, or was not waited for."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True
