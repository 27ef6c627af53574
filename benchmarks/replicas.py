"""The benchmark of replicas: PostgreSQL with `synchronous_commit=on`, and Valkey with its append-only file.

"Through the engine" is submit and trigger in this process, each acknowledged after its commit, one definition reused,
a registered handler that does nothing, default settings. One replica with all roles, with Valkey
(`BACKEND=distributed`) and without (`BACKEND=postgres`); then one that only orchestrates, and a worker in a process of
its own that runs every node. The reference writes the rows that the engine needs for the same work, and nothing else,
200 by statement, to the same server; that of an execution alone is five commits of one row. Everything, the servers
too, runs on the same processors.

    python benchmarks/replicas.py [--rounds N] [--only NAME] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from api import submitting, waiting
from deployment import Counts, Deployment
from harness import chain, fan_out
from http_driver import drive
from postgres_rows import commit_singly, fill_with_finished, fill_with_waiting, write_rows
from table import Case, measure, print_table

WIDTH = 100
BACKENDS = ("distributed", "postgres")
COMMITS_OF_ONE = 5
SWEPT_SECONDS = 6
"""By then an owner has looked for work at least once since it started."""


class Replicas:
    """What is measured. `counts`: by case, what a run of it has cost the servers, by node."""

    def __init__(self, deployment: Deployment, scale: int) -> None:
        """`scale` divides the work."""
        self.counts: dict[str, dict[str, float]] = {}
        self._deployment = deployment
        self._scale = scale

    async def chains(self, backend: str) -> float:
        """Executions by second of chains of three nodes."""
        executions = 4_000 // self._scale
        run = self._throughput(f"chain of 3, {backend}", backend, chain(3), executions, 500)
        return executions / await run

    async def fans(self, backend: str) -> float:
        """Nodes by second of fan-outs."""
        executions = 200 // self._scale
        run = self._throughput(f"fan-out of {WIDTH}, {backend}", backend, fan_out(WIDTH), executions, 20)
        return executions * (WIDTH + 2) / await run

    async def worker_chains(self) -> float:
        """Nodes by second that one worker process runs for an orchestrator that runs none: of chains."""
        return await self._dedicated_worker("chain of 3", chain(3), 2_000 // self._scale, 500)

    async def worker_fans(self) -> float:
        """The same of fan-outs."""
        return await self._dedicated_worker(f"fan-out of {WIDTH}", fan_out(WIDTH), 100 // self._scale, 20)

    async def alone(self, backend: str) -> float:
        """The median of the milliseconds of submit, trigger and result over HTTP, when nobody else asks."""
        milliseconds: list[float] = []
        database = await self._deployment.create_database()
        self._deployment.forget()
        with self._deployment.serve(backend, database) as server:
            await drive(server.address, [submitting(iter(range(10)))])
            await drive(server.address, [waiting(iter(range(200 // self._scale)), milliseconds)])
        return statistics.median(milliseconds)

    async def rows_of_chains(self) -> float:
        """The reference of `chains`."""
        executions = 4_000 // self._scale
        return executions / await self._write_rows(executions, 3)

    async def nodes_of_chains(self) -> float:
        """The reference of `worker_chains`."""
        return 3 * await self.rows_of_chains()

    async def rows_of_fans(self) -> float:
        """The reference of `fans` and of `worker_fans`."""
        executions = 200 // self._scale
        return executions * (WIDTH + 2) / await self._write_rows(executions, WIDTH + 2)

    async def commits_alone(self) -> float:
        """The reference of `alone`: the median of the milliseconds of five commits of one row."""
        async with self._deployment.connection(await self._deployment.create_database()) as connection:
            seconds = [await commit_singly(connection, COMMITS_OF_ONE) for _ in range(200 // self._scale)]
        return statistics.median(seconds) * 1000

    async def _throughput(
        self, name: str, backend: str, document: dict[str, Any], executions: int, concurrency: int
    ) -> float:
        """Seconds for that many executions on a replica with all roles."""
        database = await self._deployment.create_database()
        before = await self._counts(database)
        async with self._deployment.open_runtime(backend, database) as runtime:
            await runtime.run_many(document, executions=10, concurrency=10)
            seconds = await runtime.run_many(document, executions=executions, concurrency=concurrency)
        await self._note(name, database, before, executions * len(document["dag"]["nodes"]))
        return seconds

    async def _dedicated_worker(self, name: str, document: dict[str, Any], executions: int, concurrency: int) -> float:
        nodes = executions * len(document["dag"]["nodes"])
        database = await self._deployment.create_database()
        before = await self._counts(database)
        roles = {"runtime_roles": "api,orchestrator"}
        async with self._deployment.open_runtime("distributed", database, **roles) as runtime:
            with self._deployment.serve("distributed", database, RUNTIME_ROLES="worker", HEALTH_PORT="0"):
                await runtime.run_many(document, executions=10, concurrency=10)
                seconds = await runtime.run_many(document, executions=executions, concurrency=concurrency)
        await self._note(f"{name}, dedicated worker", database, before, nodes)
        return nodes / seconds

    async def _counts(self, database: str) -> Counts | None:
        return await self._deployment.counts(database) if self._deployment.is_counting else None

    async def _note(self, name: str, database: str, before: Counts | None, nodes: int) -> None:
        """What starting, warming up and stopping cost is in it."""
        if before is not None:
            self.counts[name] = (await self._deployment.counts(database)).per_node(before, nodes)

    async def _write_rows(self, executions: int, attempts_each: int) -> float:
        async with self._deployment.connection(await self._deployment.create_database()) as connection:
            return await write_rows(connection, executions=executions, attempts_each=attempts_each)


def throughput_cases(replicas: Replicas) -> list[Case]:
    """One replica with all roles on each backend; an orchestrator and a worker."""
    cases = []
    for backend in BACKENDS:
        cases += [
            Case(
                f"chain of 3, {backend}",
                "executions/s",
                partial(replicas.chains, backend),
                replicas.rows_of_chains,
                ">= 2,500",
            ),
            Case(
                f"fan-out of {WIDTH}, {backend}",
                "nodes/s",
                partial(replicas.fans, backend),
                replicas.rows_of_fans,
                ">= 12,000",
            ),
            Case(
                f"submit, trigger and result alone over HTTP (p50), {backend}",
                "ms",
                partial(replicas.alone, backend),
                replicas.commits_alone,
                "< 10",
            ),
        ]
    for name, engine, reference in (
        ("chain of 3", replicas.worker_chains, replicas.nodes_of_chains),
        (f"fan-out of {WIDTH}", replicas.worker_fans, replicas.rows_of_fans),
    ):
        cases.append(Case(f"{name}, one dedicated worker process", "nodes/s", engine, reference, ">= 2,500"))
    return cases


async def finished_cases(deployment: Deployment, scale: int) -> list[Case]:
    """What a node costs with a million finished executions in the store; the reference is the same with a thousand."""
    few, many = await deployment.create_database(), await deployment.create_database()
    for database, executions in ((few, 1_000), (many, 1_000_000 // scale)):
        async with deployment.connection(database) as connection:
            await fill_with_finished(connection, executions)

    async def microseconds(database: str) -> float:
        executions = 4_000 // scale
        async with deployment.open_runtime("distributed", database) as runtime:
            await runtime.run_many(chain(3), executions=10, concurrency=10)
            return await runtime.run_many(chain(3), executions=executions, concurrency=500) / executions / 3 * 1e6

    name = f"a node of a chain of 3 with {1_000_000 // scale:,} finished executions, reference with 1,000"
    return [Case(name, "µs", partial(microseconds, many), partial(microseconds, few))]


async def waiting_cases(deployment: Deployment, scale: int) -> list[Case]:
    """What 100,000 executions that wait for a retry in an hour cost; the reference is the same without them."""
    without, with_them = await deployment.create_database(), await deployment.create_database()
    async with deployment.connection(with_them) as connection:
        await fill_with_waiting(connection, 100_000 // scale)

    async def start(database: str) -> float:
        deployment.forget()
        with deployment.serve("distributed", database) as server:
            return server.start_seconds

    async def memory(database: str) -> float:
        deployment.forget()
        with deployment.serve("distributed", database) as server:
            await drive(server.address, [submitting(iter(range(50)))])
            await asyncio.sleep(SWEPT_SECONDS)
            return server.resident_mebibytes()

    name = f"with {100_000 // scale:,} executions that wait for a retry, reference without"
    return [
        Case(f"start {name}", "s", partial(start, with_them), partial(start, without)),
        Case(f"memory {name}", "MiB", partial(memory, with_them), partial(memory, without)),
    ]


async def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    scale = 10 if options.quick else 1
    deployment = Deployment()
    try:
        await deployment.start()
        replicas = Replicas(deployment, scale)
        cases = [case for case in throughput_cases(replicas) if not options.only or options.only in case.name]
        await measure(cases, options.rounds)
        print_table(cases)
        async with deployment.counting():
            for case in cases:
                await case.engine()
        print()
        for name, counts in replicas.counts.items():
            print(f"by node, {name}: {counts}")
        print()
        full = []
        if not options.only or options.only in "finished":
            full += await finished_cases(deployment, scale)
        if not options.only or options.only in "waiting":
            full += await waiting_cases(deployment, scale)
        if full:
            await measure(full, options.rounds)
            print_table(full)
    finally:
        deployment.close()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times each case is measured, in turn")
    parser.add_argument("--only", help="measure only the cases whose name has this in it; finished, waiting: databases")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
