"""The one connection that writes: a thread of its own, and one transaction for all that waits.

While a transaction is under way, the next writes gather. They then share one transaction and one
fsync, each with its own result. When the shared transaction fails, each write is tried alone, so that
only the culprit fails.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple

from ...sql import load_queries
from ..core.state import WorkflowState
from ..errors import BackendError, IdempotencyConflict, PartitionLost, StoreOutcomeUnknown, StoreUnavailable
from ..failpoints import failpoint
from ..ports import CommitBatch, IdempotencyClaim, NewDefinition, NewExecution, Resolution
from .rows import json_array

_ROWS_PER_STATEMENT = (256, 32, 4, 1)

_FAULTS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_BUSY: "the database is locked by another process",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_READONLY: "the database is read-only",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_CORRUPT: "the database is damaged; restore a copy",
    sqlite3.SQLITE_NOTADB: "the database file has been overwritten; restore a copy",
}

# What no write is the culprit of: trying each alone would only wait for the same lock again and again.
_NOBODYS_FAULT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


class CreateExecution(NamedTuple):
    """Create an execution; its result is (execution id, definition id), of an earlier one when the claim has one."""

    definition: NewDefinition | str
    execution: NewExecution
    claim: IdempotencyClaim | None


class Trigger(NamedTuple):
    """Trigger an execution; its result is its id, None when it was not PENDING, or the id that the claim has."""

    execution_id: str
    input_text: bytes
    started_at: int
    claim: IdempotencyClaim | None


class Requeue(NamedTuple):
    """Carry a dead letter on as a new execution; its result is that one's id, None when there is no such dead letter,
    or the id that the claim has."""

    execution_id: str
    new: NewExecution
    claim: IdempotencyClaim | None


class Run(NamedTuple):
    """Any other write: a function of the connection; its result is the function's."""

    function: Callable[[sqlite3.Connection], Any]


Write = CreateExecution | Trigger | Requeue | CommitBatch | Run
Waiting = tuple[Write, asyncio.Future[Any]]


class SqliteWriter:
    """Groups writes into transactions on a thread of its own."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], check: Callable[[], None]) -> None:
        """`check` is called before each transaction, and raises when there must not be one."""
        self._connect = connect
        self._check = check
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._queries = load_queries("sqlite")
        self._waiting: list[Waiting] = []
        self._transaction: asyncio.Future[None] | None = None
        self._connection: sqlite3.Connection | None = None
        self._closing = False
        self.fault: str | None = None
        """Why the last transaction could not be done; None when it could."""

    async def open(self, prepare: Callable[[sqlite3.Connection], None]) -> None:
        """Connect, and call `prepare` with the connection, on the writing thread."""
        self._connection = await self._on_thread(self._connect)
        await self._on_thread(prepare, self._connection)

    def stop_accepting(self) -> None:
        """Refuse what is asked for from now on."""
        self._closing = True

    async def close(self) -> None:
        """Finish what was asked for, then close. Safe to call twice."""
        self.stop_accepting()
        while self._transaction is not None:
            await asyncio.wait([self._transaction])
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await self._on_thread(connection.close)
        self._thread.shutdown(wait=True)

    async def write(self, write: Write) -> Any:
        """Do one write; returns its result once it is durable.

        Raises `StoreUnavailable` when it has not happened, `StoreOutcomeUnknown` when that cannot be
        known, `PartitionLost` for a commit that missed its fence.
        """
        if self._closing or self._connection is None:
            raise StoreUnavailable("the store is closed")
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((write, result))
        if self._transaction is None:
            # Not at once: what else is asked for in this turn of the loop shares the transaction.
            self._transaction = loop.create_future()
            loop.call_soon(self._begin)
        return await result

    def _begin(self) -> None:
        batch, self._waiting = _one_of_each_claim(self._waiting)
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._transact, [write for write, _ in batch])
        work.add_done_callback(lambda done: self._finish(batch, done))

    def _finish(self, batch: list[Waiting], done: asyncio.Future[list[Any]]) -> None:
        finished = self._transaction
        assert finished is not None
        if self._waiting:
            self._transaction = asyncio.get_running_loop().create_future()
            self._begin()
        else:
            self._transaction = None
        finished.set_result(None)
        error = done.exception()
        results: Sequence[Any] = [error] * len(batch) if error is not None else done.result()
        self.fault = next((str(result) for result in results if isinstance(result, BackendError)), None)
        for (_, future), result in zip(batch, results, strict=True):
            if future.cancelled():
                continue
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)

    async def _on_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    def _transact(self, writes: list[Write]) -> list[Any]:
        """All writes in one transaction; one by one when that fails. A result may be an exception."""
        try:
            results = self._transact_together(writes)
        except StoreOutcomeUnknown:
            # Never tried again: what has happened would answer that it was refused.
            raise
        except Exception as error:
            if len(writes) == 1 or _primary_code(error) in _NOBODYS_FAULT:
                return [_translate(error)] * len(writes)
            return [self._transact_alone(write) for write in writes]
        failpoint("store.transaction.committed")
        return results

    def _transact_alone(self, write: Write) -> Any:
        try:
            return self._transact([write])[0]
        except Exception as error:
            return error

    def _transact_together(self, writes: list[Write]) -> list[Any]:
        connection = self._connection
        assert connection is not None
        failpoint("store.transaction.begin")
        self._check()
        connection.execute("BEGIN IMMEDIATE")
        try:
            results = self._apply(connection, writes)
            failpoint("store.transaction.commit")
        except BaseException:
            _roll_back(connection)
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            # A commit that failed for want of space or a lock is still open and can be rolled back;
            # after an input/output error nobody knows what reached the disk.
            _roll_back(connection)
            if _primary_code(error) == sqlite3.SQLITE_IOERR:
                raise StoreOutcomeUnknown(f"the disk reported an error during a commit: {error}") from error
            raise
        return results

    def _apply(self, connection: sqlite3.Connection, writes: list[Write]) -> list[Any]:
        answered = self._answered_before(connection, writes)
        results = list(answered)
        new_rows: list[tuple[Any, ...]] = []
        triggers: dict[str, list[tuple[int, Trigger]]] = {}
        for position, write in enumerate(writes):
            if answered[position] is not None:
                continue
            if isinstance(write, CreateExecution):
                definition_id = self._ensure_definition(connection, write)
                new_rows.append(_execution_row(definition_id, write.execution))
                results[position] = write.execution.execution_id, definition_id
            elif isinstance(write, Trigger):
                triggers.setdefault(write.execution_id, []).append((position, write))
            elif isinstance(write, Requeue):
                results[position] = self._requeue(connection, write)
        self._execute_rows(connection, "insert_executions", new_rows)
        # Of several that trigger the same execution at the same time, the first one does.
        rows = [same[0][1][:3] for same in triggers.values()]
        for (execution_id,) in self._execute_rows(connection, "trigger_executions", rows):
            results[triggers[execution_id][0][0]] = execution_id
        self._keep_answers(connection, writes, results, answered)
        for position, write in enumerate(writes):
            if isinstance(write, CommitBatch):
                results[position] = self._commit(connection, write)
            elif isinstance(write, Run):
                results[position] = write.function(connection)
        return results

    def _answered_before(self, connection: sqlite3.Connection, writes: list[Write]) -> list[Any]:
        """For each write whose claim was made before: the answer of then, or the conflict. None for the others."""
        results: list[Any] = [None] * len(writes)
        claims = {claim.key: position for position, write in enumerate(writes) if (claim := _claim_of(write))}
        if not claims:
            return results
        keys = {"claim_keys": json_array(claims)}
        for key, fingerprint, execution_id, definition_id in connection.execute(self._queries["find_claims"], keys):
            write = writes[claims[key]]
            claim = _claim_of(write)
            assert claim is not None
            answer = (execution_id, definition_id) if isinstance(write, CreateExecution) else execution_id
            results[claims[key]] = answer if claim.fingerprint == fingerprint else IdempotencyConflict()
        return results

    def _keep_answers(
        self, connection: sqlite3.Connection, writes: list[Write], results: list[Any], answered: list[Any]
    ) -> None:
        """Store what is answered to claims, unless that was done before or nothing was done."""
        rows = []
        for write, result, before in zip(writes, results, answered, strict=True):
            claim = _claim_of(write)
            if claim is not None and result is not None and before is None:
                execution_id, definition_id = result if isinstance(write, CreateExecution) else (result, "")
                rows.append((*claim, execution_id, definition_id))
        self._execute_rows(connection, "insert_claims", rows)

    def _ensure_definition(self, connection: sqlite3.Connection, write: CreateExecution) -> str:
        definition = write.definition
        if isinstance(definition, str):
            return definition
        return str(self.define(connection, definition, write.execution.created_at)[0])

    def define(self, connection: sqlite3.Connection, definition: NewDefinition, created_at: int) -> tuple[Any, ...]:
        """Store a definition unless it is there; returns the row of the stored one. For the writing thread."""
        key = (definition.name, definition.digest)
        found = connection.execute(self._queries["find_digest"], key).fetchone()
        if found is None:
            values = {**definition._asdict(), "created_at": created_at}
            connection.execute(self._queries["insert_definition"], values)
            found = connection.execute(self._queries["find_digest"], key).fetchone()
        row: tuple[Any, ...] = found
        return row

    def _requeue(self, connection: sqlite3.Connection, write: Requeue) -> str | None:
        new = write.new
        values = {
            "execution_id": write.execution_id,
            "resolution": Resolution.REQUEUED,
            "new_id": new.execution_id,
            "partition": new.partition,
            "created_at": new.created_at,
        }
        if connection.execute(self._queries["resolve"], values).rowcount != 1:
            return None
        connection.execute(self._queries["insert_retry"], values)
        connection.execute(self._queries["copy_completed"], values)
        return new.execution_id

    def save_handlers(self, connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Store handlers, each in place of what was known of it. For the writing thread."""
        self._execute_rows(connection, "save_handlers", rows)

    def _commit(self, connection: sqlite3.Connection, batch: CommitBatch) -> int | PartitionLost:
        failpoint("store.commit.fence")
        fenced = connection.execute(self._queries["fence"], (batch.partition, batch.version))
        if fenced.rowcount != 1:
            return PartitionLost(f"partition {batch.partition} is no longer at version {batch.version}")
        self._execute_rows(connection, "insert_attempts", batch.attempts)
        failpoint("store.commit.attempts")
        self._execute_rows(connection, "update_executions", batch.executions)
        self._execute_rows(connection, "insert_suspicions", batch.suspicions)
        if batch.commands:
            consumed = [(command.sequence, command.command_id) for command in batch.commands]
            connection.executemany(self._queries["consume_command"], consumed)
        return batch.version + 1

    def _execute_rows(
        self, connection: sqlite3.Connection, query: str, rows: Sequence[tuple[Any, ...]]
    ) -> list[tuple[Any, ...]]:
        """Run a query that takes `:rows`, in as few statements as possible; returns what it returns."""
        returned: list[tuple[Any, ...]] = []
        position = 0
        while position < len(rows):
            left = len(rows) - position
            count = next(size for size in _ROWS_PER_STATEMENT if size <= left)
            chunk = rows[position : position + count]
            text = _with_rows(self._queries[query], count, len(chunk[0]))
            returned += connection.execute(text, [value for row in chunk for value in row]).fetchall()
            position += count
        return returned


def _claim_of(write: Write) -> IdempotencyClaim | None:
    return write.claim if isinstance(write, CreateExecution | Trigger | Requeue) else None


def _one_of_each_claim(waiting: list[Waiting]) -> tuple[list[Waiting], list[Waiting]]:
    """What goes into one transaction, and what waits for the next: there, a claim sees what was answered to it."""
    batch, later, seen = [], [], set()
    for each in waiting:
        claim = _claim_of(each[0])
        if claim is not None and claim.key in seen:
            later.append(each)
            continue
        if claim is not None:
            seen.add(claim.key)
        batch.append(each)
    return batch, later


@lru_cache(maxsize=64)
def _with_rows(query: str, rows: int, columns: int) -> str:
    row = "(" + ", ".join("?" * columns) + ")"
    return query.replace(":rows", ", ".join([row] * rows))


def _execution_row(definition_id: str, execution: NewExecution) -> tuple[Any, ...]:
    running = execution.input_text is not None
    return (
        execution.execution_id,
        definition_id,
        execution.partition,
        WorkflowState.RUNNING if running else WorkflowState.PENDING,
        execution.input_text,
        execution.created_at,
        execution.created_at if running else None,
    )


def _roll_back(connection: sqlite3.Connection) -> None:
    """Whatever it says, the error that led here says more."""
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _primary_code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _translate(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error):
        fault = _FAULTS.get(_primary_code(error))
        if fault is not None:
            return StoreUnavailable(f"{fault} ({error})")
    return error
