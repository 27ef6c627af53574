"""The state machine of an execution: events go in, rows and effects come out.

Deciding and recording are apart. `apply_*` decides what an event means and makes the rows that say
so; `record` is the only function that changes an execution, and it does so from a row. Folding the
stored rows with the same `record` therefore gives the very state that was live.

Invariants: an outcome counts only for the attempt that is current and in flight; a node becomes
QUEUED exactly once an attempt, by the row that filled its last dependency or by the time of its
retry; sequence numbers are dense; a terminal execution never changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from .graph import Graph
from .limits import MAX_ERROR_MESSAGE_CHARACTERS
from .retry import delay_seconds, may_retry
from .state import (
    NODE_TRANSITIONS,
    TERMINAL_WORKFLOW_STATES,
    NodeState,
    WorkflowState,
    check_node_transition,
    check_workflow_transition,
)

_PENDING, _QUEUED, _RUNNING = NodeState.PENDING, NodeState.QUEUED, NodeState.RUNNING
_COMPLETED, _FAILED, _CANCELLED = NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED


ISOLATED_FROM = 2
"""A crash takes bystanders with it: two in a row with the same attempt in hand are no chance any more."""


class AttemptError(NamedTuple):
    """Why an attempt failed. `retry_after_seconds` is what the far side asked for."""

    type: str
    message: str
    retryable: bool
    retry_after_seconds: float | None = None


class Outcome(NamedTuple):
    """The event "an attempt ended": `output` is JSON text, present exactly when `error` is None.

    Times are milliseconds since the epoch, `jitter` a draw from [0, 1). `entry_id`: where it waits in the
    partition's inbox, when it came from another replica.
    """

    execution_id: str
    node: int
    attempt: int
    output: bytes | None
    error: AttemptError | None
    started_at: int
    finished_at: int
    jitter: float = 0.0
    entry_id: str | None = None


class AttemptRow(NamedTuple):
    """One finished attempt, as it is stored: inserted once, never changed.

    `sequence` is dense within the execution, together with the consumed commands. `retry_at` is set
    when the attempt failed and the node will be tried again then. Times in epoch milliseconds.
    """

    execution_id: str
    sequence: int
    node_id: str
    attempt: int
    state: NodeState
    output: bytes | None
    error: str | None
    started_at: int | None
    finished_at: int
    retry_at: int | None


class ConsumedCommand(NamedTuple):
    """A cancel that an execution has consumed. `sequence` is None when it changed nothing."""

    command_id: int
    sequence: int | None
    execution_id: str


class Suspicion(NamedTuple):
    """How many deliveries of an attempt were lost with whoever ran it. Stored before the next one is made.

    From `ISOLATED_FROM` on the attempt runs in a process of its own, so that it can take nobody with it.
    """

    execution_id: str
    node_id: str
    attempt: int
    lost_deliveries: int


class Execution:
    """The live state of one execution: lists by node index. Changed by `record` and friends only."""

    __slots__ = (
        "active",
        "attempts",
        "definition_id",
        "detached",
        "error",
        "execution_id",
        "graph",
        "input_text",
        "node_states",
        "outputs",
        "parked",
        "partition",
        "permitted_until",
        "remaining",
        "retry_at",
        "sequence",
        "state",
        "suspicions",
        "waiting",
    )

    def __init__(self, execution_id: str, graph: Graph, input_text: bytes) -> None:
        self.execution_id = execution_id
        self.graph = graph
        self.input_text = input_text
        self.definition_id = ""
        self.partition = 0
        self.state = WorkflowState.RUNNING
        self.node_states = [_PENDING] * graph.size
        self.attempts = [0] * graph.size
        self.waiting = [len(needed) for needed in graph.dependencies]
        self.outputs: list[bytes | None] = [None] * graph.size
        self.remaining = graph.size
        self.active = 0
        self.sequence = 0
        self.retry_at: dict[int, tuple[int, int]] = {}
        """By node that waits for its next attempt: when (epoch milliseconds), and the whole wait."""
        self.suspicions: dict[tuple[int, int], int] = {}
        """By (node, attempt): how many deliveries were lost."""
        self.error: str | None = None
        self.permitted_until: float | None = None
        """Of an execution that another replica owns: until when its attempts may start here, on the monotonic clock."""
        self.parked = False
        self.detached = False
        """Dropped from memory: whatever is still queued for this object must not start."""
        for node in graph.roots:
            _queue_attempt(self, node)

    @property
    def terminal(self) -> bool:
        """Whether the execution has ended."""
        return self.state in TERMINAL_WORKFLOW_STATES

    def __repr__(self) -> str:
        nodes = ", ".join(
            f"{node_id}={state}#{attempt}"
            for node_id, state, attempt in zip(self.graph.node_ids[:20], self.node_states, self.attempts, strict=False)
        )
        return f"<Execution {self.execution_id} {self.state} at {self.sequence}: {nodes}>"


class Effects:
    """What a batch of events asks for: rows to commit first, then things to do."""

    __slots__ = ("commands", "dispatch", "finished", "rows", "stale", "suspicions", "timers", "touched")

    def __init__(self) -> None:
        self.rows: list[AttemptRow] = []
        self.commands: list[ConsumedCommand] = []
        self.suspicions: list[Suspicion] = []
        self.dispatch: list[tuple[Execution, int]] = []
        self.timers: list[tuple[Execution, int, int]] = []
        """(execution, node, delay in milliseconds)"""
        self.finished: list[Execution] = []
        self.touched: dict[str, Execution] = {}
        self.stale = 0
        """Outcomes that counted for nothing: late, doubled, or of a finished execution."""


def is_current(execution: Execution, node: int, attempt: int) -> bool:
    """Whether `attempt` is the one in flight: anything else is late or doubled and changes nothing."""
    return (
        execution.state is WorkflowState.RUNNING
        and 0 <= node < len(execution.attempts)
        and execution.attempts[node] == attempt
        and execution.node_states[node] in (_QUEUED, _RUNNING)
    )


def start(execution: Execution, node: int, attempt: int) -> bool:
    """The permission to start an attempt; marks the node RUNNING when given."""
    if (
        execution.detached
        or execution.state is not WorkflowState.RUNNING
        or execution.node_states[node] is not _QUEUED
        or execution.attempts[node] != attempt
    ):
        return False
    execution.node_states[node] = _RUNNING
    return True


def hand_back(execution: Execution, node: int, attempt: int) -> bool:
    """A worker gives an attempt back unfinished: it is queued again, with the same number."""
    if not is_current(execution, node, attempt) or execution.node_states[node] is not _RUNNING:
        return False
    execution.node_states[node] = _QUEUED
    return True


def suspect(execution: Execution, node: int, attempt: int, effects: Effects) -> None:
    """A delivery was lost with whoever had it, by whatever cause: that is written before the next one is made."""
    hand_back(execution, node, attempt)
    lost = execution.suspicions.get((node, attempt), 0) + 1
    execution.suspicions[node, attempt] = lost
    effects.suspicions.append(Suspicion(execution.execution_id, execution.graph.node_ids[node], attempt, lost))


def is_isolated(execution: Execution, node: int, attempt: int) -> bool:
    """Whether an attempt has lost so many deliveries that it runs in a process of its own."""
    return bool(execution.suspicions) and execution.suspicions.get((node, attempt), 0) >= ISOLATED_FROM


def apply_outcome(execution: Execution, outcome: Outcome, effects: Effects) -> None:
    """An attempt ended: record it, queue what it made ready, retry or finish."""
    node = outcome.node
    if not is_current(execution, node, outcome.attempt):
        effects.stale += 1
        return
    error = outcome.error
    retry_at: int | None = None
    error_text: str | None = None
    if error is not None:
        error_text = _error_text(execution.graph.node_ids[node], outcome.attempt, error)
        policy = execution.graph.retry_policies[node]
        if error.retryable and may_retry(policy, outcome.attempt):
            delay = delay_seconds(policy, outcome.attempt, outcome.jitter, error.retry_after_seconds)
            retry_at = outcome.finished_at + round(delay * 1000)
            effects.timers.append((execution, node, retry_at - outcome.finished_at))
    row = AttemptRow(
        execution.execution_id,
        execution.sequence + 1,
        execution.graph.node_ids[node],
        outcome.attempt,
        _COMPLETED if error is None else _FAILED,
        outcome.output,
        error_text,
        outcome.started_at,
        outcome.finished_at,
        retry_at,
    )
    running = _running_nodes(execution, node) if error is not None and retry_at is None else ()
    for ready in record(execution, row):
        effects.dispatch.append((execution, ready))
    effects.rows.append(row)
    effects.touched[execution.execution_id] = execution
    _record_cancelled(execution, running, outcome.finished_at, effects)
    if execution.state is not WorkflowState.RUNNING:
        effects.finished.append(execution)


def apply_cancel(execution: Execution, command_id: int, now: int, effects: Effects) -> None:
    """A cancel was requested. What runs or waits is CANCELLED; a finished execution stays as it is."""
    if execution.terminal:
        effects.commands.append(ConsumedCommand(command_id, None, execution.execution_id))
        return
    running = _running_nodes(execution, None)
    record_cancel(execution, execution.sequence + 1)
    effects.commands.append(ConsumedCommand(command_id, execution.sequence, execution.execution_id))
    effects.touched[execution.execution_id] = execution
    _record_cancelled(execution, running, now, effects)
    effects.finished.append(execution)


def apply_retry_due(execution: Execution, node: int, effects: Effects) -> None:
    """The time of a retry has come. Nothing new is decided: the failed attempt's row already said so."""
    if execution.state is not WorkflowState.RUNNING or node not in execution.retry_at:
        return
    del execution.retry_at[node]
    _queue_attempt(execution, node)
    effects.dispatch.append((execution, node))
    if execution.parked:
        effects.touched[execution.execution_id] = execution


def record(execution: Execution, row: AttemptRow) -> Sequence[int]:
    """Change the execution as its row says; returns the nodes that became QUEUED by it."""
    node = execution.graph.index_of[row.node_id]
    execution.sequence = row.sequence
    if row.state is _CANCELLED:
        execution.attempts[node] = row.attempt  # it may be a retry, of which no other row tells that it was due
        return ()
    if execution.node_states[node] is _PENDING and node in execution.retry_at:
        del execution.retry_at[node]
        _queue_attempt(execution, node)
    if execution.node_states[node] is _QUEUED:
        _move(execution, node, _RUNNING)
    if row.state is _COMPLETED:
        return _record_completed(execution, node, row)
    if row.retry_at is not None:
        _move(execution, node, _PENDING)
        execution.active -= 1
        execution.retry_at[node] = (row.retry_at, row.retry_at - row.finished_at)
        return ()
    _move(execution, node, _FAILED)
    execution.active -= 1
    execution.error = row.error
    _finish(execution, WorkflowState.FAILED)
    return ()


def record_cancel(execution: Execution, sequence: int) -> None:
    """Change the execution as a consumed cancel says."""
    execution.sequence = sequence
    _finish(execution, WorkflowState.CANCELLED)


def fold(
    execution_id: str,
    graph: Graph,
    input_text: bytes,
    rows: Iterable[AttemptRow],
    cancelled_at_sequence: int | None = None,
) -> Execution:
    """The state that the stored rows, in the order of their sequence, add up to."""
    execution = Execution(execution_id, graph, input_text)
    for row in rows:
        if cancelled_at_sequence is not None and row.sequence > cancelled_at_sequence and not execution.terminal:
            record_cancel(execution, cancelled_at_sequence)
        record(execution, row)
    if cancelled_at_sequence is not None and not execution.terminal:
        record_cancel(execution, cancelled_at_sequence)
    return execution


def adopt_suspicions(execution: Execution, suspicions: Iterable[Suspicion]) -> None:
    """What the store knows of lost deliveries. Those of attempts that have ended since do no harm."""
    for node_id, attempt, lost in ((each.node_id, each.attempt, each.lost_deliveries) for each in suspicions):
        execution.suspicions[execution.graph.index_of[node_id], attempt] = lost


def permit(
    execution_id: str, graph: Graph, input_text: bytes, rows: Iterable[AttemptRow], wanted: Iterable[tuple[int, int]]
) -> tuple[Execution, Sequence[tuple[int, int]]]:
    """For a worker that does not own the execution: what may start of the wanted (node, attempt), with its inputs.

    `rows` are those of the wanted nodes and of the nodes whose outputs they use. An attempt may start unless it, or a
    later one, has an outcome. The caller has seen that the execution runs.
    """
    execution = Execution(execution_id, graph, input_text)
    execution.node_states = [_PENDING] * graph.size
    ended: dict[int, int] = {}
    for row in rows:
        node = graph.index_of[row.node_id]
        ended[node] = max(row.attempt, ended.get(node, 0))
        if row.state is _COMPLETED:
            execution.node_states[node] = _COMPLETED
            execution.outputs[node] = row.output
    permitted = []
    for node, attempt in wanted:
        if 0 <= node < graph.size and execution.node_states[node] is _PENDING and ended.get(node, 0) < attempt:
            execution.node_states[node] = _QUEUED
            execution.attempts[node] = attempt
            permitted.append((node, attempt))
    return execution, permitted


def resume(execution: Execution, running: Iterable[tuple[int, int]], now: int, effects: Effects) -> None:
    """Set a folded execution going: dispatch what is QUEUED, and set timers for what waits for a retry.

    `running` are the (node, attempt) that a worker of this process still has in hand: those are not
    dispatched again.
    """
    for node, attempt in running:
        if node in execution.retry_at and execution.attempts[node] + 1 == attempt:
            # Its retry was due and it started; only the start is not in any row.
            del execution.retry_at[node]
            _queue_attempt(execution, node)
        start(execution, node, attempt)
    for node, state in enumerate(execution.node_states):
        if state is _QUEUED:
            effects.dispatch.append((execution, node))
    for node, (retry_at, whole_wait) in execution.retry_at.items():
        # Never longer than decided: a clock that was set back must not turn seconds into hours.
        effects.timers.append((execution, node, max(0, min(retry_at - now, whole_wait))))


def parked_until(execution: Execution) -> int | None:
    """When an execution of which nothing is in flight wants to be looked at again, else None."""
    if execution.active or execution.state is not WorkflowState.RUNNING or not execution.retry_at:
        return None
    return min(due_at for due_at, _ in execution.retry_at.values())


def combine_exit_outputs(outputs: Sequence[tuple[str, bytes]]) -> bytes:
    """One exit: its output as it is. Several: an object of outputs by node id."""
    if len(outputs) == 1:
        return outputs[0][1]
    return b"{" + b",".join(json.dumps(node_id).encode() + b":" + text for node_id, text in outputs) + b"}"


def _record_completed(execution: Execution, node: int, row: AttemptRow) -> Sequence[int]:
    _move(execution, node, _COMPLETED)
    execution.active -= 1
    execution.remaining -= 1
    execution.outputs[node] = row.output
    ready = []
    waiting = execution.waiting
    for dependent in execution.graph.dependents[node]:
        waiting[dependent] -= 1
        if waiting[dependent] == 0:
            _queue_attempt(execution, dependent)
            ready.append(dependent)
    if execution.remaining == 0:
        _finish(execution, WorkflowState.COMPLETED)
    return ready


def _queue_attempt(execution: Execution, node: int) -> None:
    _move(execution, node, _QUEUED)
    execution.attempts[node] += 1
    execution.active += 1


def _finish(execution: Execution, state: WorkflowState) -> None:
    check_workflow_transition(execution.state, state)
    execution.state = state
    execution.retry_at.clear()
    if state is WorkflowState.COMPLETED:
        return
    for node, before in enumerate(execution.node_states):
        if NODE_TRANSITIONS[before]:
            _move(execution, node, _CANCELLED)
    execution.active = 0


def _running_nodes(execution: Execution, apart_from: int | None) -> tuple[int, ...]:
    return tuple(node for node, state in enumerate(execution.node_states) if state is _RUNNING and node != apart_from)


def _record_cancelled(execution: Execution, running: Iterable[int], now: int, effects: Effects) -> None:
    """A row for each attempt that was running when the execution ended, so that its history shows it."""
    for node in running:
        row = AttemptRow(
            execution.execution_id,
            execution.sequence + 1,
            execution.graph.node_ids[node],
            execution.attempts[node],
            _CANCELLED,
            None,
            None,
            None,
            now,
            None,
        )
        record(execution, row)
        effects.rows.append(row)


def _move(execution: Execution, node: int, after: NodeState) -> None:
    check_node_transition(execution.node_states[node], after)
    execution.node_states[node] = after


def _error_text(node_id: str, attempt: int, error: AttemptError) -> str:
    shown: dict[str, Any] = {
        "node_id": node_id,
        "type": error.type,
        "message": error.message[:MAX_ERROR_MESSAGE_CHARACTERS],
        "attempt": attempt,
    }
    return json.dumps(shown, ensure_ascii=False)


def error_mark(error_type: str) -> str:
    """What the text of an error of this type has in it, and no other: within its values quotes are escaped."""
    return f', "type": {json.dumps(error_type, ensure_ascii=False)}, "message": '
