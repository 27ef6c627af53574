"""Lists of a database with a million executions: every filter, the filters together, and pages far behind."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

from http_driver import Address, Answer, User, drive, request
from servers import engine_server, reference_server
from table import Case

REQUESTS = 20
MONTH_MILLISECONDS = 30 * 86_400_000
LIST_PATH = "/v1/workflows"

# A month of executions. Nine of ten are COMPLETED, one of a thousand is RUNNING (and waits for a timer that is far
# away, so that the server leaves it alone); one name has six of ten, one has three in all. The multipliers keep
# states and names from following one another.
_FILL = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :count),
drawn AS (
    SELECT n, :since + n * :span / :count AS created_at, (n * 2654435761 % 4294967296) / 4294967.296 AS state_draw,
           ((n + 77) * 2246822519 % 4294967296) / 4294967.296 AS name_draw
    FROM numbers
),
chosen AS (
    SELECT *,
        CASE WHEN state_draw < 900 THEN 'COMPLETED' WHEN state_draw < 960 THEN 'FAILED'
            WHEN state_draw < 995 THEN 'CANCELLED' WHEN state_draw < 999 THEN 'PENDING' ELSE 'RUNNING' END AS state,
        CASE WHEN n % (:count / 3) = 7 THEN 'rare' WHEN name_draw < 600 THEN 'common'
            ELSE 'name-' || (CAST(name_draw AS INTEGER) % 20) END AS name
    FROM drawn
)
INSERT INTO executions (execution_id, definition_id, "partition", state, input_text, error, created_at, started_at,
    completed_at, parked_until, name)
SELECT substr(printf('%012x', created_at), 1, 8) || '-' || substr(printf('%012x', created_at), 9) || '-7'
        || printf('%03x', n & 4095) || '-8000-' || printf('%012x', n),
    name, 0, state, CASE WHEN state = 'PENDING' THEN NULL ELSE CAST('{}' AS BLOB) END,
    CASE WHEN state = 'FAILED' THEN :error END, created_at,
    CASE WHEN state = 'PENDING' THEN NULL ELSE created_at + 5 END,
    CASE WHEN state IN ('COMPLETED', 'FAILED', 'CANCELLED') THEN created_at + 50 END,
    CASE WHEN state = 'RUNNING' THEN created_at + 100 * :span END, name
FROM chosen
"""
_DEFINE = "INSERT INTO definitions (definition_id, name, version, digest, body, created_at) VALUES (?, ?, 1, ?, ?, 0)"
_ERROR = {"node_id": "a", "type": "http_status", "message": "the service answered 503", "attempt": 4}


@contextmanager
def list_cases(folder: Path, executions: int) -> Iterator[list[Case]]:
    """The cases, over a server that runs meanwhile."""
    database = folder / "million.db"
    with engine_server(SQLITE_PATH=str(database)):
        pass  # it makes the tables
    began = time.perf_counter()
    since = time.time_ns() // 1_000_000 - MONTH_MILLISECONDS
    _fill(database, executions, since)
    print(f"{executions:,} executions written in {time.perf_counter() - began:.0f} s", flush=True)
    with engine_server(SQLITE_PATH=str(database)) as engine:
        first = _get(engine.address, LIST_PATH)
        answers = {f"GET {LIST_PATH}": (200, "application/json", first.body.decode())}
        with reference_server(folder, answers) as reference:
            queries = _queries(engine.address, since)
            yield [_case(name, query, engine.address, reference.address) for name, query in queries]


def _fill(database: Path, executions: int, since: int) -> None:
    names = ["rare", "common", *(f"name-{number}" for number in range(20))]
    body = json.dumps({"name": "x", "dag": {"nodes": [{"id": "a", "handler": "noop"}]}}).encode()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.executemany(_DEFINE, [(name, name, name, body) for name in names])
        values = {"count": executions, "since": since, "span": MONTH_MILLISECONDS, "error": json.dumps(_ERROR)}
        connection.execute(_FILL, values)


def _queries(engine: Address, since: int) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Names of cases, and their parameters."""
    day, week_later = _moment(since + 20 * 86_400_000), _moment(since + 27 * 86_400_000)
    yield "no filter", []
    for state in ("COMPLETED", "FAILED", "RUNNING"):
        yield f"state {state}", [("state", state)]
    every = [("state", state) for state in ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")]
    yield "every state", every
    yield "name of 60 %", [("name", "common")]
    yield "name of three", [("name", "rare")]
    yield "name that is not there", [("name", "nobody")]
    yield "one week", [("created_from", day), ("created_before", week_later)]
    yield "name and state", [("name", "common"), ("state", "FAILED")]
    yield "rare name and every state", [("name", "rare"), *every]
    yield "state and one week", [("state", "RUNNING"), ("created_from", day), ("created_before", week_later)]
    everything = [("name", "name-7"), *every[1:4], ("created_from", day), ("created_before", week_later)]
    yield "name, three states and one week", everything
    # Two days after the first of a month: nearly a million lie before it in the list.
    for name, query in (
        ("no filter", []),
        ("state RUNNING", [("state", "RUNNING")]),
        ("name and state", [("name", "common"), ("state", "FAILED")]),
        ("name and every state", [("name", "name-7"), *every]),
    ):
        page = _get(engine, _path([*query, ("created_before", _moment(since + 2 * 86_400_000)), ("limit", "1")]))
        yield f"{name}, far behind", [*query, ("cursor", json.loads(page.body)["next_cursor"])]


def _case(name: str, query: list[tuple[str, str]], engine: Address, reference: Address) -> Case:
    async def slowest(address: Address) -> float:
        milliseconds: list[float] = []
        await drive(address, [_asking(_path(query), milliseconds)])
        return max(milliseconds)

    return Case(f"list: {name}", "ms", lambda: slowest(engine), lambda: slowest(reference), "< 20")


def _asking(path: str, milliseconds: list[float]) -> User:
    asked = request("GET", path)
    for _ in range(REQUESTS):
        began = time.perf_counter()
        answer = yield asked
        milliseconds.append((time.perf_counter() - began) * 1000)
        assert answer.status == 200, answer


def _get(address: Address, path: str) -> Answer:
    """One answer, outside of any measurement."""
    import http.client

    connection = http.client.HTTPConnection(*address)
    connection.request("GET", path)
    response = connection.getresponse()
    answer = Answer(response.status, response.read())
    connection.close()
    assert answer.status == 200, answer
    return answer


def _path(query: list[tuple[str, str]]) -> str:
    return f"{LIST_PATH}?{urlencode(query, quote_via=quote)}" if query else LIST_PATH


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
