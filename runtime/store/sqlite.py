"""The Store on one SQLite file: WAL, `synchronous=FULL`, one connection that writes, two that read.

Only the writing connection ever writes or checkpoints: versions 3.7.0 to 3.51.2 of SQLite can corrupt
a WAL that two connections reset at the same time.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiosqlite

from ...sql import load_queries
from ..clock import Clock, uuid7_floor
from ..core.machine import AttemptRow, error_mark
from ..core.shares import NOBODY, Look, PartitionRecord
from ..core.state import TERMINAL_WORKFLOW_STATES, WorkflowState
from ..errors import BackendError, PartitionLost, StoreUnavailable, StoreUnusable
from ..ports import (
    CommandRecord,
    CommitBatch,
    DeadLetterFilter,
    DefinitionRecord,
    DefinitionVersion,
    ExecutionFilter,
    ExecutionRecord,
    ExecutionSummary,
    HandlerRecord,
    IdempotencyClaim,
    KeyRecord,
    LoadedExecution,
    NewDefinition,
    NewExecution,
    Resolution,
    StoreHealth,
    Work,
)
from .file_lock import FileLock
from .migrations import check_migrated, migrate
from .rows import (
    assemble_loaded,
    attempt_row,
    command_record,
    execution_record,
    execution_summary,
    json_array,
    key_record,
    nodes_asked_for,
)
from .sqlite_writer import CreateExecution, Requeue, Run, SqliteWriter, Trigger

OLDEST_SQLITE = (3, 37, 0)
_LAST_ID = "~"
"""Behind every identifier."""
_MOST = 2**62
"""More than every version and every sequence number."""


class SqliteStore:
    """The Store on one file. The folder is made when it is missing; one process at a time."""

    def __init__(self, path: Path, clock: Clock, *, skip_migrations: bool = False) -> None:
        """With `skip_migrations` a database that needs one is refused instead of changed."""
        self._skip_migrations = skip_migrations
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
            prepare = partial(_prepare, now=self._clock.now(), skip_migrations=self._skip_migrations)
            await self._writer.open(prepare)
            self._owner_reader = await self._connect_reader()
            self._reader = await self._connect_reader()
        except sqlite3.DatabaseError as error:
            await self.close()
            raise StoreUnusable(f"{self._path}: {explain(error, self._path)}") from error
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

    async def define(self, definition: NewDefinition, created_at: int) -> DefinitionVersion:
        writer = self._writer
        row = await writer.write(Run(lambda connection: writer.define(connection, definition, created_at)))
        return DefinitionVersion(*row)

    async def create_execution(
        self, definition: NewDefinition | str, execution: NewExecution, claim: IdempotencyClaim | None = None
    ) -> tuple[str, str]:
        created: tuple[str, str] = await self._writer.write(CreateExecution(definition, execution, claim))
        return created

    async def trigger(
        self, execution_id: str, input_text: bytes, started_at: int, claim: IdempotencyClaim | None = None
    ) -> str | None:
        triggered: str | None = await self._writer.write(Trigger(execution_id, input_text, started_at, claim))
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

    @property
    def partitions(self) -> int:
        return 1

    async def look(self, replica: str, lease_seconds: float) -> Look:
        # Whoever has the file's lock is alone: the partition is its to take, whoever had it before.
        records = await self._partitions(self._owner_reader)
        return Look([each._replace(expires_in_seconds=0.0) for each in records], [replica])

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        return await self._partitions(self._reader)

    async def _partitions(self, reader: aiosqlite.Connection | None) -> Sequence[PartitionRecord]:
        return partition_records(await self._fetch(reader, "read_partitions", ()))

    async def leave(self, replica: str) -> None:
        """Nobody asks who is alive."""

    async def checkpoint(self, replica: str, text: str) -> None:
        """Nobody else asks what this process does."""

    async def list_checkpoints(self) -> Sequence[tuple[str, float]]:
        return []

    async def take_partition(self, partition: int, owner: str, version: int, lease_seconds: float) -> int:
        query = self._queries["take_partition"]
        values = {"partition": partition, "owner": owner, "version": version}
        taken = await self._writer.write(Run(lambda connection: connection.execute(query, values).fetchall()))
        if not taken:
            raise PartitionLost(f"partition {partition} is no longer at version {version}")
        return version + 1

    async def release_partition(self, partition: int, version: int) -> bool:
        query = self._queries["release_partition"]
        count: int = await self._writer.write(
            Run(lambda connection: connection.execute(query, (partition, version)).rowcount)
        )
        return count == 1

    async def commit(self, batches: Sequence[CommitBatch], lease_seconds: float) -> Sequence[int | None]:
        # In practice one: an embedded store has one partition.
        return [await self._commit(batch) for batch in batches]

    async def _commit(self, batch: CommitBatch) -> int | None:
        try:
            version: int = await self._writer.write(batch)
        except PartitionLost:
            return None
        return version

    async def find_work(self, partitions: Collection[int], now: int, limit: int) -> Work:
        ready: list[str] = []
        commanded: list[str] = []
        due = []
        for partition in partitions:
            values = {"partition": partition, "now": now, "limit": limit}
            ready += [row[0] for row in await self._fetch(self._owner_reader, "find_work", values)]
            values = {"partition": partition, "limit": limit}
            commanded += [row[0] for row in await self._fetch(self._owner_reader, "find_commanded", values)]
            values = {"partition": partition, "now": now}
            due += [row[0] for row in await self._fetch(self._owner_reader, "next_due_at", values)]
        known = [each for each in due if each is not None]
        return Work(sorted(ready)[:limit], sorted(commanded)[:limit], min(known, default=None))

    async def oldest_ready(self, partitions: Collection[int], now: int) -> Mapping[int, int]:
        found = {}
        for partition in partitions:
            [[since]] = await self._fetch(self._reader, "oldest_ready", {"partition": partition, "now": now})
            if since is not None:
                found[partition] = since
        return found

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return await self._load(self._owner_reader, execution_ids, True)

    async def load_nodes(self, wanted: Mapping[str, Collection[str]]) -> Sequence[LoadedExecution]:
        asked = {"wanted": json.dumps(nodes_asked_for(wanted))}
        return assemble_loaded(await self._fetch(self._reader, "load_nodes", asked))

    async def read_cancels(self, execution_ids: Collection[str]) -> Sequence[CommandRecord]:
        found = await self._fetch(self._owner_reader, "read_cancels", {"execution_ids": json_array(execution_ids)})
        return [command_record(row) for row in found]

    async def read_execution_state(self, execution_id: str) -> LoadedExecution | None:
        found = await self._load(self._reader, (execution_id,), False)
        return found[0] if found else None

    async def read_execution(self, execution_id: str) -> ExecutionRecord | None:
        found = await self._fetch(self._reader, "read_execution", (execution_id,))
        return execution_record(next(iter(found))) if found else None

    async def read_outputs(self, execution_id: str, node_ids: Sequence[str]) -> Sequence[tuple[str, bytes]]:
        values = {"execution_id": execution_id, "node_ids": json_array(node_ids)}
        found = {row[0]: row[1] for row in await self._fetch(self._reader, "read_outputs", values)}
        return [(node_id, found[node_id]) for node_id in node_ids if node_id in found]

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        found = await self._fetch(self._reader, "read_definition", (definition_id,))
        return DefinitionRecord(*found[0]) if found else None

    async def find_definition(self, name: str, version: int | None = None) -> DefinitionVersion | None:
        if version is None:
            found = await self._fetch(self._reader, "find_latest", (name,))
        else:
            found = await self._fetch(self._reader, "find_version", (name, version))
        return DefinitionVersion(*found[0]) if found else None

    async def list_definitions(self, after: str | None, limit: int) -> Sequence[DefinitionVersion]:
        values = {"after": "" if after is None else after, "limit": limit}
        return [DefinitionVersion(*row) for row in await self._fetch(self._reader, "list_definitions", values)]

    async def list_versions(self, name: str, below: int | None, limit: int) -> Sequence[DefinitionVersion]:
        values = {"name": name, "below": _MOST if below is None else below, "limit": limit}
        return [DefinitionVersion(*row) for row in await self._fetch(self._reader, "list_versions", values)]

    async def list_executions(
        self, wanted: ExecutionFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        values = _bounds(wanted, before, limit)
        if wanted.name is None and not wanted.states:
            found = await self._fetch(self._reader, "list_executions", values)
            return [execution_summary(row) for row in found]
        values["states"] = json_array(sorted(wanted.states or WorkflowState))
        if wanted.name is None:
            found = await self._fetch(self._reader, "list_executions_by_state", values)
        else:
            found = await self._fetch(self._reader, "list_executions_by_name", {**values, "name": wanted.name})
        return [execution_summary(row) for row in found]

    async def list_dead_letters(
        self, wanted: DeadLetterFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        values = _bounds(wanted, before, limit)
        values["mark"] = "" if wanted.error_type is None else error_mark(wanted.error_type)
        if wanted.name is None:
            found = await self._fetch(self._reader, "list_dead_letters", values)
        else:
            found = await self._fetch(self._reader, "list_dead_letters_by_name", {**values, "name": wanted.name})
        return [execution_summary(row) for row in found]

    async def read_dead_letter(self, execution_id: str) -> ExecutionSummary | None:
        found = await self._fetch(self._reader, "read_dead_letter", (execution_id,))
        return execution_summary(found[0]) if found else None

    async def list_attempts(self, execution_id: str, below: int | None, limit: int) -> Sequence[AttemptRow]:
        values = {"execution_id": execution_id, "below": _MOST if below is None else below, "limit": limit}
        return [attempt_row(row) for row in await self._fetch(self._reader, "list_attempts", values)]

    async def requeue(self, execution_id: str, new: NewExecution, claim: IdempotencyClaim | None = None) -> str | None:
        requeued: str | None = await self._writer.write(Requeue(execution_id, new, claim))
        return requeued

    async def discard(self, execution_id: str) -> bool:
        query = self._queries["resolve"]
        values = {"execution_id": execution_id, "resolution": Resolution.DISCARDED}
        count: int = await self._writer.write(Run(lambda connection: connection.execute(query, values).rowcount))
        return count == 1

    async def find_retry(self, execution_id: str) -> str | None:
        found = await self._fetch(self._reader, "find_retry", (execution_id,))
        return str(found[0][0]) if found else None

    async def add_key(self, record: KeyRecord) -> None:
        query = self._queries["add_key"]
        values = (*record[:3], json.dumps(record.scopes), *record[4:])
        await self._writer.write(Run(lambda connection: connection.execute(query, values).rowcount))

    async def list_keys(self) -> Sequence[KeyRecord]:
        return [_key_record(row) for row in await self._fetch(self._reader, "list_keys", ())]

    async def find_key(self, digest: str) -> KeyRecord | None:
        found = await self._fetch(self._reader, "find_key", (digest,))
        return _key_record(found[0]) if found else None

    async def revoke_key(self, key_id: str, revoked_at: int) -> bool:
        query = self._queries["revoke_key"]
        count: int = await self._writer.write(
            Run(lambda connection: connection.execute(query, (revoked_at, key_id)).rowcount)
        )
        return count == 1

    async def save_handlers(self, records: Sequence[HandlerRecord], seen_at: int) -> None:
        writer, rows = self._writer, [(*record, seen_at) for record in records]
        await writer.write(Run(lambda connection: writer.save_handlers(connection, rows)))

    async def list_handlers(self, seen_from: int) -> Sequence[HandlerRecord]:
        return [HandlerRecord(*row) for row in await self._fetch(self._reader, "list_handlers", (seen_from,))]

    async def delete_ended_executions(self, ended_before: int, limit: int) -> int:
        values = {
            "states": json_array(sorted(TERMINAL_WORKFLOW_STATES)),
            "before": uuid7_floor(ended_before),
            "ended_before": ended_before,
            "limit": limit,
        }

        def delete(connection: sqlite3.Connection) -> int:
            rows = connection.execute(self._queries["delete_ended_executions"], values).fetchall()
            deleted = {"execution_ids": json_array(row[0] for row in rows)}
            connection.execute(self._queries["delete_attempts"], deleted)
            connection.execute(self._queries["delete_suspicions"], deleted)
            connection.execute(self._queries["delete_commands"], deleted)
            return len(rows)

        count: int = await self._writer.write(Run(delete))
        return count

    async def delete_claims(self, created_before: int, limit: int) -> int:
        query = self._queries["delete_claims"]
        values = {"created_before": created_before, "limit": limit}
        count: int = await self._writer.write(Run(lambda connection: connection.execute(query, values).rowcount))
        return count

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
        values = {"execution_ids": json_array(execution_ids), "with_outputs": with_outputs}
        return assemble_loaded(await self._fetch(reader, "load_executions", values))


def partition_records(rows: Sequence[Any]) -> Sequence[PartitionRecord]:
    """The rows of `read_partitions`: without any, nobody has ever owned the one there is."""
    return [
        PartitionRecord(number, version, owner, 0.0 if owner == NOBODY else math.inf)
        for number, version, owner in rows or [(0, 0, NOBODY)]
    ]


def _bounds(wanted: ExecutionFilter | DeadLetterFilter, before: str | None, limit: int) -> dict[str, Any]:
    """Between which identifiers a page is, and how many rows it has."""
    highest = _LAST_ID if wanted.created_before is None else uuid7_floor(wanted.created_before)
    return {
        "lowest": "" if wanted.created_from is None else uuid7_floor(wanted.created_from),
        "before": highest if before is None else min(before, highest),
        "limit": limit,
    }


def _key_record(row: Sequence[Any]) -> KeyRecord:
    return key_record([*row[:3], json.loads(row[3]), *row[4:]])


def _prepare(connection: sqlite3.Connection, now: int, *, skip_migrations: bool) -> None:
    [[mode]] = connection.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode != "wal":
        raise StoreUnusable(f"the database cannot have a write-ahead log here (its journal mode stays {mode!r})")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")
    connection.execute("PRAGMA cache_size = -16000")
    if skip_migrations:
        check_migrated(connection)
    else:
        migrate(connection, now)
    # A file that can only be read opens without complaint; a write that changes nothing finds out.
    connection.execute(load_queries("sqlite")["fence"], (-1, -1))


def explain(error: sqlite3.DatabaseError, path: Path) -> str:
    """What an error at opening the file means, and what to do."""
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
