"""The engine's door within the process: what the API, the command line and the benchmarks call.

Every write has reached the store before its call returns. What is asked for in one breath shares a
transaction.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from .clock import Clock
from .core.definition import ConfigCheck, validate_definition
from .core.graph import Graph
from .core.input_schema import validate_input
from .core.json_text import InvalidJson, JsonTooLarge, canonical, encode
from .core.limits import MAX_DEFINITION_BYTES, MAX_INPUT_BYTES
from .core.machine import Execution, combine_exit_outputs, fold
from .core.problem import Problem
from .core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from .errors import (
    ExecutionConflict,
    ExecutionNotFound,
    InvalidDefinition,
    InvalidInput,
    NotAccepting,
    PayloadTooLarge,
)
from .failpoints import failpoint
from .graphs import Graphs
from .ports import ExecutionRecord, LoadedExecution, NewDefinition, NewExecution, Store, Transport

EMBEDDED_PARTITION = 0
MAX_REMEMBERED = 50_000
REREAD_SECONDS = 1.0
LARGE_BYTES = 64 * 1024

Result = TypeVar("Result")


class Submitted(NamedTuple):
    """The answer to a submit."""

    definition_id: str
    execution_id: str


class ExecutionStatus(NamedTuple):
    """An execution and its nodes as they stand. Times in epoch milliseconds; `error` is the failed node's."""

    execution_id: str
    definition_id: str
    state: WorkflowState
    created_at: int
    started_at: int | None
    completed_at: int | None
    node_states: Mapping[str, NodeState]
    error: Mapping[str, Any] | None


class ExecutionResults(NamedTuple):
    """What an execution came to. `output_text` is JSON text; None until it is COMPLETED."""

    execution_id: str
    state: WorkflowState
    output_text: bytes | None
    completed_at: int | None
    error: Mapping[str, Any] | None


class _Recent:
    """The last few thousand facts that never change, such as which definition an execution is of."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, str] = OrderedDict()

    def get(self, key: str) -> str | None:
        return self._known.get(key)

    def put(self, key: str, value: str) -> None:
        self._known[key] = value
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


class Engine:
    """Submit, trigger, cancel, look. Safe to call concurrently from one event loop."""

    def __init__(
        self,
        *,
        store: Store,
        transport: Transport,
        graphs: Graphs,
        config_checks: Mapping[str, ConfigCheck],
        clock: Clock,
        live: Callable[[str], Execution | None],
    ) -> None:
        self._store = store
        self._transport = transport
        self._graphs = graphs
        self._config_checks = config_checks
        self._clock = clock
        self._live = live
        self._definition_of_digest = _Recent()
        self._definition_of_execution = _Recent()
        self._accepting = True

    def stop_accepting(self) -> None:
        """From now on writes raise `NotAccepting`; reads go on."""
        self._accepting = False

    async def submit(self, document: Any) -> Submitted:
        """Store a definition (unless its name has the very same one) and a PENDING execution of it.

        `document` is the decoded JSON of a `WorkflowDefinition`. Raises `InvalidDefinition` with every
        problem, `PayloadTooLarge`, `StoreUnavailable`.
        """
        self._check_accepting()
        digest, body = self._digest(document)
        definition_id = self._definition_of_digest.get(digest)
        definition: NewDefinition | str
        if definition_id is not None:
            definition = definition_id
        else:
            problems = await self._off_loop(body, lambda: validate_definition(document, self._config_checks))
            if problems:
                raise InvalidDefinition(problems)
            definition = NewDefinition(self._clock.new_id(), document["name"], digest, body)
        failpoint("engine.submit.validated")
        execution = NewExecution(self._clock.new_id(), EMBEDDED_PARTITION, None, self._clock.now())
        execution_id, stored_id = await self._store.create_execution(definition, execution)
        failpoint("engine.submit.stored")
        if definition_id is None:
            graph = await self._off_loop(body, lambda: self._graphs.compile(document))
            self._graphs.keep(stored_id, graph, len(body))
            self._definition_of_digest.put(digest, stored_id)
        self._definition_of_execution.put(execution_id, stored_id)
        return Submitted(stored_id, execution_id)

    async def trigger(self, execution_id: str, parameters: Any = None) -> str:
        """Start a PENDING execution, or a new one of the same definition when this one has ended.

        Returns the id of the execution that was started. Raises `ExecutionNotFound`,
        `ExecutionConflict` when it is running, `InvalidInput`, `PayloadTooLarge`, `StoreUnavailable`.
        """
        self._check_accepting()
        definition_id = await self._definition_id(execution_id)
        graph = await self._graphs.get(definition_id)
        input_text = await self._check_input(graph, {} if parameters is None else parameters)
        failpoint("engine.trigger.validated")
        now = self._clock.now()
        if await self._store.trigger(execution_id, input_text, now):
            failpoint("engine.trigger.stored")
            self._transport.wake(execution_id)
            return execution_id
        record = await self._read(execution_id)
        if record.state not in TERMINAL_WORKFLOW_STATES:
            raise ExecutionConflict(
                f"execution {execution_id} is {record.state}; it can be triggered when it has ended"
            )
        again = NewExecution(self._clock.new_id(), EMBEDDED_PARTITION, input_text, now)
        new_id, _ = await self._store.create_execution(definition_id, again)
        failpoint("engine.trigger.stored")
        self._definition_of_execution.put(new_id, definition_id)
        self._transport.wake(new_id)
        return new_id

    async def cancel(self, execution_id: str) -> WorkflowState:
        """Ask for an execution to be cancelled; returns its state: CANCELLED at once when it was PENDING.

        Raises `ExecutionNotFound`, `ExecutionConflict` when it has ended, `StoreUnavailable`.
        """
        self._check_accepting()
        record = await self._read(execution_id)
        now = self._clock.now()
        if record.state is WorkflowState.PENDING and await self._store.cancel_pending(execution_id, now):
            self._transport.publish((execution_id,), ended=(execution_id,))
            return WorkflowState.CANCELLED
        if record.state in TERMINAL_WORKFLOW_STATES:
            raise ExecutionConflict(f"execution {execution_id} is {record.state} already")
        await self._store.add_cancel(execution_id, now)
        failpoint("engine.cancel.stored")
        self._transport.wake(execution_id)
        return WorkflowState.RUNNING

    async def status(self, execution_id: str) -> ExecutionStatus:
        """An execution and its nodes: the store's word, and RUNNING where this process runs a node now."""
        # Taken first: what is in memory is then never older than what is read.
        live = self._live(execution_id)
        loaded = await self._store.read_execution_state(execution_id)
        if loaded is None:
            raise ExecutionNotFound(execution_id)
        record = loaded.record
        graph = await self._graphs.get(record.definition_id)
        return ExecutionStatus(
            record.execution_id,
            record.definition_id,
            record.state,
            record.created_at,
            record.started_at,
            record.completed_at,
            _node_states(graph, loaded, live),
            _error(record),
        )

    async def results(self, execution_id: str, wait_seconds: float = 0.0) -> ExecutionResults:
        """What an execution came to; with `wait_seconds`, waits that long for it to end, or for a shutdown."""
        record = await self._read(execution_id)
        if record.state not in TERMINAL_WORKFLOW_STATES and wait_seconds > 0:
            record = await self._wait_for_end(execution_id, wait_seconds)
        output_text = None
        if record.state is WorkflowState.COMPLETED:
            graph = await self._graphs.get(record.definition_id)
            exits = [graph.node_ids[node] for node in graph.exits]
            output_text = combine_exit_outputs(await self._store.read_outputs(execution_id, exits))
        return ExecutionResults(execution_id, record.state, output_text, record.completed_at, _error(record))

    async def _wait_for_end(self, execution_id: str, wait_seconds: float) -> ExecutionRecord:
        """Subscribe first, then read, then wait: so no change is missed. Reads again every second at least."""
        deadline = self._clock.monotonic() + wait_seconds
        with self._transport.follow(execution_id) as follower:
            while True:
                record = await self._read(execution_id)
                left = deadline - self._clock.monotonic()
                if record.state in TERMINAL_WORKFLOW_STATES or left <= 0 or not self._accepting:
                    return record
                await follower.ended(min(left, REREAD_SECONDS))

    @staticmethod
    async def _off_loop(text: bytes, work: Callable[[], Result]) -> Result:
        """Do what takes time in proportion to a text: for a large one in a thread, so that others go on."""
        if len(text) <= LARGE_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(None, work)

    def _digest(self, document: Any) -> tuple[str, bytes]:
        try:
            body = canonical(document)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidDefinition([Problem("$", f"is not JSON: {error}")]) from None
        if len(body) > MAX_DEFINITION_BYTES:
            raise PayloadTooLarge(f"the definition has {len(body)} bytes; at most {MAX_DEFINITION_BYTES} are allowed")
        return hashlib.sha256(body).hexdigest(), body

    async def _check_input(self, graph: Graph, parameters: Any) -> bytes:
        if not isinstance(parameters, dict):
            raise InvalidInput([Problem("input_params", "must be an object")])
        try:
            text = encode(parameters, MAX_INPUT_BYTES)
        except JsonTooLarge as error:
            raise PayloadTooLarge(f"input_params: {error}") from None
        except InvalidJson as error:
            raise InvalidInput([Problem("input_params", str(error))]) from None
        if graph.input_schema is not None:
            schema = graph.input_schema
            problems = await self._off_loop(text, lambda: validate_input(schema, parameters, "input_params"))
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


def _node_states(graph: Graph, loaded: LoadedExecution, live: Execution | None) -> Mapping[str, NodeState]:
    """What the rows add up to. A node that is QUEUED by them and has left that state in memory is RUNNING:
    a worker has it, or has just ended it and nothing of that is committed yet."""
    record = loaded.record
    if record.state is WorkflowState.PENDING:
        return dict.fromkeys(graph.node_ids, NodeState.PENDING)
    if record.started_at is None:
        return dict.fromkeys(graph.node_ids, NodeState.CANCELLED)
    cancelled = next((c.sequence for c in loaded.commands if c.sequence is not None), None)
    execution = fold(record.execution_id, graph, b"{}", loaded.attempts, cancelled)
    states = list(execution.node_states)
    if live is not None and not execution.terminal:
        for node, state in enumerate(states):
            if state is NodeState.QUEUED and live.node_states[node] is not NodeState.QUEUED:
                states[node] = NodeState.RUNNING
    return dict(zip(graph.node_ids, states, strict=True))


def _error(record: ExecutionRecord) -> Mapping[str, Any] | None:
    return None if record.error is None else json.loads(record.error)
