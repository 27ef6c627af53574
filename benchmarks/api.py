"""The benchmark of the API: a driver, and `workflow-engine serve` in a process of its own.

32 connections that are kept alive, default settings, SQLite with `synchronous=FULL`, a registered handler that does
nothing. An execution counts when it has ended, not when it was accepted. The reference is a bare aiohttp application
in the engine's place that answers the same bytes to the same driver and does nothing else; the ratio is engine to
reference. Lists are read from a database with a million executions.

    python benchmarks/api.py [--rounds N] [--only NAME] [--quick]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from api_lists import list_cases
from harness import chain
from http_driver import Address, Answer, User, drive, drive_bulk, request
from reference import write_rows
from servers import Server, completed_count, engine_server, reference_server
from table import Case, measure, print_table

CONNECTIONS = 32
POLL_SECONDS = 0.01
BATCH_ROWS = 200
WORKFLOW = chain(3)
START_PATH = f"/v1/definitions/{WORKFLOW['name']}/executions"
EXECUTION_ID = "01a20a0d-ea61-7baa-875e-000000000000"
ID_CHARACTERS = len(EXECUTION_ID)

SUBMIT = request("POST", "/v1/workflow", json.dumps(WORKFLOW).encode())
START = request("POST", START_PATH, b'{"input_params": {}}')
EMPTY = b'{"input_params": {}}'


def execution_id(answer: Answer, status: int) -> str:
    """The identifier in an answer, which must have that status. Found, not parsed: the driver is to be light."""
    assert answer.status == status, answer
    at = answer.body.index(b'"execution_id"') + len(b'"execution_id"')
    begin = answer.body.index(b'"', at) + 1
    return answer.body[begin : begin + ID_CHARACTERS].decode()


def trigger(identifier: str) -> bytes:
    """The request that starts an execution."""
    return request("POST", f"/v1/workflow/trigger/{identifier}", EMPTY)


def submitting(numbers: Iterator[int]) -> User:
    """Submit and trigger, for as long as there are numbers."""
    for _ in numbers:
        identifier = execution_id((yield SUBMIT), 202)
        execution_id((yield trigger(identifier)), 200)


def starting(numbers: Iterator[int]) -> User:
    """Start with one call, for as long as there are numbers."""
    for _ in numbers:
        execution_id((yield START), 202)


def waiting(numbers: Iterator[int], milliseconds: list[float]) -> User:
    """Submit, trigger and wait for the result, one after another."""
    for _ in numbers:
        began = time.perf_counter()
        identifier = execution_id((yield SUBMIT), 202)
        execution_id((yield trigger(identifier)), 200)
        answer = yield request("GET", f"/v1/workflows/{identifier}/results?wait=30")
        milliseconds.append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, answer
        assert b"COMPLETED" in answer.body, answer


class Throughput:
    """Executions by time, on one engine and on the reference beside it."""

    def __init__(self, engine: Server, reference: Server, database: Path) -> None:
        self._engine = engine
        self._reference = reference
        self._database = database
        self.processor_milliseconds: dict[str, list[float]] = {}
        """What the engine's process spent on an execution, by case."""

    async def on_engine(self, user: Callable[[Iterator[int]], User], executions: int) -> float:
        """Executions that ended by second, from the first request to the last end."""
        work = _drive(self._engine.address, user, executions)
        return await self._until_ended(user.__name__, executions, work)

    async def on_reference(self, user: Callable[[Iterator[int]], User], executions: int) -> float:
        """The same requests to the reference."""
        return executions / await _drive(self._reference.address, user, executions)

    async def bulk(self, executions: int) -> float:
        """Executions that ended by second, started by one request with a line for each."""
        work = drive_bulk(self._engine.address, f"{START_PATH}/bulk", EMPTY + b"\n", executions)
        return await self._until_ended("bulk", executions, work)

    async def alone(self, server: Server, times: int) -> float:
        """The median of the milliseconds of submit, trigger and result, when nobody else asks."""
        milliseconds: list[float] = []
        await drive(server.address, [waiting(iter(range(times)), milliseconds)])
        return statistics.median(milliseconds)

    async def _until_ended(self, name: str, executions: int, work: Awaitable[object]) -> float:
        before, spent = completed_count(self._database), self._engine.processor_seconds()
        began = time.perf_counter()
        await work
        while completed_count(self._database) - before < executions:
            await asyncio.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
        milliseconds = (self._engine.processor_seconds() - spent) * 1000 / executions
        self.processor_milliseconds.setdefault(name, []).append(milliseconds)
        return executions / seconds


async def _drive(address: Address, user: Callable[[Iterator[int]], User], executions: int) -> float:
    numbers = iter(range(executions))
    return await drive(address, [user(numbers) for _ in range(CONNECTIONS)])


async def _rows_alone(executions: int) -> float:
    return executions / write_rows(executions=executions, attempts_each=3, batch_rows=BATCH_ROWS)


def throughput_cases(throughput: Throughput, engine: Server, reference: Server, scale: int) -> list[Case]:
    """Starting executions in each way there is. The reference of a bulk start writes the engine's rows to SQLite."""
    executions = 4_000 // scale

    def case(name: str, target: str, user: Callable[[Iterator[int]], User]) -> Case:
        return Case(
            name,
            "executions/s",
            lambda: throughput.on_engine(user, executions),
            lambda: throughput.on_reference(user, executions),
            target,
        )

    return [
        case("submit and trigger", ">= 1,000", submitting),
        case("one-call start", ">= 1,800", starting),
        Case(
            "bulk start",
            "executions/s",
            lambda: throughput.bulk(executions * 2),
            lambda: _rows_alone(executions * 2),
            ">= 3,000",
        ),
        Case(
            "submit, trigger and result alone (p50)",
            "ms",
            lambda: throughput.alone(engine, 200 // scale),
            lambda: throughput.alone(reference, 200 // scale),
            "< 5",
        ),
    ]


def answers() -> dict[str, tuple[int, str, str]]:
    """What the engine answers, for the reference."""
    of_execution = {"execution_id": EXECUTION_ID, "message": "Workflow started successfully"}
    submitted = {**of_execution, "workflow_definition_id": EXECUTION_ID}
    results = {"execution_id": EXECUTION_ID, "state": "COMPLETED", "output_data": None}
    plain = "application/json"
    return {
        "POST /v1/workflow": (202, plain, json.dumps(submitted)),
        "POST /v1/workflow/trigger/{execution_id}": (200, plain, json.dumps(of_execution)),
        "GET /v1/workflows/{execution_id}/results": (200, plain, json.dumps(results)),
        "POST /v1/definitions/{name}/executions": (202, plain, json.dumps(submitted)),
    }


async def run(options: argparse.Namespace) -> None:
    """Measure and print."""
    scale = 10 if options.quick else 1
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        with (
            engine_server(SQLITE_PATH=str(folder / "engine.db")) as engine,
            reference_server(folder, answers()) as reference,
        ):
            throughput = Throughput(engine, reference, folder / "engine.db")
            cases = throughput_cases(throughput, engine, reference, scale)
            cases = [case for case in cases if not options.only or options.only in case.name]
            await drive(engine.address, [submitting(iter(range(50)))])
            await measure(cases, options.rounds)
        print_table(cases)
        spent = {name: round(statistics.median(each), 2) for name, each in throughput.processor_milliseconds.items()}
        print(f"\nprocessor time of the server by execution, ms: {spent}\n")
        if not options.only or "list" in options.only:
            with list_cases(folder, 1_000_000 // scale) as lists:
                await measure(lists, options.rounds)
            print_table(lists)


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="times each case is measured, in turn")
    parser.add_argument("--only", help="measure only the cases whose name has this in it")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, to see that it runs")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
