"""The Store in memory, for tests and simulation: the same contract, nothing durable but the object itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ..core.machine import AttemptRow, Suspicion, error_mark
from ..core.shares import NOBODY, Look, PartitionRecord
from ..core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from ..errors import IdempotencyConflict, PartitionLost
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


class MemoryStore:
    """The tables as dictionaries. Every verb is one step of the event loop, and so atomic."""

    def __init__(
        self, partitions: int = 1, monotonic: Callable[[], float] = lambda: 0.0, *, shared: bool = False
    ) -> None:
        """`monotonic` is the store's own clock, in seconds: leases go by it.

        Unless it is `shared`, whoever opens it has it alone, as with a file: nobody's lease is in its way.
        """
        self.partitions = partitions
        self._shared = shared
        self._monotonic = monotonic
        self.definitions: dict[str, DefinitionRecord] = {}
        self.executions: dict[str, ExecutionRecord] = {}
        self.attempts: dict[str, dict[tuple[str, int], AttemptRow]] = {}
        self.suspicions: dict[str, dict[tuple[str, int], Suspicion]] = {}
        self.commands: dict[int, CommandRecord] = {}
        self.versions: dict[int, int] = dict.fromkeys(range(partitions), 0)
        self.leases: dict[int, tuple[str, float]] = dict.fromkeys(range(partitions), (NOBODY, 0.0))
        self.replicas: dict[str, float] = {}
        self.checkpoints: dict[str, tuple[str, float]] = {}
        self.claims: dict[str, tuple[IdempotencyClaim, str, str]] = {}
        self.keys: dict[str, KeyRecord] = {}
        self.handlers: dict[str, tuple[HandlerRecord, int]] = {}

    async def open(self) -> None:
        """Nothing to make ready."""

    async def close(self) -> None:
        """Nothing to release: the tables stay, as a file would."""

    async def define(self, definition: NewDefinition, created_at: int) -> DefinitionVersion:
        return _version(self.definitions[self._ensure_definition(definition, created_at)])

    async def create_execution(
        self, definition: NewDefinition | str, execution: NewExecution, claim: IdempotencyClaim | None = None
    ) -> tuple[str, str]:
        answered = self._answered(claim)
        if answered is not None:
            return answered
        if execution.execution_id in self.executions:
            raise AssertionError(f"a second execution {execution.execution_id}")
        if isinstance(definition, str):
            definition_id = definition
        else:
            definition_id = self._ensure_definition(definition, execution.created_at)
        running = execution.input_text is not None
        self.executions[execution.execution_id] = ExecutionRecord(
            execution.execution_id,
            definition_id,
            execution.partition,
            WorkflowState.RUNNING if running else WorkflowState.PENDING,
            execution.input_text,
            None,
            execution.created_at,
            execution.created_at if running else None,
            None,
            None,
        )
        self._keep(claim, execution.execution_id, definition_id)
        return execution.execution_id, definition_id

    async def trigger(
        self, execution_id: str, input_text: bytes, started_at: int, claim: IdempotencyClaim | None = None
    ) -> str | None:
        answered = self._answered(claim)
        if answered is not None:
            return answered[0]
        record = self.executions.get(execution_id)
        if record is None or record.state is not WorkflowState.PENDING:
            return None
        self.executions[execution_id] = record._replace(
            state=WorkflowState.RUNNING, input_text=input_text, started_at=started_at
        )
        self._keep(claim, execution_id, record.definition_id)
        return execution_id

    async def cancel_pending(self, execution_id: str, completed_at: int) -> bool:
        record = self.executions.get(execution_id)
        if record is None or record.state is not WorkflowState.PENDING:
            return False
        self.executions[execution_id] = record._replace(state=WorkflowState.CANCELLED, completed_at=completed_at)
        return True

    async def add_cancel(self, execution_id: str, created_at: int) -> None:
        command_id = max(self.commands, default=0) + 1
        self.commands[command_id] = CommandRecord(command_id, execution_id, created_at, False, None)

    async def look(self, replica: str, lease_seconds: float) -> Look:
        now = self._monotonic()
        self.replicas[replica] = now + lease_seconds
        records = await self.read_partitions()
        if not self._shared:
            return Look([each._replace(expires_in_seconds=0.0) for each in records], [replica])
        return Look(records, sorted(each for each, expires_at in self.replicas.items() if expires_at > now))

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        now = self._monotonic()
        return [
            PartitionRecord(partition, version, self.leases[partition][0], self.leases[partition][1] - now)
            for partition, version in self.versions.items()
        ]

    async def leave(self, replica: str) -> None:
        self.replicas.pop(replica, None)
        self.checkpoints.pop(replica, None)

    async def checkpoint(self, replica: str, text: str) -> None:
        self.checkpoints[replica] = (text, self._monotonic())

    async def list_checkpoints(self) -> Sequence[tuple[str, float]]:
        return [(text, self._monotonic() - at) for _, (text, at) in sorted(self.checkpoints.items())]

    async def take_partition(self, partition: int, owner: str, version: int, lease_seconds: float) -> int:
        held_by, expires_at = self.leases[partition]
        free = not self._shared or held_by in (owner, NOBODY) or expires_at <= self._monotonic()
        if self.versions[partition] != version or not free:
            raise PartitionLost(f"partition {partition} is no longer at version {version}, or {held_by!r} owns it")
        self.versions[partition] = version + 1
        self.leases[partition] = (owner, self._monotonic() + lease_seconds)
        return version + 1

    async def release_partition(self, partition: int, version: int) -> bool:
        if self.versions[partition] != version:
            return False
        self.versions[partition] = version + 1
        self.leases[partition] = (NOBODY, 0.0)
        return True

    async def commit(self, batches: Sequence[CommitBatch], lease_seconds: float) -> Sequence[int | None]:
        held = [
            batch
            for batch in batches
            if self.versions[batch.partition] == batch.version and self.leases[batch.partition][0] != NOBODY
        ]
        new: set[tuple[str, str, int]] = set()
        for row in (row for batch in held for row in batch.attempts):
            key = (row.execution_id, row.node_id, row.attempt)
            if key in new or key[1:] in self.attempts.get(row.execution_id, {}):
                raise AssertionError(f"a second outcome of {key}")
            new.add(key)
        for batch in held:
            self._write(batch)
            self.versions[batch.partition] = batch.version + 1
            self.leases[batch.partition] = (self.leases[batch.partition][0], self._monotonic() + lease_seconds)
        return [batch.version + 1 if batch in held else None for batch in batches]

    def _write(self, batch: CommitBatch) -> None:
        for row in batch.attempts:
            self.attempts.setdefault(row.execution_id, {})[row.node_id, row.attempt] = row
        for suspicion in batch.suspicions:
            self.suspicions.setdefault(suspicion.execution_id, {})[suspicion.node_id, suspicion.attempt] = suspicion
        for update in batch.executions:
            record = self.executions.get(update.execution_id)
            if record is not None and record.state is WorkflowState.RUNNING:
                self.executions[update.execution_id] = record._replace(
                    state=update.state,
                    error=update.error,
                    completed_at=update.completed_at,
                    parked_until=update.parked_until,
                )
        for command in batch.commands:
            if command.command_id in self.commands:
                self.commands[command.command_id] = self.commands[command.command_id]._replace(
                    consumed=True, sequence=command.sequence
                )

    async def find_work(self, partitions: Collection[int], now: int, limit: int) -> Work:
        running = [
            record
            for record in self.executions.values()
            if record.partition in partitions and record.state is WorkflowState.RUNNING
        ]
        ready = [each.execution_id for each in running if each.parked_until is None or each.parked_until <= now]
        commanded = {
            command.execution_id
            for command in self.commands.values()
            if not command.consumed
            and command.execution_id in self.executions
            and self.executions[command.execution_id].partition in partitions
        }
        due = [each.parked_until for each in running if each.parked_until is not None and each.parked_until > now]
        return Work(sorted(ready)[:limit], sorted(commanded)[:limit], min(due, default=None))

    async def oldest_ready(self, partitions: Collection[int], now: int) -> Mapping[int, int]:
        oldest: dict[int, int] = {}
        unparked: set[int] = set()
        for _, record in sorted(self.executions.items()):
            partition, since = record.partition, record.parked_until
            if record.state is not WorkflowState.RUNNING or partition not in partitions:
                continue
            if since is None and partition not in unparked:
                # The oldest by its identifier, as the databases' indexes have it.
                unparked.add(partition)
                since = record.started_at
            if since is not None and since <= now:
                oldest[partition] = min(since, oldest.get(partition, since))
        return oldest

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        known = dict.fromkeys(execution_id for execution_id in execution_ids if execution_id in self.executions)
        return [self.loaded(execution_id) for execution_id in known]

    async def load_nodes(self, wanted: Mapping[str, Collection[str]]) -> Sequence[LoadedExecution]:
        return [
            LoadedExecution(
                each.record,
                [row for row in each.attempts if row.node_id in wanted[each.record.execution_id]],
                (),
                [row for row in each.suspicions if row.node_id in wanted[each.record.execution_id]],
            )
            for each in await self.load(wanted)
        ]

    async def read_cancels(self, execution_ids: Collection[str]) -> Sequence[CommandRecord]:
        return [
            command
            for command in self.commands.values()
            if not command.consumed and command.execution_id in execution_ids
        ]

    async def read_execution_state(self, execution_id: str) -> LoadedExecution | None:
        if execution_id not in self.executions:
            return None
        loaded = self.loaded(execution_id)
        return loaded._replace(attempts=[row._replace(output=None) for row in loaded.attempts])

    async def read_execution(self, execution_id: str) -> ExecutionRecord | None:
        return self.executions.get(execution_id)

    async def read_outputs(self, execution_id: str, node_ids: Sequence[str]) -> Sequence[tuple[str, bytes]]:
        outputs = {
            row.node_id: row.output
            for row in self.attempts.get(execution_id, {}).values()
            if row.state is NodeState.COMPLETED and row.output is not None
        }
        return [(node_id, outputs[node_id]) for node_id in node_ids if node_id in outputs]

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        return self.definitions.get(definition_id)

    async def find_definition(self, name: str, version: int | None = None) -> DefinitionVersion | None:
        versions = await self.list_versions(name, None, len(self.definitions))
        return next((each for each in versions if version is None or each.version == version), None)

    async def list_definitions(self, after: str | None, limit: int) -> Sequence[DefinitionVersion]:
        latest: dict[str, DefinitionRecord] = {}
        for record in sorted(self.definitions.values(), key=lambda record: record.version):
            if after is None or record.name > after:
                latest[record.name] = record
        return [_version(latest[name]) for name in sorted(latest)][:limit]

    async def list_versions(self, name: str, below: int | None, limit: int) -> Sequence[DefinitionVersion]:
        found = [
            _version(record)
            for record in self.definitions.values()
            if record.name == name and (below is None or record.version < below)
        ]
        return sorted(found, key=lambda found: -found.version)[:limit]

    async def list_executions(
        self, wanted: ExecutionFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        found = [
            self._summary(record)
            for record in self.executions.values()
            if (not wanted.states or record.state in wanted.states)
            and (before is None or record.execution_id < before)
            and (wanted.created_from is None or record.created_at >= wanted.created_from)
            and (wanted.created_before is None or record.created_at < wanted.created_before)
        ]
        found = [summary for summary in found if wanted.name is None or summary.name == wanted.name]
        return sorted(found, key=lambda summary: summary.execution_id, reverse=True)[:limit]

    async def list_dead_letters(
        self, wanted: DeadLetterFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        mark = "" if wanted.error_type is None else error_mark(wanted.error_type)
        meant = ExecutionFilter(
            frozenset({WorkflowState.FAILED}), wanted.name, wanted.created_from, wanted.created_before
        )
        found = await self.list_executions(meant, before, len(self.executions))
        return [
            each
            for each in found
            if self.executions[each.execution_id].resolution is None and mark in (each.error or "")
        ][:limit]

    async def read_dead_letter(self, execution_id: str) -> ExecutionSummary | None:
        record = self.executions.get(execution_id)
        if record is None or record.state is not WorkflowState.FAILED or record.resolution is not None:
            return None
        return self._summary(record)

    async def list_attempts(self, execution_id: str, below: int | None, limit: int) -> Sequence[AttemptRow]:
        rows = [
            row._replace(output=None)
            for row in self.attempts.get(execution_id, {}).values()
            if below is None or row.sequence < below
        ]
        return sorted(rows, key=lambda row: -row.sequence)[:limit]

    async def requeue(self, execution_id: str, new: NewExecution, claim: IdempotencyClaim | None = None) -> str | None:
        answered = self._answered(claim)
        if answered is not None:
            return answered[0]
        if await self.read_dead_letter(execution_id) is None:
            return None
        letter = self.executions[execution_id]
        await self.create_execution(letter.definition_id, new._replace(input_text=letter.input_text), claim)
        await self._resolve(execution_id, Resolution.REQUEUED)
        self.executions[new.execution_id] = self.executions[new.execution_id]._replace(retry_of=execution_id)
        completed = [row for row in self.loaded(execution_id).attempts if row.state is NodeState.COMPLETED]
        self.attempts[new.execution_id] = {
            (row.node_id, 1): row._replace(execution_id=new.execution_id, sequence=sequence, attempt=1)
            for sequence, row in enumerate(completed, 1)
        }
        return new.execution_id

    async def discard(self, execution_id: str) -> bool:
        return await self._resolve(execution_id, Resolution.DISCARDED)

    async def _resolve(self, execution_id: str, resolution: Resolution) -> bool:
        if await self.read_dead_letter(execution_id) is None:
            return False
        self.executions[execution_id] = self.executions[execution_id]._replace(resolution=resolution)
        return True

    async def find_retry(self, execution_id: str) -> str | None:
        return next((key for key, each in self.executions.items() if each.retry_of == execution_id), None)

    async def add_key(self, record: KeyRecord) -> None:
        self.keys[record.key_id] = record

    async def list_keys(self) -> Sequence[KeyRecord]:
        return sorted(self.keys.values(), key=lambda record: (record.created_at, record.key_id))

    async def find_key(self, digest: str) -> KeyRecord | None:
        return next((record for record in self.keys.values() if record.digest == digest), None)

    async def revoke_key(self, key_id: str, revoked_at: int) -> bool:
        record = self.keys.get(key_id)
        if record is None or record.revoked_at is not None:
            return False
        self.keys[key_id] = record._replace(revoked_at=revoked_at)
        return True

    async def save_handlers(self, records: Sequence[HandlerRecord], seen_at: int) -> None:
        self.handlers |= {record.name: (record, seen_at) for record in records}

    async def list_handlers(self, seen_from: int) -> Sequence[HandlerRecord]:
        return sorted(record for record, seen_at in self.handlers.values() if seen_at >= seen_from)

    async def delete_ended_executions(self, ended_before: int, limit: int) -> int:
        ended = [
            record.execution_id
            for record in self.executions.values()
            if record.state in TERMINAL_WORKFLOW_STATES
            and record.completed_at is not None
            and record.completed_at < ended_before
        ][:limit]
        for execution_id in ended:
            del self.executions[execution_id]
            self.attempts.pop(execution_id, None)
            self.suspicions.pop(execution_id, None)
        gone = set(ended)
        self.commands = {key: each for key, each in self.commands.items() if each.execution_id not in gone}
        return len(ended)

    async def delete_claims(self, created_before: int, limit: int) -> int:
        old = [key for key, (claim, _, _) in self.claims.items() if claim.created_at < created_before][:limit]
        for key in old:
            del self.claims[key]
        return len(old)

    async def health(self) -> StoreHealth:
        return StoreHealth(True, "in memory")

    def _answered(self, claim: IdempotencyClaim | None) -> tuple[str, str] | None:
        """What was answered to a claim that was made before."""
        made = None if claim is None else self.claims.get(claim.key)
        if claim is None or made is None:
            return None
        if made[0].fingerprint != claim.fingerprint:
            raise IdempotencyConflict
        return made[1:]

    def _keep(self, claim: IdempotencyClaim | None, execution_id: str, definition_id: str) -> None:
        if claim is not None:
            self.claims[claim.key] = (claim, execution_id, definition_id)

    def _summary(self, record: ExecutionRecord) -> ExecutionSummary:
        definition = self.definitions.get(record.definition_id)
        return ExecutionSummary(
            record.execution_id,
            record.definition_id,
            definition.name if definition else "",
            definition.version if definition else 0,
            record.state,
            record.created_at,
            record.started_at,
            record.completed_at,
            record.error,
            record.retry_of,
        )

    def _ensure_definition(self, definition: NewDefinition, created_at: int) -> str:
        same_name = [record for record in self.definitions.values() if record.name == definition.name]
        for record in same_name:
            if record.digest == definition.digest:
                return record.definition_id
        self.definitions[definition.definition_id] = DefinitionRecord(
            definition.definition_id,
            definition.name,
            len(same_name) + 1,
            definition.digest,
            definition.body,
            created_at,
        )
        return definition.definition_id

    def loaded(self, execution_id: str) -> LoadedExecution:
        """Everything of one execution."""
        return LoadedExecution(
            self.executions[execution_id],
            sorted(self.attempts.get(execution_id, {}).values(), key=lambda row: row.sequence),
            [command for command in self.commands.values() if command.execution_id == execution_id],
            sorted(self.suspicions.get(execution_id, {}).values()),
        )


def _version(record: DefinitionRecord) -> DefinitionVersion:
    return DefinitionVersion(record.definition_id, record.name, record.version, record.digest, record.created_at)
