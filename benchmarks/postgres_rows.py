"""Rows that the engine has not written: those of the reference, and those that fill a database."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from harness import chain

from workflow_engine.runtime.clock import SystemClock, format_uuid7
from workflow_engine.runtime.core.shares import partition_of

BATCH_ROWS = 200
PARTITIONS = 16
HOUR_MILLISECONDS = 3_600_000
RETRY_ERROR = {"node_id": "n0", "type": "http_status", "message": "the service answered 503", "attempt": 1}

_INSERT = """
INSERT INTO executions (execution_id, definition_id, name, partition, state, created_at)
SELECT execution_id, 'definition', 'name', 0, 'PENDING', 1 FROM unnest($1::text[]) AS row (execution_id)
"""
_TRIGGER = """
UPDATE executions SET state = 'RUNNING', input_text = '{}', started_at = 2 WHERE execution_id = ANY ($1::text[])
"""
_FINISH = "UPDATE executions SET state = 'COMPLETED', completed_at = 3 WHERE execution_id = ANY ($1::text[])"
_ATTEMPTS = """
INSERT INTO attempts (execution_id, sequence, node_id, attempt, state, output, started_at, finished_at)
SELECT execution_id, sequence, node_id, 1, 'COMPLETED', 'null', 1, 2
FROM unnest($1::text[], $2::bigint[], $3::text[]) AS row (execution_id, sequence, node_id)
"""

# Executions of the last day, three attempts each.
_FINISHED = """
INSERT INTO executions
    (execution_id, definition_id, name, partition, state, input_text, created_at, started_at, completed_at)
SELECT substr(hex, 1, 8) || '-' || substr(hex, 9) || '-7' || lpad(to_hex(n & 4095), 3, '0') || '-8000-'
           || lpad(to_hex(n), 12, '0'),
       'filled', 'filled', n % 16, 'COMPLETED', '{}', at, at, at + 50
FROM generate_series(1, $1::bigint) AS n,
     LATERAL (SELECT $2::bigint + n * 86400000 / $1::bigint AS at) AS moment,
     LATERAL (SELECT lpad(to_hex(at), 12, '0') AS hex) AS text
"""
_FINISHED_ATTEMPTS = """
INSERT INTO attempts (execution_id, sequence, node_id, attempt, state, output, started_at, finished_at)
SELECT execution_id, node + 1, 'n' || node, 1, 'COMPLETED', 'null', created_at, completed_at
FROM executions, generate_series(0, 2) AS node
"""
_DEFINE = (
    "INSERT INTO definitions (definition_id, name, version, digest, body, created_at) VALUES ($1, $1, 1, $1, $2, 0)"
)
_WAITING = """
INSERT INTO executions
    (execution_id, definition_id, name, partition, state, input_text, created_at, started_at, parked_until)
SELECT execution_id, 'filled', 'filled', partition, 'RUNNING', '{}', $3::bigint, $3, $3 + $4::bigint
FROM unnest($1::text[], $2::integer[]) AS row (execution_id, partition)
"""
_WAITING_ATTEMPTS = """
INSERT INTO attempts (execution_id, sequence, node_id, attempt, state, error, started_at, finished_at, retry_at)
SELECT execution_id, 1, 'n0', 1, 'FAILED', $1::bytea, started_at, started_at, parked_until FROM executions
"""


async def write_rows(connection: Any, *, executions: int, attempts_each: int) -> float:
    """Seconds to write what the engine writes for the same work, 200 rows by statement, and nothing else."""
    since = SystemClock().now()
    ids = [format_uuid7(since, number) for number in range(executions)]
    rows = [(each, node + 1, f"n{node}") for each in ids for node in range(attempts_each)]
    began = time.perf_counter()
    for query in (_INSERT, _TRIGGER, _FINISH):
        for start in range(0, len(ids), BATCH_ROWS):
            await connection.execute(query, ids[start : start + BATCH_ROWS])
    for start in range(0, len(rows), BATCH_ROWS):
        await connection.execute(_ATTEMPTS, *_columns(rows[start : start + BATCH_ROWS]))
    return time.perf_counter() - began


async def commit_singly(connection: Any, commits: int) -> float:
    """Seconds for so many commits of one row, one after another."""
    execution_id = SystemClock().new_id()
    began = time.perf_counter()
    for number in range(commits):
        await connection.execute(_ATTEMPTS, [execution_id], [number], [f"n{number}"])
    return time.perf_counter() - began


async def fill_with_finished(connection: Any, executions: int) -> None:
    """Executions that have ended within the last day, with their attempts."""
    await connection.execute(_FINISHED, executions, SystemClock().now() - 24 * HOUR_MILLISECONDS)
    await connection.execute(_FINISHED_ATTEMPTS)
    await connection.execute("VACUUM ANALYZE")


async def fill_with_waiting(connection: Any, executions: int) -> None:
    """Executions whose first node has failed once and is tried again in an hour."""
    clock = SystemClock()
    ids = [clock.new_id() for _ in range(executions)]
    partitions = [partition_of(each, PARTITIONS) for each in ids]
    await connection.execute(_DEFINE, "filled", json.dumps(chain(3)).encode())
    await connection.execute(_WAITING, ids, partitions, clock.now(), HOUR_MILLISECONDS)
    await connection.execute(_WAITING_ATTEMPTS, json.dumps(RETRY_ERROR).encode())
    await connection.execute("VACUUM ANALYZE")


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
