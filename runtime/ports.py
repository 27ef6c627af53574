"""The ports: what the engine asks of the world. Each verb says what is atomic, and what may be repeated.

`Store` is the truth. `Transport` is how the parts of the engine talk; everything in it may be lost at
any moment and costs time only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import NamedTuple, Protocol

from .core.machine import AttemptRow, ConsumedCommand, Outcome, Suspicion
from .core.shares import Look, PartitionRecord
from .core.state import WorkflowState


class DefinitionRecord(NamedTuple):
    """A stored definition. `body` is its JSON text, `digest` the SHA-256 of its canonical JSON."""

    definition_id: str
    name: str
    version: int
    digest: str
    body: bytes
    created_at: int


class NewDefinition(NamedTuple):
    """A definition to store unless one of that name and digest exists."""

    definition_id: str
    name: str
    digest: str
    body: bytes


class NewExecution(NamedTuple):
    """An execution to create: PENDING, or RUNNING with its inputs when `input_text` is given."""

    execution_id: str
    partition: int
    input_text: bytes | None
    created_at: int


class IdempotencyClaim(NamedTuple):
    """One request under one key. `key` is who sent it, the operation and the sender's key, as one text.

    `fingerprint` is the SHA-256 of what was asked; `created_at` in epoch milliseconds. The first write that
    carries a key has its answer stored with it, in the same transaction. A later one with the same fingerprint
    changes nothing and gets that answer; one with another fingerprint raises `IdempotencyConflict`.
    """

    key: str
    fingerprint: str
    created_at: int


class Resolution(StrEnum):
    """How somebody has dealt with a dead letter."""

    REQUEUED = "requeued"
    DISCARDED = "discarded"


class ExecutionRecord(NamedTuple):
    """A stored execution. Times in epoch milliseconds; `error` is JSON text; `input_text` is None while PENDING.

    `retry_of`: the id of the dead letter that it carries on. `resolution`: of one that FAILED, and is no dead letter
    any more.
    """

    execution_id: str
    definition_id: str
    partition: int
    state: WorkflowState
    input_text: bytes | None
    error: str | None
    created_at: int
    started_at: int | None
    completed_at: int | None
    parked_until: int | None
    retry_of: str | None = None
    resolution: Resolution | None = None


class ExecutionFilter(NamedTuple):
    """Which executions are meant: those that meet every condition. Times in epoch milliseconds.

    `states`: empty means all. `name`: of the definition, exactly. From `created_from` on, before `created_before`.
    """

    states: frozenset[WorkflowState] = frozenset()
    name: str | None = None
    created_from: int | None = None
    created_before: int | None = None


class DeadLetterFilter(NamedTuple):
    """Which dead letters are meant: those that meet every condition. Times in epoch milliseconds.

    `name`: of the definition, exactly. `error_type`: of the failed node's error, exactly. From `created_from` on,
    before `created_before`: when the execution was created.
    """

    name: str | None = None
    error_type: str | None = None
    created_from: int | None = None
    created_before: int | None = None


class ExecutionSummary(NamedTuple):
    """An execution as a list shows it. Times in epoch milliseconds; `error` is JSON text."""

    execution_id: str
    definition_id: str
    name: str
    version: int
    state: WorkflowState
    created_at: int
    started_at: int | None
    completed_at: int | None
    error: str | None
    retry_of: str | None = None


class DefinitionVersion(NamedTuple):
    """A stored definition without its body. `created_at` in epoch milliseconds."""

    definition_id: str
    name: str
    version: int
    digest: str
    created_at: int


class KeyRecord(NamedTuple):
    """An API key: `digest` is the SHA-256 of its text, which is never stored. Times in epoch milliseconds."""

    key_id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class HandlerRecord(NamedTuple):
    """A handler as a process has it, for those that have not.

    `config_schema` is the JSON Schema of its configuration, as JSON text; None when it takes anything. `distribution`
    and `version` are those of the package that it came with, if known. `output_schema` is the JSON Schema of its
    output; None when that may be anything. `declared` is a JSON object of what else it declares, by the names that
    `@handler` has for it; what it leaves out is not there.
    """

    name: str
    description: str
    config_schema: str | None
    distribution: str | None
    version: str | None
    output_schema: str | None = None
    declared: str | None = None


class CommandRecord(NamedTuple):
    """A stored cancel. `sequence` is its place in the history once it was consumed and had an effect."""

    command_id: int
    execution_id: str
    created_at: int
    consumed: bool
    sequence: int | None


class LoadedExecution(NamedTuple):
    """Everything of one execution, as of one moment: its row, its attempts by sequence, its commands by id, and the
    attempts that have lost deliveries."""

    record: ExecutionRecord
    attempts: Sequence[AttemptRow]
    commands: Sequence[CommandRecord]
    suspicions: Sequence[Suspicion] = ()


class ExecutionUpdate(NamedTuple):
    """What a commit writes to an execution's row."""

    execution_id: str
    state: WorkflowState
    error: str | None
    completed_at: int | None
    parked_until: int | None


class CommitBatch(NamedTuple):
    """What one commit makes durable for one partition: all of it or nothing."""

    partition: int
    version: int
    attempts: Sequence[AttemptRow]
    executions: Sequence[ExecutionUpdate]
    commands: Sequence[ConsumedCommand]
    suspicions: Sequence[Suspicion] = ()
    """Each replaces what was known of its attempt."""


class Work(NamedTuple):
    """What a look found: executions that are ready to run, executions with a cancel, and when the next parked
    one is due."""

    execution_ids: Sequence[str]
    commanded: Sequence[str]
    next_due_at: int | None


class StoreHealth(NamedTuple):
    """How the store is: `ok`, and a line for people."""

    ok: bool
    detail: str


class DefinitionStore(Protocol):
    """Definitions: immutable, versioned by name, never deleted."""

    async def define(self, definition: NewDefinition, created_at: int) -> DefinitionVersion:
        """Store a definition unless it exists; returns the stored one.

        The same name and digest are the same definition; the same name with another digest makes the
        name's next version.
        """

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        """One definition."""

    async def find_definition(self, name: str, version: int | None = None) -> DefinitionVersion | None:
        """A version of a name; the latest without `version`."""

    async def list_definitions(self, after: str | None, limit: int) -> Sequence[DefinitionVersion]:
        """The latest version of each name, ordered by name, from the first name behind `after` on."""

    async def list_versions(self, name: str, below: int | None, limit: int) -> Sequence[DefinitionVersion]:
        """The versions of a name below `below`, newest first."""


class ExecutionStore(Protocol):
    """Executions as those see them who start, follow and cancel them."""

    async def create_execution(
        self, definition: NewDefinition | str, execution: NewExecution, claim: IdempotencyClaim | None = None
    ) -> tuple[str, str]:
        """Store an execution, and its definition unless that exists: returns (execution id, definition id).

        `definition` is a definition's id when it is known to be stored; else as in `define`. When `claim`
        was made before, nothing is stored, and the ids are those of then. Raises `IdempotencyConflict`.
        """

    async def trigger(
        self, execution_id: str, input_text: bytes, started_at: int, claim: IdempotencyClaim | None = None
    ) -> str | None:
        """PENDING becomes RUNNING with these inputs; returns its id. None when it was not PENDING (any more).

        When `claim` was made before, nothing changes, and the id is that of then. Raises `IdempotencyConflict`.
        """

    async def cancel_pending(self, execution_id: str, completed_at: int) -> bool:
        """PENDING becomes CANCELLED; False when it was not PENDING (any more)."""

    async def add_cancel(self, execution_id: str, created_at: int) -> None:
        """Store a cancel for the execution's owner to consume."""

    async def read_execution_state(self, execution_id: str) -> LoadedExecution | None:
        """One execution with everything of it but outputs, as of one moment."""

    async def read_execution(self, execution_id: str) -> ExecutionRecord | None:
        """One execution's row."""

    async def read_outputs(self, execution_id: str, node_ids: Sequence[str]) -> Sequence[tuple[str, bytes]]:
        """The outputs of completed nodes, in the order asked for."""

    async def list_executions(
        self, wanted: ExecutionFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        """The newest `limit` executions that are meant, behind the one with the id `before`, newest first.

        Identifiers of executions are version 7 UUIDs of `created_at`: their order is the order of creation.
        """


class DeadLetterStore(Protocol):
    """Dead letters: executions that FAILED and that nobody has dealt with. What is done about one touches its
    `resolution` alone: its state is final."""

    async def list_dead_letters(
        self, wanted: DeadLetterFilter, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        """The newest `limit` dead letters that are meant, behind the one with the id `before`, newest first."""

    async def read_dead_letter(self, execution_id: str) -> ExecutionSummary | None:
        """One dead letter; None for what is none, or none any more."""

    async def list_attempts(self, execution_id: str, below: int | None, limit: int) -> Sequence[AttemptRow]:
        """The last `limit` attempts of an execution below the sequence number `below`, the last one first, without
        outputs."""

    async def requeue(self, execution_id: str, new: NewExecution, claim: IdempotencyClaim | None = None) -> str | None:
        """Carry a dead letter on as `new`, which runs at once; returns its id. None when there is no such dead letter.

        Its definition and its inputs are those of the letter. What the letter has completed is completed in it too:
        each node's attempt is its first one, with its output and its times, and the sequence is dense in the same
        order. When `claim` was made before, nothing changes, and the id is that of then. Raises `IdempotencyConflict`.
        """

    async def discard(self, execution_id: str) -> bool:
        """Be done with a dead letter; False when there is no such dead letter."""

    async def find_retry(self, execution_id: str) -> str | None:
        """The id of the execution that a dead letter was requeued as; None when it was not, or that one is deleted."""


class OwnerStore(Protocol):
    """What the owner of partitions asks for. Leases are written and judged by the store's clock."""

    @property
    def partitions(self) -> int:
        """How many partitions there are: fixed when the store was made. To be asked when it is open."""

    async def look(self, replica: str, lease_seconds: float) -> Look:
        """Say that `replica` is alive for as long as a lease, and see every partition and live replica."""

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        """Every partition with whoever is its owner, for those who only want to know. Changes nothing."""

    async def leave(self, replica: str) -> None:
        """Say that `replica` is no more: its share is the others', and its checkpoint is forgotten."""

    async def checkpoint(self, replica: str, text: str) -> None:
        """Keep what `replica` says of itself, in place of what it said before. Nothing of it is an orchestrator's."""

    async def list_checkpoints(self) -> Sequence[tuple[str, float]]:
        """What every replica last said of itself, with its age in seconds; what is an hour old may be gone.

        A store of one process keeps none.
        """

    async def take_partition(self, partition: int, owner: str, version: int, lease_seconds: float) -> int:
        """Become the owner, if the partition's version is still `version`, and it is `owner`'s, nobody's or expired.

        Returns the next version. Raises `PartitionLost` when it is not so: somebody was faster. The raised
        version fences every former owner, and a taking of a process that has died since.
        """

    async def release_partition(self, partition: int, version: int) -> bool:
        """Own it no more, if its version is still `version`: then it is nobody's, at the next version."""

    async def commit(self, batches: Sequence[CommitBatch], lease_seconds: float) -> Sequence[int | None]:
        """Make batches of different partitions durable, each if the partition's version is still the batch's.

        Returns the next version for each, and renews its lease; None for one that missed: of that, nothing was
        written. An empty batch renews the lease.
        """

    async def find_work(self, partitions: Collection[int], now: int, limit: int) -> Work:
        """The oldest `limit` RUNNING executions that are not parked or due, and what has a cancel unconsumed."""

    async def oldest_ready(self, partitions: Collection[int], now: int) -> Mapping[int, int]:
        """For each of these partitions that has an execution that is ready to run: since when the oldest is.

        That is since its start, or since it was due. Epoch milliseconds.
        """

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        """The executions with everything of them, as of one moment. Unknown ids are left out."""

    async def load_nodes(self, wanted: Mapping[str, Collection[str]]) -> Sequence[LoadedExecution]:
        """By execution id, some nodes of each: as `load`, but only the attempts and suspicions of these nodes, and no
        commands. What a worker asks for that runs attempts of executions it does not own."""

    async def read_cancels(self, execution_ids: Collection[str]) -> Sequence[CommandRecord]:
        """The unconsumed cancels of these executions, in the order they were stored."""


class KeyStore(Protocol):
    """API keys."""

    async def add_key(self, record: KeyRecord) -> None:
        """Store a key."""

    async def list_keys(self) -> Sequence[KeyRecord]:
        """Every key, oldest first, expired and revoked ones too."""

    async def find_key(self, digest: str) -> KeyRecord | None:
        """The key whose text has this digest, expired or revoked as it may be."""

    async def revoke_key(self, key_id: str, revoked_at: int) -> bool:
        """Revoke a key; False when there is no such key, or it was revoked before."""


class CatalogueStore(Protocol):
    """The handlers that processes have."""

    async def save_handlers(self, records: Sequence[HandlerRecord], seen_at: int) -> None:
        """Store handlers of different names, each in place of what was known of it. May be repeated."""

    async def list_handlers(self, seen_from: int) -> Sequence[HandlerRecord]:
        """The handlers that were stored at that moment (epoch milliseconds) or later, by name."""


class RetentionStore(Protocol):
    """What makes room. Both verbs may be repeated, by any process at any time."""

    async def delete_ended_executions(self, ended_before: int, limit: int) -> int:
        """Delete at most `limit` executions that ended before then (epoch milliseconds), with everything of them.

        Returns how many were deleted: fewer than `limit` when none is left.
        """

    async def delete_claims(self, created_before: int, limit: int) -> int:
        """Delete at most `limit` idempotency claims that were made before then; returns how many were deleted."""


class Store(
    DefinitionStore, ExecutionStore, DeadLetterStore, OwnerStore, KeyStore, CatalogueStore, RetentionStore, Protocol
):
    """The truth. Every write is one atomic step. It is durable when its call returns, has not happened
    when it raises `StoreUnavailable`, `PartitionLost` or `IdempotencyConflict`, and after anything else
    that is unknown."""

    async def open(self) -> None:
        """Make ready: migrate, lock. Raises `StoreUnusable` saying what is wrong and how to mend it."""

    async def close(self) -> None:
        """Release everything. Safe to call twice, and without `open`."""

    async def health(self) -> StoreHealth:
        """Whether the store answers. Never raises."""


class Inbox(NamedTuple):
    """What waited for an owner."""

    wake_ups: Collection[str]
    outcomes: Sequence[Outcome]


class Transport(Protocol):
    """How the parts of the engine talk. Nothing here is durable, and nothing needs to be."""

    def wake(self, execution_id: str) -> None:
        """Tell the execution's owner to look at it. May be lost: the sweep finds it then."""

    def hand_in(self, outcome: Outcome) -> None:
        """Give an attempt's outcome to the execution's owner. Never refused."""

    def nudge(self) -> None:
        """Let `wait` return although nothing came in."""

    async def wait(self, timeout_seconds: float) -> None:
        """Until something comes in, or `nudge`, or the time has passed. For one waiter, the owner."""

    def take(self) -> Inbox:
        """Everything that waits, at once; each thing is handed out once."""

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        """What these outcomes said is committed, or counted for nothing: they are wanted no more."""

    def pass_on(self, outcomes: Sequence[Outcome]) -> None:
        """Outcomes of partitions that are not owned here: to those who own them, if they can be reached."""

    def serve(self, partitions: Collection[int]) -> None:
        """These partitions, and no others, have their owner here: what is for it comes in by `take` from now on."""

    @property
    def reaches_others(self) -> bool:
        """Whether what a replica runs can be handed in to the owner that comes after it."""

    @property
    def is_cut_off(self) -> bool:
        """Whether wake-ups of other replicas do not come through now."""

    def publish(self, changed: Collection[str], ended: Collection[str] = ()) -> None:
        """Tell whoever follows these executions that something committed has changed, or that they ended."""

    def follow(self, execution_id: str) -> AbstractContextManager[Follower]:
        """Follow an execution's changes."""


class Follower(Protocol):
    """Somebody who follows an execution."""

    async def changed(self, timeout_seconds: float) -> bool:
        """Wait until something has changed since the last call; False when the time passed instead."""

    async def ended(self, timeout_seconds: float) -> bool:
        """Wait until the execution has ended since this began to follow; False when the time passed instead."""
