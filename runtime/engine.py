"""The engine's door within the process: what the API, the command line and the benchmarks call.

Every write has reached the store before its call returns. What is asked for in one breath shares a
transaction.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from .clock import Clock, uuid7_milliseconds
from .core.graph import Graph
from .core.input_schema import validate_input
from .core.json_text import InvalidJson, JsonTooLarge, encode
from .core.machine import Execution, combine_exit_outputs, fold
from .core.problem import Problem
from .core.shares import partition_of
from .core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from .dead_letters import DeadLetters
from .definitions import Defined, Definitions, Recent, off_loop
from .errors import (
    ExecutionConflict,
    ExecutionNotFound,
    InvalidInput,
    NotAccepting,
    PayloadTooLarge,
)
from .failpoints import failpoint
from .graphs import Graphs
from .ports import (
    ExecutionFilter,
    ExecutionRecord,
    ExecutionSummary,
    IdempotencyClaim,
    LoadedExecution,
    NewExecution,
    Store,
    Transport,
)

REREAD_SECONDS = 1.0
CANCEL_BATCH = 200


class Submitted(NamedTuple):
    """The answer to a submit."""

    definition_id: str
    execution_id: str


class ExecutionStatus(NamedTuple):
    """An execution and its nodes as they stand. Times in epoch milliseconds; `error` is the failed node's; `retry_of`
    the dead letter that it carries on."""

    execution_id: str
    definition_id: str
    state: WorkflowState
    created_at: int
    started_at: int | None
    completed_at: int | None
    node_states: Mapping[str, NodeState]
    error: Mapping[str, Any] | None
    retry_of: str | None


class ExecutionResults(NamedTuple):
    """What an execution came to. `output_text` is JSON text; None until it is COMPLETED."""

    execution_id: str
    state: WorkflowState
    output_text: bytes | None
    completed_at: int | None
    error: Mapping[str, Any] | None


class CancelledMany(NamedTuple):
    """What came of cancelling by filter: PENDING ones that are CANCELLED, RUNNING ones that were asked to
    stop, and whether there are more that meet the filter."""

    cancelled: int
    requested: int
    more: bool


class Engine:
    """Submit, trigger, start, cancel, look. Safe to call concurrently from one event loop."""

    def __init__(
        self,
        *,
        store: Store,
        transport: Transport,
        graphs: Graphs,
        definitions: Definitions,
        clock: Clock,
        live: Callable[[str], Execution | None],
        running_elsewhere: Callable[[str], Awaitable[Collection[tuple[int, int]]]],
        max_input_bytes: int,
    ) -> None:
        self.definitions = definitions
        self._store = store
        self._transport = transport
        self._graphs = graphs
        self._clock = clock
        self._live = live
        self._running_elsewhere = running_elsewhere
        self._max_input_bytes = max_input_bytes
        self._definition_of_execution: Recent[str, str] = Recent()
        self._accepting = True
        self.dead_letters = DeadLetters(
            store=store,
            transport=transport,
            new_execution=lambda: self._new(None),
            check_accepting=self._check_accepting,
        )

    @property
    def accepting(self) -> bool:
        """Whether writes are taken: from the start on, until a shutdown begins."""
        return self._accepting

    def stop_accepting(self) -> None:
        """From now on writes raise `NotAccepting`; reads go on."""
        self._accepting = False

    async def submit(self, document: Any, claim: IdempotencyClaim | None = None) -> Submitted:
        """Store a definition (unless its name has the very same one) and a PENDING execution of it.

        `document` is the decoded JSON of a `WorkflowDefinition`. Raises `InvalidDefinition` with every
        problem, `PayloadTooLarge`, `IdempotencyConflict`, `StoreUnavailable`.
        """
        self._check_accepting()
        checked = await self.definitions.check(document)
        failpoint("engine.submit.validated")
        execution_id, stored_id = await self._store.create_execution(checked.reference, self._new(None), claim)
        failpoint("engine.submit.stored")
        await self.definitions.keep(checked, stored_id)
        self._definition_of_execution.put(execution_id, stored_id)
        return Submitted(stored_id, execution_id)

    async def define(self, document: Any) -> Defined:
        """Store a definition without an execution, as `Definitions.define` does."""
        self._check_accepting()
        return await self.definitions.define(document)

    async def trigger(self, execution_id: str, parameters: Any = None, claim: IdempotencyClaim | None = None) -> str:
        """Start a PENDING execution, or a new one of the same definition when this one has ended.

        Returns the id of the execution that was started. Raises `ExecutionNotFound`,
        `ExecutionConflict` when it is running, `InvalidInput`, `PayloadTooLarge`, `IdempotencyConflict`,
        `StoreUnavailable`.
        """
        self._check_accepting()
        definition_id = await self._definition_id(execution_id)
        graph = await self._graphs.get(definition_id)
        input_text = await self._check_input(graph, parameters)
        failpoint("engine.trigger.validated")
        started = await self._store.trigger(execution_id, input_text, self._clock.now(), claim)
        if started is None:
            record = await self._read(execution_id)
            if record.state not in TERMINAL_WORKFLOW_STATES:
                raise ExecutionConflict(
                    f"execution {execution_id} is {record.state}; it can be triggered when it has ended"
                )
            started, _ = await self._store.create_execution(definition_id, self._new(input_text), claim)
        failpoint("engine.trigger.stored")
        self._definition_of_execution.put(started, definition_id)
        self._transport.wake(started)
        return started

    async def start(
        self,
        name: str,
        parameters: Any = None,
        *,
        version: int | None = None,
        claim: IdempotencyClaim | None = None,
    ) -> Submitted:
        """Create and start an execution of a stored definition, the latest of its name unless `version` is given.

        Raises `DefinitionNotFound`, `InvalidInput`, `PayloadTooLarge`, `IdempotencyConflict`, `StoreUnavailable`.
        """
        self._check_accepting()
        found = await self.definitions.find(name, version)
        graph = await self._graphs.get(found.definition_id)
        input_text = await self._check_input(graph, parameters)
        failpoint("engine.start.validated")
        execution_id, definition_id = await self._store.create_execution(
            found.definition_id, self._new(input_text), claim
        )
        failpoint("engine.start.stored")
        self._definition_of_execution.put(execution_id, definition_id)
        self._transport.wake(execution_id)
        return Submitted(definition_id, execution_id)

    async def list_executions(
        self, wanted: ExecutionFilter, *, before: str | None, limit: int
    ) -> Sequence[ExecutionSummary]:
        """The newest `limit` executions that are meant, behind the one with the id `before`, newest first."""
        return await self._store.list_executions(wanted, before, limit)

    async def cancel_many(self, wanted: ExecutionFilter, limit: int) -> CancelledMany:
        """Cancel at most `limit` of the PENDING and RUNNING executions that are meant, newest first.

        May be repeated until there are no more: a RUNNING one counts until it has ended.
        """
        self._check_accepting()
        alive = frozenset(WorkflowState) - TERMINAL_WORKFLOW_STATES
        states = (wanted.states & alive) if wanted.states else alive
        cancelled = requested = 0
        before: str | None = None
        while states and cancelled + requested < limit:
            count = min(CANCEL_BATCH, limit - cancelled - requested)
            page = await self._store.list_executions(wanted._replace(states=states), before, count)
            # Asked for in one breath: they share a transaction.
            done = await asyncio.gather(*(self._cancel(each.execution_id, each.state) for each in page))
            cancelled += done.count(WorkflowState.CANCELLED)
            requested += done.count(WorkflowState.RUNNING)
            if len(page) < count:
                return CancelledMany(cancelled, requested, False)
            before = page[-1].execution_id
        more = await self._store.list_executions(wanted._replace(states=states), before, 1) if states else ()
        return CancelledMany(cancelled, requested, bool(more))

    async def cancel(self, execution_id: str) -> WorkflowState:
        """Ask for an execution to be cancelled; returns its state: CANCELLED at once when it was PENDING.

        Raises `ExecutionNotFound`, `ExecutionConflict` when it has ended, `StoreUnavailable`.
        """
        self._check_accepting()
        record = await self._read(execution_id)
        if record.state in TERMINAL_WORKFLOW_STATES:
            raise ExecutionConflict(f"execution {execution_id} is {record.state} already")
        return await self._cancel(execution_id, record.state)

    async def _cancel(self, execution_id: str, state: WorkflowState) -> WorkflowState:
        """Cancel an execution that was seen in `state`; it may have gone on since, which the owner finds out."""
        now = self._clock.now()
        if state is WorkflowState.PENDING and await self._store.cancel_pending(execution_id, now):
            self._transport.publish((execution_id,), ended=(execution_id,))
            return WorkflowState.CANCELLED
        await self._store.add_cancel(execution_id, now)
        failpoint("engine.cancel.stored")
        self._transport.wake(execution_id)
        return WorkflowState.RUNNING

    async def status(self, execution_id: str) -> ExecutionStatus:
        """An execution and its nodes: the store's word, and RUNNING where some process runs a node now."""
        # Taken first: what is in memory is then never older than what is read.
        live = self._live(execution_id)
        loaded = await self._store.read_execution_state(execution_id)
        if loaded is None:
            raise ExecutionNotFound(execution_id)
        record = loaded.record
        graph = await self._graphs.get(record.definition_id)
        running = live is None and record.state is WorkflowState.RUNNING
        elsewhere = await self._running_elsewhere(execution_id) if running else ()
        return ExecutionStatus(
            record.execution_id,
            record.definition_id,
            record.state,
            record.created_at,
            record.started_at,
            record.completed_at,
            _node_states(graph, loaded, live, elsewhere),
            _error(record),
            record.retry_of,
        )

    async def results(
        self, execution_id: str, wait_seconds: float = 0.0, wanted: Callable[[], bool] = lambda: True
    ) -> ExecutionResults:
        """What an execution came to; with `wait_seconds`, waits that long for it to end, or for a shutdown.

        Who no longer wants to know is not waited for: `wanted` is asked every second.
        """
        if wait_seconds > 0:
            record = await self._wait_for_end(execution_id, wait_seconds, wanted)
        else:
            record = await self._read(execution_id)
        output_text = None
        if record.state is WorkflowState.COMPLETED:
            graph = await self._graphs.get(record.definition_id)
            exits = [graph.node_ids[node] for node in graph.exits]
            output_text = combine_exit_outputs(await self._store.read_outputs(execution_id, exits))
        return ExecutionResults(execution_id, record.state, output_text, record.completed_at, _error(record))

    async def _wait_for_end(
        self, execution_id: str, wait_seconds: float, wanted: Callable[[], bool]
    ) -> ExecutionRecord:
        """Subscribe first, then read, then wait: so no change is missed. Reads again every second at least."""
        deadline = self._clock.monotonic() + wait_seconds
        with self._transport.follow(execution_id) as follower:
            while True:
                record = await self._read(execution_id)
                left = deadline - self._clock.monotonic()
                if record.state in TERMINAL_WORKFLOW_STATES or left <= 0 or not self._accepting or not wanted():
                    return record
                await follower.ended(min(left, REREAD_SECONDS))

    def _new(self, input_text: bytes | None) -> NewExecution:
        """A new execution: created when its identifier says, RUNNING when it has inputs."""
        execution_id = self._clock.new_id()
        partition = partition_of(execution_id, self._store.partitions)
        return NewExecution(execution_id, partition, input_text, uuid7_milliseconds(execution_id))

    async def _check_input(self, graph: Graph, parameters: Any) -> bytes:
        if parameters is None:
            parameters = {}
        if not isinstance(parameters, dict):
            raise InvalidInput([Problem("input_params", "must be an object")])
        try:
            text = encode(parameters, self._max_input_bytes)
        except JsonTooLarge as error:
            raise PayloadTooLarge(f"input_params: {error}") from None
        except InvalidJson as error:
            raise InvalidInput([Problem("input_params", str(error))]) from None
        if graph.input_schema is not None:
            schema = graph.input_schema
            problems = await off_loop(len(text), lambda: validate_input(schema, parameters, "input_params"))
            if problems:
                raise InvalidInput(problems)
        return text

    async def _definition_id(self, execution_id: str) -> str:
        known = self._definition_of_execution.get(execution_id)
        return known if known is not None else (await self._read(execution_id)).definition_id

    async def _read(self, execution_id: str) -> ExecutionRecord:
        record = await self._store.read_execution(execution_id)
        if record is None:
            raise ExecutionNotFound(execution_id)
        return record

    def _check_accepting(self) -> None:
        if not self._accepting:
            raise NotAccepting("this process is shutting down; try again in a moment")


def _node_states(
    graph: Graph, loaded: LoadedExecution, live: Execution | None, elsewhere: Collection[tuple[int, int]]
) -> Mapping[str, NodeState]:
    """What the rows add up to. A node that is QUEUED by them and has left that state in memory is RUNNING: a worker has
    it, or has just ended it and nothing of that is committed yet. So is one whose attempt another process names."""
    record = loaded.record
    if record.state is WorkflowState.PENDING:
        return dict.fromkeys(graph.node_ids, NodeState.PENDING)
    if record.started_at is None:
        return dict.fromkeys(graph.node_ids, NodeState.CANCELLED)
    cancelled = next((c.sequence for c in loaded.commands if c.sequence is not None), None)
    execution = fold(record.execution_id, graph, b"{}", loaded.attempts, cancelled)
    states = list(execution.node_states)
    if not execution.terminal:
        for node, state in enumerate(states):
            if state is NodeState.QUEUED and (
                (live is not None and live.node_states[node] is not NodeState.QUEUED)
                or (node, execution.attempts[node]) in elsewhere
            ):
                states[node] = NodeState.RUNNING
    return dict(zip(graph.node_ids, states, strict=True))


def _error(record: ExecutionRecord) -> Mapping[str, Any] | None:
    return None if record.error is None else json.loads(record.error)
