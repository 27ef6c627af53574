"""What only a process of its own can show: cold start, and memory."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

EXAMPLE = {
    "name": "first",
    "dag": {
        "nodes": [
            {"id": "input", "handler": "input"},
            {"id": "left", "handler": "input", "dependencies": ["input"]},
            {"id": "right", "handler": "input", "dependencies": ["input"]},
            {"id": "output", "handler": "output", "dependencies": ["left", "right"]},
        ]
    },
}


def cold_start_seconds() -> float:
    """From starting the command to its end, with one workflow completed in between."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(EXAMPLE, file)
        file.flush()
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "workflow_engine", "run", file.name],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - began


def memory_of_in_flight(folder: Path, executions: int) -> dict[str, Any]:
    """MiB of a process at rest, and with that many executions in flight, measured in a process of its own."""
    output = subprocess.run(
        [sys.executable, __file__, str(folder), str(executions)], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    measured: dict[str, Any] = json.loads(output)
    return measured


def _resident_mebibytes() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * 4096 / 1024 / 1024, 1)


async def _measure(folder: Path, executions: int) -> dict[str, Any]:
    from aiohttp import web

    from workflow_engine.config import load_settings
    from workflow_engine.plugins import Handler, NodeContext, handler, hookimpl
    from workflow_engine.runtime.cli.api import api_runner
    from workflow_engine.runtime.process import Runtime, running

    release = asyncio.Event()

    @handler("gate")
    async def gate(config: dict[str, Any], context: NodeContext) -> None:
        await release.wait()

    class GatePlugin:
        @hookimpl
        def workflow_engine_handlers(self) -> list[Handler]:
            return [gate]

    settings = load_settings({"sqlite_path": folder / "memory.db"})
    nodes = [{"id": f"n{i}", "handler": "gate", "dependencies": [f"n{i - 1}"] if i else []} for i in range(3)]
    document = {"name": "gated", "dag": {"nodes": nodes}}
    async with running(lambda: Runtime(settings, plugins=[GatePlugin()])) as runtime:
        runner = api_runner(runtime)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        at_rest = _resident_mebibytes()

        async def start(count: int) -> None:
            for _ in range(count):
                submitted = await runtime.engine.submit(document)
                await runtime.engine.trigger(submitted.execution_id, {"user": 1})

        await asyncio.gather(*(start(executions // 100) for _ in range(100)))
        while runtime.owner.loaded_count < executions:
            await asyncio.sleep(0.01)
        in_flight = _resident_mebibytes()
        loaded = runtime.owner.loaded_count
        release.set()
        while runtime.owner.loaded_count:
            await asyncio.sleep(0.01)
        await runner.cleanup()
    return {"at rest, MiB": at_rest, "executions in flight": loaded, "with them, MiB": in_flight}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(Path(sys.argv[1]), int(sys.argv[2])))))
