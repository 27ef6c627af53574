"""The engine's door within the process: what the API, the command line and the benchmarks call.

Every write has reached the store before its call returns. What is asked for in one breath shares a
transaction.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from .clock import Clock, uuid7_milliseconds
from .core.deliveries import DeliveryKey, Heartbeat
from .core.function import function_definition
from .core.graph import Graph
from .core.input_schema import validate_input
from .core.json_text import InvalidJson, JsonTooLarge, encode
from .core.limits import MAX_PROBLEMS
from .core.machine import Execution, combine_exit_outputs, fold
from .core.problem import Problem, join_path
from .core.shares import partition_of
from .core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from .dead_letters import DeadLetters
from .definitions import Defined, Definitions, Recent, off_loop
from .errors import (
    ExecutionConflict,
    ExecutionNotFound,
    InvalidInput,
    NodeNotFound,
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
    NewDefinition,
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
    unserved: Mapping[str, str]
    """By node that waits for a handler that no live worker has, as far as this process knows: the handler."""


class NodeSeen(NamedTuple):
    """A node of an execution as it stands. `cancelled`: whether a cancel waits to be taken in."""

    record: ExecutionRecord
    execution: Execution
    node: int
    state: NodeState
    cancelled: bool


class ExecutionHistory(NamedTuple):
    """What is stored of an execution, and what it is an execution of."""

    loaded: LoadedExecution
    graph: Graph
    name: str
    version: int


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
        unserved: Callable[[], Collection[str]],
        others: Callable[[], Awaitable[Sequence[Heartbeat]]],
        max_input_bytes: int,
    ) -> None:
        """`live`: an execution that this process owns. `unserved`: the handlers that no live worker has, of nodes of
        such executions that wait. `others`: what the live replicas say of themselves; nothing when that is not known.
        """
        self.definitions = definitions
        self._store = store
        self._transport = transport
        self._graphs = graphs
        self._clock = clock
        self._live = live
        self._unserved = unserved
        self._others = others
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
        return await self._start(found.definition_id, input_text, claim)

    async def call(
        self,
        handler: str,
        config: Any,
        *,
        options: Mapping[str, Any] = MappingProxyType({}),
        claim: IdempotencyClaim | None = None,
    ) -> Submitted:
        """Run one handler durably: start an execution of a node of it, whose configuration is taken literally.

        `options`: the node's `timeout_seconds` and `retry_config`, as far as they are not the usual ones. Raises
        `FunctionNotFound`, `InvalidInput`, `PayloadTooLarge`, `IdempotencyConflict`, `StoreUnavailable`.
        """
        self._check_accepting()
        check = await self.definitions.handlers.check_of(handler)
        input_text = self._encode(config, "$")
        faults = await off_loop(len(input_text), lambda: check(config))
        if faults:
            problems = [Problem(join_path("", path) or "$", message) for path, message in faults[:MAX_PROBLEMS]]
            raise InvalidInput(problems)
        definition = self.definitions.own(function_definition(handler, options))
        started = await self._start(definition.reference, input_text, claim)
        await self.definitions.keep(definition, started.definition_id)
        return started

    async def _start(
        self, definition: NewDefinition | str, input_text: bytes, claim: IdempotencyClaim | None
    ) -> Submitted:
        failpoint("engine.start.validated")
        execution_id, definition_id = await self._store.create_execution(definition, self._new(input_text), claim)
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
        live, loaded, others, execution = await self._see(execution_id)
        record, graph = loaded.record, execution.graph
        states = _node_states(record, execution)
        unserved = self._unserved() if live is not None else _not_served(graph, others)
        return ExecutionStatus(
            record.execution_id,
            record.definition_id,
            record.state,
            record.created_at,
            record.started_at,
            record.completed_at,
            states,
            _error(record),
            record.retry_of,
            {
                node_id: handler
                for node_id, handler in zip(graph.node_ids, graph.handlers, strict=True)
                if handler in unserved and states[node_id] is NodeState.QUEUED
            }
            if unserved
            else {},
        )

    async def node(self, execution_id: str, node_id: str) -> NodeSeen:
        """A node of an execution. Raises `ExecutionNotFound`, `NodeNotFound`."""
        _, loaded, _, execution = await self._see(execution_id)
        node = execution.graph.index_of.get(node_id)
        if node is None:
            raise NodeNotFound(node_id, execution.graph.node_ids)
        state = _node_states(loaded.record, execution)[node_id]
        cancelled = any(not command.consumed for command in loaded.commands)
        return NodeSeen(loaded.record, execution, node, state, cancelled)

    async def history(self, execution_id: str) -> ExecutionHistory:
        """What is stored of an execution, without its inputs and outputs. Raises `ExecutionNotFound`."""
        loaded = await self._store.read_execution_state(execution_id)
        if loaded is None:
            raise ExecutionNotFound(execution_id)
        definition = await self._store.read_definition(loaded.record.definition_id)
        if definition is None:
            raise LookupError(f"there is no definition {loaded.record.definition_id}")
        graph = await self._graphs.get(definition.definition_id)
        return ExecutionHistory(loaded, graph, definition.name, definition.version)

    async def _see(self, execution_id: str) -> tuple[Execution | None, LoadedExecution, Sequence[Heartbeat], Execution]:
        """An execution as it is in memory, as it is stored, what others say, and what all that adds up to."""
        # Taken first: what is in memory is then never older than what is read.
        live = self._live(execution_id)
        loaded = await self._store.read_execution_state(execution_id)
        if loaded is None:
            raise ExecutionNotFound(execution_id)
        record = loaded.record
        graph = await self._graphs.get(record.definition_id)
        others = await self._others() if live is None and record.state is WorkflowState.RUNNING else ()
        return live, loaded, others, _as_it_stands(graph, loaded, live, others)

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

    def handler_of(self, key: DeliveryKey) -> str | None:
        """The handler of an attempt, if it can be told without asking the store."""
        live = self._live(key.execution_id)
        graph = live.graph if live is not None else None
        if graph is None:
            definition_id = self._definition_of_execution.get(key.execution_id)
            graph = None if definition_id is None else self._graphs.kept(definition_id)
        return graph.handlers[key.node] if graph is not None and 0 <= key.node < graph.size else None

    def _new(self, input_text: bytes | None) -> NewExecution:
        """A new execution: created when its identifier says, RUNNING when it has inputs."""
        execution_id = self._clock.new_id()
        partition = partition_of(execution_id, self._store.partitions)
        return NewExecution(execution_id, partition, input_text, uuid7_milliseconds(execution_id))

    async def _check_input(self, graph: Graph, parameters: Any) -> bytes:
        if parameters is None:
            parameters = {}
        text = self._encode(parameters, "input_params")
        if graph.input_schema is not None:
            schema = graph.input_schema
            problems = await off_loop(len(text), lambda: validate_input(schema, parameters, "input_params"))
            if problems:
                raise InvalidInput(problems)
        return text

    def _encode(self, parameters: Any, place: str) -> bytes:
        """An execution's input as it is stored. `place` is what it is called in messages."""
        if not isinstance(parameters, dict):
            raise InvalidInput([Problem(place, "must be an object")])
        try:
            return encode(parameters, self._max_input_bytes)
        except JsonTooLarge as error:
            raise PayloadTooLarge(f"{place}: {error}") from None
        except InvalidJson as error:
            raise InvalidInput([Problem(place, str(error))]) from None

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


def _as_it_stands(
    graph: Graph, loaded: LoadedExecution, live: Execution | None, others: Sequence[Heartbeat]
) -> Execution:
    """What the rows add up to. A node that waits by them and has gone on in memory is RUNNING: a worker has it, or has
    just ended it and nothing of that is committed yet. So is one whose attempt another process names."""
    record = loaded.record
    cancelled = next((c.sequence for c in loaded.commands if c.sequence is not None), None)
    execution = fold(record.execution_id, graph, b"{}", loaded.attempts, cancelled)
    execution.partition = record.partition
    if execution.terminal or record.started_at is None:
        return execution
    elsewhere = {(k.node, k.attempt) for each in others for k in each.attempts if k.execution_id == record.execution_id}
    for node in range(graph.size):
        in_memory = None if live is None else live.node_states[node]
        if node in execution.retry_at and (
            in_memory not in (None, NodeState.PENDING) or (node, execution.attempts[node] + 1) in elsewhere
        ):
            # No row tells that the time of a retry has come.
            del execution.retry_at[node]
            execution.attempts[node] += 1
            execution.node_states[node] = NodeState.QUEUED
        if execution.node_states[node] is NodeState.QUEUED and (
            in_memory not in (None, NodeState.QUEUED) or (node, execution.attempts[node]) in elsewhere
        ):
            execution.node_states[node] = NodeState.RUNNING
    return execution


def _node_states(record: ExecutionRecord, execution: Execution) -> Mapping[str, NodeState]:
    if record.started_at is None:
        state = NodeState.PENDING if record.state is WorkflowState.PENDING else NodeState.CANCELLED
        return dict.fromkeys(execution.graph.node_ids, state)
    return dict(zip(execution.graph.node_ids, execution.node_states, strict=True))


def _not_served(graph: Graph, others: Sequence[Heartbeat]) -> Collection[str]:
    """The handlers of a definition that none of these live replicas has; none when there is nothing to go by."""
    return set(graph.handlers).difference(*(each.handlers for each in others)) if others else ()


def _error(record: ExecutionRecord) -> Mapping[str, Any] | None:
    return None if record.error is None else json.loads(record.error)
