"""The reference: the rows the engine writes for the same work, straight to SQLite, and nothing else."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from pathlib import Path

from workflow_engine.sql import load_migrations


def write_rows(*, executions: int, attempts_each: int, batch_rows: int, single_commits: int = 0) -> float:
    """Seconds to write that many executions and attempts in batches; or that many commits of one row."""
    with tempfile.TemporaryDirectory(prefix="reference-") as folder:
        connection = sqlite3.connect(Path(folder) / "reference.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")
        for migration in load_migrations("sqlite"):
            connection.executescript(migration.text)
        began = time.perf_counter()
        if single_commits:
            for number in range(single_commits):
                _write_attempts(connection, [_attempt(0, number)])
        else:
            _write_executions(connection, executions, batch_rows)
            rows = [_attempt(execution, node) for execution in range(executions) for node in range(attempts_each)]
            for start in range(0, len(rows), batch_rows):
                _write_attempts(connection, rows[start : start + batch_rows])
        seconds = time.perf_counter() - began
        connection.close()
    return seconds


def _execution_id(number: int) -> str:
    return f"01a20a0d-ea61-7baa-875e-{number:012x}"


def _attempt(execution: int, node: int) -> tuple[object, ...]:
    return (_execution_id(execution), node + 1, f"n{node}", 1, "COMPLETED", b"null", None, 1, 2, None)


def _write_executions(connection: sqlite3.Connection, executions: int, batch_rows: int) -> None:
    """Each execution is inserted, triggered and finished: three writes, as in the engine."""
    ids = [_execution_id(number) for number in range(executions)]
    insert = (
        "INSERT INTO executions (execution_id, definition_id, partition, state, created_at) VALUES (?, 'd', 0, ?, 1)"
    )
    trigger = "UPDATE executions SET state = 'RUNNING', input_text = X'7B7D', started_at = 2 WHERE execution_id = ?"
    finish = "UPDATE executions SET state = 'COMPLETED', completed_at = 3 WHERE execution_id = ?"
    for start in range(0, executions, batch_rows):
        batch = ids[start : start + batch_rows]
        for query, rows in (
            (insert, [(one, "PENDING") for one in batch]),
            (trigger, [(one,) for one in batch]),
            (finish, [(one,) for one in batch]),
        ):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(query, rows)
            connection.execute("COMMIT")


def _write_attempts(connection: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(
        "INSERT INTO attempts (execution_id, sequence, node_id, attempt, state, output, error, "
        "started_at, finished_at, retry_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    connection.execute("COMMIT")
