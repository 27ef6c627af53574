"""`python benchmarks/lanes.py`: what misbehaving handlers of each lane do to their neighbours, and nodes per second.

A neighbour is an execution of one node of a well-behaved handler; its latency is from the trigger to the outcome. While
it is measured, four nodes at a time of the other handler misbehave.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workflow_engine.config import load_settings
from workflow_engine.runtime.process import Runtime, running

BAD_AT_ONCE = 4
PAUSE_SECONDS = 0.002
WIDTH = 5_000
TIMEOUT_SECONDS = 0.5
DEEDS = {
    "async": ("blocks", "computes", "hangs", "explodes", "exits"),
    "thread": ("blocks", "computes", "hangs", "explodes", "exits"),
    "process": ("blocks", "computes", "hangs", "explodes", "exits", "ends the process", "takes all memory"),
}


def nodes_of(handler: str, count: int, **config: Any) -> dict[str, Any]:
    """A definition of nodes beside each other."""
    node: dict[str, Any] = {"handler": handler, "config": config, "retry_config": {"max_retries": 0}}
    if config:
        node["timeout_seconds"] = TIMEOUT_SECONDS
    return {"name": f"{handler} {config}", "dag": {"nodes": [{"id": f"n{index}", **node} for index in range(count)]}}


async def run(runtime: Runtime, document: dict[str, Any]) -> float:
    """Run it to its end, whatever that is; seconds from the trigger."""
    submitted = await runtime.engine.submit(document)
    began = time.perf_counter()
    await runtime.engine.trigger(submitted.execution_id)
    await runtime.engine.results(submitted.execution_id, 60)
    return time.perf_counter() - began


async def misbehave(runtime: Runtime, lane: str, what: str) -> None:
    """For ever."""
    while True:
        await run(runtime, nodes_of(f"lane_{lane}", BAD_AT_ONCE, what=what))


async def latencies(runtime: Runtime, seconds: float) -> Sequence[float]:
    """Of neighbours, one after another, in milliseconds."""
    found = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found.append(1000 * await run(runtime, nodes_of("noop", 1)))
        await asyncio.sleep(PAUSE_SECONDS)
    return found


def row(lane: str, what: str, found: Sequence[float]) -> str:
    """A line of the table."""
    ordered = sorted(found)
    late = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return f"| {lane} | {what} | {statistics.median(ordered):.1f} | {late:.1f} | {ordered[-1]:.1f} | {len(ordered)} |"


async def main(seconds: float) -> None:
    """Measure, and print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"sqlite_path": Path(folder) / "engine.db", "log_level": "ERROR", "worker_process_memory": 256}
        async with running(lambda: Runtime(load_settings(settings))) as runtime:
            print("| lane | nodes/s, three times |\n| --- | --- |")
            for lane in DEEDS:
                await run(runtime, nodes_of(f"lane_{lane}", WIDTH))
                rates = [WIDTH / await run(runtime, nodes_of(f"lane_{lane}", WIDTH)) for _ in range(3)]
                print(f"| {lane} | {', '.join(f'{rate:,.0f}' for rate in rates)} |", flush=True)
            print("\n| lane | handlers beside it | p50 ms | p99 ms | worst ms | measured |\n" + "| --- " * 6 + "|")
            print(row("-", "none", await latencies(runtime, seconds)), flush=True)
            for lane, deeds in DEEDS.items():
                for what in deeds:
                    bad = asyncio.create_task(misbehave(runtime, lane, what))
                    print(row(lane, what, await latencies(runtime, seconds)), flush=True)
                    bad.cancel()
                    while runtime.pool.running_count:
                        await asyncio.sleep(PAUSE_SECONDS)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent / "plugin"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each line is measured")
    asyncio.run(main(parser.parse_args().seconds))
