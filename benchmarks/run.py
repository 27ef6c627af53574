"""The benchmark: the engine through its own door, beside references taken in the same run.

"Through the engine" is submit and trigger in process, each acknowledged after its commit, one
definition reused, a registered handler that does nothing, default settings, SQLite with
`synchronous=FULL`. The reference writes the rows that the engine needs for the same work, and nothing
else, to the same SQLite settings in batches of 200 rows; the ratio is engine to reference.

    python benchmarks/run.py [--rounds N] [--only NAME] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from harness import chain, fan_out, open_runtime
from processes import cold_start_seconds, memory_of_in_flight
from reference import write_rows
from table import Case, measure, print_table

BATCH_ROWS = 200


def _reference(function: Callable[[], float]) -> Callable[[], Awaitable[float]]:
    """A reference that is no coroutine, as one."""

    async def measured() -> float:
        return function()

    return measured


async def _chain_throughput(executions: int, nodes: int, counters: dict[str, Any]) -> float:
    async with open_runtime() as runtime:
        await runtime.run_many(chain(nodes), executions=10, concurrency=10)
        runtime.start_counting()
        seconds = await runtime.run_many(chain(nodes), executions=executions, concurrency=500)
        counters["chain of 3"] = runtime.per_node(executions * nodes)
        return executions / seconds


async def _fan_out_throughput(executions: int, width: int, counters: dict[str, Any]) -> float:
    async with open_runtime() as runtime:
        await runtime.run_many(fan_out(width), executions=2, concurrency=2)
        runtime.start_counting()
        seconds = await runtime.run_many(fan_out(width), executions=executions, concurrency=20)
        counters[f"fan-out of {width}"] = runtime.per_node(executions * (width + 2))
        return executions * (width + 2) / seconds


async def _one_fan_out(width: int, results: dict[str, float]) -> float:
    async with open_runtime() as runtime:
        await runtime.run_many(fan_out(width), executions=1, concurrency=1)
        seconds = await runtime.run_many(fan_out(width), executions=1, concurrency=1)
        results[str(width)] = seconds / (width + 2) * 1e6
        return seconds


async def _long_chain(nodes: int) -> float:
    async with open_runtime() as runtime:
        await runtime.run_many(chain(nodes), executions=1, concurrency=1)
        seconds = await runtime.run_many(chain(nodes), executions=3, concurrency=1)
        return seconds / (3 * nodes) * 1000


async def _alone() -> float:
    async with open_runtime() as runtime:
        await runtime.run_many(chain(3), executions=5, concurrency=1)
        times = [await runtime.run_many(chain(3), executions=1, concurrency=1) for _ in range(50)]
        return statistics.median(times) * 1000


def _cases(scale: int, counters: dict[str, Any], flat: dict[str, float]) -> list[Case]:
    chains, fans = 4_000 // scale, 200 // scale
    return [
        Case(
            "chain of 3",
            "executions/s",
            lambda: _chain_throughput(chains, 3, counters),
            _reference(lambda: chains / write_rows(executions=chains, attempts_each=3, batch_rows=BATCH_ROWS)),
        ),
        Case(
            "fan-out of 100",
            "nodes/s",
            lambda: _fan_out_throughput(fans, 100, counters),
            _reference(lambda: fans * 102 / write_rows(executions=fans, attempts_each=102, batch_rows=BATCH_ROWS)),
        ),
        Case("one fan-out of 100", "s", lambda: _one_fan_out(100, flat)),
        Case(
            "one fan-out of 10,000",
            "s",
            lambda: _one_fan_out(10_000, flat),
            _reference(lambda: write_rows(executions=1, attempts_each=10_002, batch_rows=BATCH_ROWS)),
        ),
        Case(
            "chain of 100",
            "ms/node",
            lambda: _long_chain(100),
            _reference(lambda: write_rows(executions=0, attempts_each=0, batch_rows=1, single_commits=100) * 10),
        ),
        Case(
            "chain of 3 alone",
            "ms",
            _alone,
            _reference(lambda: write_rows(executions=0, attempts_each=0, batch_rows=1, single_commits=5) * 1000),
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times each case is measured, in turn")
    parser.add_argument("--only", help="measure only the cases whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    options = parser.parse_args()
    counters: dict[str, Any] = {}
    flat: dict[str, float] = {}
    cases = _cases(10 if options.quick else 1, counters, flat)
    cases = [case for case in cases if not options.only or options.only in case.name]
    asyncio.run(measure(cases, options.rounds))
    print_table(cases)
    print()
    for name, counts in counters.items():
        print(f"{name}: {counts}")
    if len(flat) > 1:
        print("cost of a node in one fan-out, microseconds: " + json.dumps({k: round(v, 1) for k, v in flat.items()}))
    if options.only:
        return
    with tempfile.TemporaryDirectory() as folder:
        starts = [cold_start_seconds() for _ in range(options.rounds)]
        print(f"process start to first completed workflow, s: {_spread(starts)}")
        print(json.dumps(memory_of_in_flight(Path(folder), 1_000 if options.quick else 10_000)))


def _spread(values: list[float]) -> str:
    return f"{min(values):.3f} / {statistics.median(values):.3f} / {max(values):.3f}"


if __name__ == "__main__":
    main()
