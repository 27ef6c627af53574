"""The Store on one SQLite file: WAL, `synchronous=FULL`, one connection that writes, two that read.

Only the writing connection ever writes or checkpoints: versions 3.7.0 to 3.51.2 of SQLite can corrupt
a WAL that two connections reset at the same time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite

from ...sql import load_queries
from ..clock import Clock
from ..core.machine import AttemptRow
from ..core.state import NodeState, WorkflowState
from ..errors import BackendError, PartitionLost, StoreUnavailable, StoreUnusable
from ..ports import (
    CommandRecord,
    CommitBatch,
    DefinitionRecord,
    ExecutionRecord,
    LoadedExecution,
    NewDefinition,
    NewExecution,
    StoreHealth,
    Work,
)
from .file_lock import FileLock
from .migrations import migrate
from .sqlite_writer import CreateExecution, Run, SqliteWriter, Trigger

OLDEST_SQLITE = (3, 37, 0)


class SqliteStore:
    """The Store on one file. The folder is made when it is missing; one process at a time."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._lock = FileLock(path)
        self._queries = load_queries("sqlite")
        self._writer = SqliteWriter(self._connect_writer, self._check_file)
        self._inode: int | None = None
        self._owner_reader: aiosqlite.Connection | None = None
        self._reader: aiosqlite.Connection | None = None
        self._closing = asyncio.Lock()

    async def open(self) -> None:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            raise StoreUnusable(f"SQLite {sqlite3.sqlite_version} is too old; 3.37 or newer is needed")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnusable(f"cannot make the folder {self._path.parent}: {error.strerror}") from error
        self._lock.acquire()
        try:
            await self._writer.open(lambda connection: _prepare(connection, self._clock.now()))
            self._owner_reader = await self._connect_reader()
            self._reader = await self._connect_reader()
        except sqlite3.DatabaseError as error:
            await self.close()
            raise StoreUnusable(f"{self._path}: {_explain(error, self._path)}") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        self._writer.stop_accepting()
        readers, self._owner_reader, self._reader = (self._owner_reader, self._reader), None, None
        async with self._closing:
            # The readers first: the last connection to close checkpoints, and that must be the writer.
            for reader in readers:
                if reader is not None:
                    await reader.close()
            await self._writer.close()
            self._lock.release()

    async def create_execution(self, definition: NewDefinition | str, execution: NewExecution) -> tuple[str, str]:
        definition_id = await self._writer.write(CreateExecution(definition, execution))
        return execution.execution_id, definition_id

    async def trigger(self, execution_id: str, input_text: bytes, started_at: int) -> bool:
        triggered: bool = await self._writer.write(Trigger(execution_id, input_text, started_at))
        return triggered

    async def cancel_pending(self, execution_id: str, completed_at: int) -> bool:
        query = self._queries["cancel_pending"]
        count: int = await self._writer.write(
            Run(lambda connection: connection.execute(query, (completed_at, execution_id)).rowcount)
        )
        return count == 1

    async def add_cancel(self, execution_id: str, created_at: int) -> None:
        query = self._queries["insert_cancel"]
        await self._writer.write(Run(lambda connection: connection.execute(query, (execution_id, created_at)).rowcount))

    async def partition_version(self, partition: int) -> int:
        found = await self._fetch(self._owner_reader, "partition_version", (partition,))
        return int(found[0][0]) if found else 0

    async def take_partition(self, partition: int, owner: str, version: int) -> int:
        query = self._queries["take_partition"]
        values = {"partition": partition, "owner": owner, "version": version}
        taken = await self._writer.write(Run(lambda connection: connection.execute(query, values).fetchall()))
        if not taken:
            raise PartitionLost(f"partition {partition} is no longer at version {version}")
        return version + 1

    async def commit(self, batch: CommitBatch) -> int:
        version: int = await self._writer.write(batch)
        return version

    async def find_work(self, partition: int, now: int, limit: int) -> Work:
        values = {"partition": partition, "now": now, "limit": limit}
        found = await self._fetch(self._owner_reader, "find_work", values)
        [[next_due_at]] = await self._fetch(self._owner_reader, "next_due_at", {"partition": partition, "now": now})
        return Work([row[0] for row in found], next_due_at)

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return await self._load(self._owner_reader, execution_ids, True)

    async def read_cancels(self, execution_ids: Collection[str]) -> Sequence[CommandRecord]:
        found = await self._fetch(self._owner_reader, "read_cancels", {"execution_ids": _json_array(execution_ids)})
        return [_command_record(row) for row in found]

    async def read_execution_state(self, execution_id: str) -> LoadedExecution | None:
        found = await self._load(self._reader, (execution_id,), False)
        return found[0] if found else None

    async def read_execution(self, execution_id: str) -> ExecutionRecord | None:
        found = await self._fetch(self._reader, "read_execution", (execution_id,))
        return _execution_record(next(iter(found))) if found else None

    async def read_outputs(self, execution_id: str, node_ids: Sequence[str]) -> Sequence[tuple[str, bytes]]:
        values = {"execution_id": execution_id, "node_ids": _json_array(node_ids)}
        found = {row[0]: row[1] for row in await self._fetch(self._reader, "read_outputs", values)}
        return [(node_id, found[node_id]) for node_id in node_ids if node_id in found]

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        found = await self._fetch(self._reader, "read_definition", (definition_id,))
        return DefinitionRecord(*found[0]) if found else None

    async def health(self) -> StoreHealth:
        try:
            await self._fetch(self._reader, "ping", ())
            if self._writer.fault is not None:
                # Whether writing works again is found out by writing.
                await self._writer.write(Run(lambda connection: connection.execute(self._queries["touch"])))
        except (BackendError, sqlite3.Error, ValueError) as error:
            return StoreHealth(False, str(error))
        return StoreHealth(True, f"SQLite {sqlite3.sqlite_version}")

    def _connect_writer(self) -> sqlite3.Connection:
        # Absolute: SQLite gives relative names such as "file:x" and ":memory:" a meaning of their own.
        path = self._path.resolve()
        return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0, cached_statements=256)

    def _check_file(self) -> None:
        """Raise `StoreUnavailable` when the file has been deleted or replaced: SQLite would write to nowhere."""
        try:
            inode = self._path.stat().st_ino
        except OSError as error:
            raise StoreUnavailable(f"the database file is gone ({error.strerror}); restore it and restart") from error
        if self._inode is None:
            self._inode = inode
        if inode != self._inode:
            raise StoreUnavailable("the database file has been replaced while it was in use; restart")

    async def _connect_reader(self) -> aiosqlite.Connection:
        address = f"file:{quote(os.fsencode(self._path.resolve()))}?mode=ro"
        return await aiosqlite.connect(address, uri=True, isolation_level=None, cached_statements=64)

    async def _fetch(self, reader: aiosqlite.Connection | None, query: str, values: Any) -> Sequence[Any]:
        if reader is None:
            raise StoreUnavailable("the store is closed")
        try:
            return list(await reader.execute_fetchall(self._queries[query], values))
        except sqlite3.DatabaseError as error:
            raise StoreUnavailable(f"the database cannot be read ({error})") from error

    async def _load(
        self, reader: aiosqlite.Connection | None, execution_ids: Collection[str], with_outputs: bool
    ) -> Sequence[LoadedExecution]:
        values = {"execution_ids": _json_array(execution_ids), "with_outputs": with_outputs}
        return assemble_loaded(await self._fetch(reader, "load_executions", values))


def assemble_loaded(rows: Iterable[Sequence[Any]]) -> Sequence[LoadedExecution]:
    """Sort the rows of `load_executions` into executions, attempts by sequence, commands by id."""
    records: list[ExecutionRecord] = []
    attempts: dict[str, list[AttemptRow]] = {}
    commands: dict[str, list[CommandRecord]] = {}
    for kind, *row in rows:
        if kind == 0:
            records.append(_execution_record(row))
        elif kind == 1:
            attempts.setdefault(row[0], []).append(AttemptRow._make([*row[:4], NodeState(row[4]), *row[5:]]))
        else:
            commands.setdefault(row[1], []).append(_command_record(row))
    return [
        LoadedExecution(
            record,
            sorted(attempts.get(record.execution_id, ()), key=lambda attempt: attempt.sequence),
            sorted(commands.get(record.execution_id, ())),
        )
        for record in records
    ]


def _json_array(ids: Iterable[str]) -> str:
    """For `json_each`, which cuts a text at a NUL and would then find what nobody asked for."""
    return json.dumps([each for each in ids if "\0" not in each])


def _execution_record(row: Sequence[Any]) -> ExecutionRecord:
    return ExecutionRecord._make([*row[:3], WorkflowState(row[3]), *row[4:]])


def _command_record(row: Sequence[Any]) -> CommandRecord:
    return CommandRecord(row[0], row[1], row[2], bool(row[3]), row[4])


def _prepare(connection: sqlite3.Connection, now: int) -> None:
    [[mode]] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode != "wal":
        raise StoreUnusable(f"the database cannot have a write-ahead log here (its journal mode stays {mode!r})")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA cache_size = -16000")
    migrate(connection, now)
    # A file that can only be read opens without complaint; a write that changes nothing finds out.
    connection.execute(load_queries("sqlite")["fence"], (-1, -1))


def _explain(error: sqlite3.DatabaseError, path: Path) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return (
            f"this file is not a sound SQLite database ({error}); restore a copy, or move it away "
            "to start with an empty one"
        )
    if code == sqlite3.SQLITE_READONLY:
        return f"the database is read-only ({error}); make the file and its folder writable for this user"
    if code == sqlite3.SQLITE_CANTOPEN:
        return f"cannot be opened ({error}); check that {path.parent} is a writable folder and the file readable"
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        free = os.statvfs(path.parent)
        return f"the disk reports an error ({error}); {free.f_bavail * free.f_frsize} bytes are free in {path.parent}"
    if code == sqlite3.SQLITE_BUSY:
        return f"another program has the database open for writing ({error}); close it"
    return str(error)
