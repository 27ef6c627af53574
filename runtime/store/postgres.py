"""The Store on PostgreSQL: one statement and one round trip for each batch, whatever its size.

The owner's commits and looks, and what the API asks for, go over connections of their own: neither waits
for the other's. A commit is one statement, in which every part selects from the fence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import asyncpg

from ...sql import load_queries
from ..clock import Clock, uuid7_floor
from ..core.machine import AttemptRow, Suspicion, error_mark
from ..core.shares import Look, PartitionRecord
from ..core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from ..errors import BackendError, PartitionLost, StoreUnavailable, StoreUnusable
from ..failpoints import failpoint
from ..grouping import Grouped
from ..ports import (
    CommandRecord,
    CommitBatch,
    DeadLetterFilter,
    DefinitionRecord,
    DefinitionVersion,
    ExecutionFilter,
    ExecutionRecord,
    ExecutionSummary,
    ExecutionUpdate,
    HandlerRecord,
    IdempotencyClaim,
    KeyRecord,
    LoadedExecution,
    NewDefinition,
    NewExecution,
    StoreHealth,
    Work,
)
from .postgres_connections import Connections, PostgresAddress
from .postgres_errors import CANNOT_CONNECT, unusable
from .postgres_migrations import check_migrated, migrate
from .postgres_writes import ApiWrites
from .rows import (
    attempt_row,
    command_record,
    execution_record,
    execution_summary,
    group_loaded,
    key_record,
    nodes_asked_for,
)

OWNER_CONNECTIONS = 2
READS_TOGETHER = 100
"""Rows that may be large: an input of 1 MiB, an output of 4 MiB."""
_LAST_ID = "~"
"""Behind every identifier."""
_MOST = 2**62
"""More than every version and every sequence number."""


class PostgresStore:
    """The Store on one database, shared by any number of processes. Its schema is made when it is missing."""

    def __init__(
        self,
        address: PostgresAddress,
        clock: Clock,
        *,
        pool_size: int,
        timeout_seconds: float,
        owner_timeout_seconds: float,
        partitions: int = 16,
        skip_migrations: bool = False,
        schema: str = "public",
    ) -> None:
        """`pool_size` connections in all; `timeout_seconds` bounds every statement and the wait for a connection.

        `owner_timeout_seconds` is the same for the owner's commits and looks: at most a third of the lease, so that
        one that hangs is given up, and asked for again, while the lease still stands. `partitions` is fixed once a
        database has been used.
        """
        self._address = address
        self._clock = clock
        self._partitions = partitions
        self._skip_migrations = skip_migrations
        self._queries = load_queries("postgres")
        settings = {"search_path": schema, "application_name": "workflow-engine"}
        self._owner = Connections(
            address, size=OWNER_CONNECTIONS, timeout_seconds=owner_timeout_seconds, settings=settings
        )
        self._api = Connections(
            address,
            size=max(1, pool_size - OWNER_CONNECTIONS),
            timeout_seconds=timeout_seconds,
            settings=settings,
        )
        self._writes = ApiWrites(self._api)
        # What is asked for most, by everybody who starts or waits: one round trip for all that ask at a time.
        self._executions: Grouped[str] = Grouped(self._read_executions, max_items=READS_TOGETHER)
        self._outputs: Grouped[tuple[str, Sequence[str]]] = Grouped(self._read_outputs, max_items=READS_TOGETHER)
        self._latest: Grouped[str] = Grouped(self._find_latest)
        self._closing = asyncio.Lock()

    async def open(self) -> None:
        try:
            await self._owner.open()
            await self._api.open()
            await self._prepare()
        except (StoreUnavailable, *CANNOT_CONNECT) as error:
            await self.close()
            raise unusable(self._address, error) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        async with self._closing:
            for grouped in (self._executions, self._outputs, self._latest):
                await grouped.close()
            await self._writes.close()
            await self._api.close()
            await self._owner.close()

    async def define(self, definition: NewDefinition, created_at: int) -> DefinitionVersion:
        return await self._writes.define(definition, created_at)

    async def create_execution(
        self, definition: NewDefinition | str, execution: NewExecution, claim: IdempotencyClaim | None = None
    ) -> tuple[str, str]:
        return await self._writes.create(definition, execution, claim)

    async def trigger(
        self, execution_id: str, input_text: bytes, started_at: int, claim: IdempotencyClaim | None = None
    ) -> str | None:
        return await self._writes.trigger(execution_id, input_text, started_at, claim)

    async def cancel_pending(self, execution_id: str, completed_at: int) -> bool:
        return bool(await self._api.write(self._queries["cancel_pending"], execution_id, completed_at))

    async def add_cancel(self, execution_id: str, created_at: int) -> None:
        await self._api.write(self._queries["insert_cancel"], execution_id, created_at)

    @property
    def partitions(self) -> int:
        return self._partitions

    async def look(self, replica: str, lease_seconds: float) -> Look:
        await self._owner.write(self._queries["attend"], replica, lease_seconds)
        replicas = await self._owner.read(self._queries["live_replicas"], replica)
        rows = await self._owner.read(self._queries["read_partitions"])
        return Look([PartitionRecord(*row) for row in rows], [row[0] for row in replicas])

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        return [PartitionRecord(*row) for row in await self._read("read_partitions")]

    async def leave(self, replica: str) -> None:
        await self._owner.write(self._queries["leave"], replica)

    async def checkpoint(self, replica: str, text: str) -> None:
        await self._api.write(self._queries["checkpoint"], replica, text)

    async def list_checkpoints(self) -> Sequence[tuple[str, float]]:
        return [(text, age_seconds) for text, age_seconds in await self._read("list_checkpoints")]

    async def take_partition(self, partition: int, owner: str, version: int, lease_seconds: float) -> int:
        taken = await self._owner.write(self._queries["take_partition"], partition, version, owner, lease_seconds)
        if not taken:
            raise PartitionLost(f"partition {partition} is no longer at version {version}, or somebody owns it")
        return version + 1

    async def release_partition(self, partition: int, version: int) -> bool:
        return bool(await self._owner.write(self._queries["release_partition"], partition, version))

    async def commit(self, batches: Sequence[CommitBatch], lease_seconds: float) -> Sequence[int | None]:
        failpoint("store.commit.fence")
        rows = await self._owner.write(
            self._queries["commit"],
            [batch.partition for batch in batches],
            [batch.version for batch in batches],
            lease_seconds,
            *_columns([(batch.partition, *_attempt_columns(row)) for batch in batches for row in batch.attempts], 11),
            *_columns([(batch.partition, *_update_columns(row)) for batch in batches for row in batch.executions], 6),
            *_columns([(batch.partition, *row[:2]) for batch in batches for row in batch.commands], 3),
            *_columns([(batch.partition, *row) for batch in batches for row in _latest_of_each(batch.suspicions)], 5),
        )
        failpoint("store.commit.landed")
        versions = {partition: version for partition, version in rows}
        return [versions.get(batch.partition) for batch in batches]

    async def find_work(self, partitions: Collection[int], now: int, limit: int) -> Work:
        owned = sorted(partitions)
        found = await self._owner.read(self._queries["find_work"], owned, now, limit)
        commanded = await self._owner.read(self._queries["find_commanded"], owned, limit)
        [[next_due_at]] = await self._owner.read(self._queries["next_due_at"], owned, now)
        return Work([row[0] for row in found], [row[0] for row in commanded], next_due_at)

    async def oldest_ready(self, partitions: Collection[int], now: int) -> Mapping[int, int]:
        return {row[0]: row[1] for row in await self._read("oldest_ready", sorted(partitions), now)}

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        return await self._load(self._owner, execution_ids, True)

    async def load_nodes(self, wanted: Mapping[str, Collection[str]]) -> Sequence[LoadedExecution]:
        asked = nodes_asked_for(wanted)
        pairs = [(execution_id, node_id) for execution_id, node_ids in asked for node_id in node_ids]
        ids = [execution_id for execution_id, _ in asked]
        return assembled(await self._read("load_nodes", ids, *map(list, _columns(pairs, 2))))

    async def read_cancels(self, execution_ids: Collection[str]) -> Sequence[CommandRecord]:
        found = await self._owner.read(self._queries["read_cancels"], list(execution_ids))
        return [command_record(tuple(row)) for row in found]

    async def read_execution_state(self, execution_id: str) -> LoadedExecution | None:
        found = await self._load(self._api, [execution_id], False)
        return found[0] if found else None

    async def read_execution(self, execution_id: str) -> ExecutionRecord | None:
        record: ExecutionRecord | None = await self._executions.ask(execution_id)
        return record

    async def read_outputs(self, execution_id: str, node_ids: Sequence[str]) -> Sequence[tuple[str, bytes]]:
        outputs: Sequence[tuple[str, bytes]] = await self._outputs.ask((execution_id, node_ids))
        return outputs

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        found = await self._read("read_definition", definition_id)
        return DefinitionRecord(*found[0]) if found else None

    async def find_definition(self, name: str, version: int | None = None) -> DefinitionVersion | None:
        if version is None:
            latest: DefinitionVersion | None = await self._latest.ask(name)
            return latest
        found = await self._read("find_version", name, version)
        return DefinitionVersion(*found[0]) if found else None

    async def list_definitions(self, after: str | None, limit: int) -> Sequence[DefinitionVersion]:
        return [DefinitionVersion(*row) for row in await self._read("list_definitions", after or "", limit)]

    async def list_versions(self, name: str, below: int | None, limit: int) -> Sequence[DefinitionVersion]:
        rows = await self._read("list_versions", name, _MOST if below is None else below, limit)
        return [DefinitionVersion(*row) for row in rows]

    async def list_executions(
        self, wanted: ExecutionFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        bounds = _bounds(wanted, before, limit)
        states = sorted(wanted.states or WorkflowState)
        if wanted.name is not None:
            rows = await self._read("list_executions_by_name", *bounds, states, wanted.name)
        elif wanted.states:
            rows = await self._read("list_executions_by_state", *bounds, states)
        else:
            rows = await self._read("list_executions", *bounds)
        return [_summary(row) for row in rows]

    async def list_dead_letters(
        self, wanted: DeadLetterFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        bounds = _bounds(wanted, before, limit)
        mark = b"" if wanted.error_type is None else error_mark(wanted.error_type).encode()
        if wanted.name is None:
            rows = await self._read("list_dead_letters", *bounds, mark)
        else:
            rows = await self._read("list_dead_letters_by_name", *bounds, mark, wanted.name)
        return [_summary(row) for row in rows]

    async def read_dead_letter(self, execution_id: str) -> ExecutionSummary | None:
        found = await self._read("read_dead_letter", execution_id)
        return _summary(found[0]) if found else None

    async def list_attempts(self, execution_id: str, below: int | None, limit: int) -> Sequence[AttemptRow]:
        rows = await self._read("list_attempts", execution_id, _MOST if below is None else below, limit)
        return [attempt_row([*row[:6], _decoded(row[6]), *row[7:]]) for row in map(tuple, rows)]

    async def requeue(self, execution_id: str, new: NewExecution, claim: IdempotencyClaim | None = None) -> str | None:
        return await self._writes.requeue(execution_id, new, claim)

    async def discard(self, execution_id: str) -> bool:
        if "\0" in execution_id:  # no row has it: PostgreSQL takes none
            return False
        return bool(await self._api.write(self._queries["discard"], execution_id))

    async def find_retry(self, execution_id: str) -> str | None:
        found = await self._read("find_retry", execution_id)
        return str(found[0][0]) if found else None

    async def add_key(self, record: KeyRecord) -> None:
        await self._api.write(self._queries["add_key"], *record)

    async def list_keys(self) -> Sequence[KeyRecord]:
        return [key_record(tuple(row)) for row in await self._read("list_keys")]

    async def find_key(self, digest: str) -> KeyRecord | None:
        found = await self._read("find_key", digest)
        return key_record(tuple(found[0])) if found else None

    async def revoke_key(self, key_id: str, revoked_at: int) -> bool:
        if "\0" in key_id:  # no row has it: PostgreSQL takes none
            return False
        return bool(await self._api.write(self._queries["revoke_key"], revoked_at, key_id))

    async def save_handlers(self, records: Sequence[HandlerRecord], seen_at: int) -> None:
        await self._api.write(self._queries["save_handlers"], *_columns(records, 7), seen_at)

    async def list_handlers(self, seen_from: int) -> Sequence[HandlerRecord]:
        return [HandlerRecord(*row) for row in await self._read("list_handlers", seen_from)]

    async def delete_ended_executions(self, ended_before: int, limit: int) -> int:
        states = sorted(TERMINAL_WORKFLOW_STATES)
        values = (states, uuid7_floor(ended_before), ended_before, limit)
        return len(await self._api.write(self._queries["delete_ended_executions"], *values))

    async def delete_claims(self, created_before: int, limit: int) -> int:
        return len(await self._api.write(self._queries["delete_claims"], created_before, limit))

    async def health(self) -> StoreHealth:
        try:
            [row] = await self._read("ping")
            if row["only_reads"]:
                return StoreHealth(False, "the server only reads: it is a standby, is recovering, or was told so")
        except BackendError as error:
            return StoreHealth(False, str(error))
        return StoreHealth(True, f"PostgreSQL {row['version'].split()[0]}")

    async def _prepare(self) -> None:
        # A migration may take longer than a commit may.
        connection = await self._api.acquire()
        try:
            if self._skip_migrations:
                await check_migrated(connection)
            else:
                await migrate(connection, self._clock.now())
            await connection.execute(self._queries["make_partitions"], self._partitions)
            stored = await connection.fetchval(self._queries["count_partitions"])
            if stored != self._partitions:
                raise StoreUnusable(
                    f"the database has {stored} partitions, and PARTITIONS is {self._partitions}: set it to {stored}"
                )
        finally:
            await self._api.release(connection)

    async def _read_executions(self, ids: Sequence[str]) -> Sequence[ExecutionRecord | None]:
        rows = await self._read("read_executions", list(ids))
        found = {row[0]: _execution_record(tuple(row)) for row in rows}
        return [found.get(each) for each in ids]

    async def _read_outputs(self, wanted: Sequence[tuple[str, Sequence[str]]]) -> Sequence[Sequence[tuple[str, bytes]]]:
        pairs = [(execution_id, node_id) for execution_id, node_ids in wanted for node_id in node_ids]
        rows = await self._read("read_outputs", *map(list, _columns(pairs, 2)))
        found = {(row[0], row[1]): row[2] for row in rows}
        return [
            [(node_id, found[execution_id, node_id]) for node_id in node_ids if (execution_id, node_id) in found]
            for execution_id, node_ids in wanted
        ]

    async def _find_latest(self, names: Sequence[str]) -> Sequence[DefinitionVersion | None]:
        rows = await self._read("find_latest", list(names))
        found = {row["name"]: DefinitionVersion(*row) for row in rows}
        return [found.get(each) for each in names]

    async def _read(self, query: str, *values: Any) -> Sequence[asyncpg.Record]:
        return await self._api.read(self._queries[query], *values)

    async def _load(
        self, connections: Connections, execution_ids: Collection[str], with_outputs: bool
    ) -> Sequence[LoadedExecution]:
        return assembled(await connections.read(self._queries["load_executions"], list(execution_ids), with_outputs))


def assembled(rows: Iterable[Any]) -> Sequence[LoadedExecution]:
    """The rows of `load_executions` and `load_nodes` as executions with everything of them."""
    records, attempts, commands, suspicions = [], [], [], []
    for kind, execution_id, text, number, state, data, error, *numbers, retry_of, resolution in rows:
        if kind == 0:
            columns = (execution_id, text, number, state, data, error, *numbers, retry_of, resolution)
            records.append(_execution_record(columns))
        elif kind == 1:
            sequence, *times = numbers
            row = (execution_id, sequence, text, number, NodeState(state), data, _decoded(error), *times)
            attempts.append(AttemptRow._make(row))
        elif kind == 2:
            created_at, consumed, sequence, _ = numbers
            commands.append(command_record((number, execution_id, created_at, consumed, sequence)))
        else:
            suspicions.append(Suspicion(execution_id, text, number, numbers[0]))
    return group_loaded(records, attempts, commands, suspicions)


def _latest_of_each(suspicions: Sequence[Suspicion]) -> Collection[Suspicion]:
    """The last one of each attempt: one statement changes no row twice."""
    return {row[:3]: row for row in suspicions}.values()


def _bounds(wanted: ExecutionFilter | DeadLetterFilter, before: str | None, limit: int) -> tuple[str, str, int]:
    """Between which identifiers a page is, and how many rows it has."""
    lowest = "" if wanted.created_from is None else uuid7_floor(wanted.created_from)
    highest = _LAST_ID if wanted.created_before is None else uuid7_floor(wanted.created_before)
    return lowest, highest if before is None else min(before, highest), limit


def _summary(row: asyncpg.Record) -> ExecutionSummary:
    columns = tuple(row)
    return execution_summary([*columns[:8], _decoded(columns[8]), *columns[9:]])


def _execution_record(row: Sequence[Any]) -> ExecutionRecord:
    return execution_record([*row[:5], _decoded(row[5]), *row[6:]])


def _attempt_columns(row: AttemptRow) -> Sequence[Any]:
    return (*row[:6], _encoded(row.error), *row[7:])


def _update_columns(row: ExecutionUpdate) -> Sequence[Any]:
    return (*row[:2], _encoded(row.error), *row[3:])


def _columns(rows: Sequence[Sequence[Any]], count: int) -> Sequence[Sequence[Any]]:
    """Rows as arrays, one for each column."""
    return list(zip(*rows, strict=True)) if rows else [()] * count


def _encoded(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _decoded(data: bytes | None) -> str | None:
    return None if data is None else data.decode()
