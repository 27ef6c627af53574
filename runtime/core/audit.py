"""What must hold of a stored execution, judged from its rows alone: the rules of the audit.

Every rule looks at one execution as of one moment, so what is in motion breaks none. What only a moment's delay
explains (a timer that is due, a cancel that waits) is judged by `overdue` and `unsettled`, which are asked apart.
The meaning of the rows is the machine's: the state that they add up to comes from its `fold`.

The invariants, as the documentation, the simulation and the chaos tests name them: I1 what was accepted ends;
I2 nothing acknowledged is lost; I3 one execution for an idempotency key; I5 one outcome an attempt; I6 attempts are
numbered without gaps, and not too many; I7 a node starts only when everything it waits for is committed; I13 an
execution's row is the fold of its rows, whose sequence is dense; I14 a terminal state is final; I15 a retry waits as
long as was decided, and no longer; I17 lost deliveries are those of attempts that there were; I19 a cancel counts
once; I22 what runs has an owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from .graph import Graph
from .machine import AttemptRow, Execution, Suspicion, fold, parked_until
from .shares import PartitionRecord, partition_of
from .state import TERMINAL_WORKFLOW_STATES, IllegalTransition, NodeState, WorkflowState
from .stored import History, StoredExecution

CLOCK_ALLOWANCE_MILLISECONDS = 1_000
"""How far apart the clocks of two processes may be before one of them seems to have started a retry too early."""
OVERDUE_MILLISECONDS = 60_000
"""How long something may be due before it counts as forgotten: ten times what an owner takes that has to catch up."""

_COMPLETED, _FAILED, _CANCELLED = NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED


class Finding(NamedTuple):
    """A broken invariant, and where. `message` says it with its ids."""

    invariant: str
    execution_id: str
    node_id: str | None
    attempt: int | None
    message: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.message}"


def judge(history: History, graph: Graph, *, clocks_agree: bool = True) -> list[Finding]:
    """Every invariant that an execution breaks; empty when it is sound.

    `clocks_agree`: whether the wall clocks of all processes were about the same, and never set back: only then can
    rows tell that a retry started too early.
    """
    unknown = [row for row in history.attempts if row.node_id not in graph.index_of]
    if unknown:
        return [_of(row, "I13", f"{row.node_id} of {row.execution_id} is no node of its definition") for row in unknown]
    findings = [*_judge_row(history), *_judge_sequence(history), *_judge_cancels(history)]
    by_node: dict[str, list[AttemptRow]] = {}
    for row in history.attempts:
        by_node.setdefault(row.node_id, []).append(row)
        findings += _judge_attempt(row)
    for node_id, rows in by_node.items():
        findings += _judge_numbers(rows, graph.retry_policies[graph.index_of[node_id]].max_retries + 1)
        findings += _judge_succession(rows, clocks_agree=clocks_agree)
    completed_at = {row.node_id: row.sequence for row in history.attempts if row.state is _COMPLETED}
    findings += _judge_order(history, graph, completed_at)
    findings += _judge_end(history, graph)
    findings += _judge_suspicions(history, graph, by_node, completed_at)
    return [*findings, *_judge_fold(history, graph)]


def judge_place(record: StoredExecution, partitions: int) -> Iterator[Finding]:
    """Whether an execution is in the partition where its owner looks for it."""
    meant = partition_of(record.execution_id, partitions)
    if record.partition != meant:
        where = f"{record.execution_id} is in partition {record.partition}, and belongs to {meant}"
        yield _of_execution(record, "I22", where)


def judge_retry(retry: History, letter: History | None, *, is_kept: bool) -> Iterator[Finding]:
    """Whether an execution that carries a dead letter on has its inputs and exactly what it has completed.

    Both with inputs and outputs. `is_kept`: whether the letter cannot have been deleted.
    """
    record = retry.record
    if letter is None:
        if is_kept:
            yield _of_execution(record, "I2", f"{record.execution_id} carries on {record.retry_of}, which is not there")
        return
    origin = letter.record
    pair = f"{record.execution_id}, which carries on {origin.execution_id}"
    if origin.state is not WorkflowState.FAILED or origin.resolution != "requeued":
        said = origin.resolution or "not resolved"
        yield _of_execution(record, "I14", f"{pair}: that one is {origin.state} and {said}")
    if (record.definition_id, record.input_text) != (origin.definition_id, origin.input_text):
        yield _of_execution(record, "I13", f"{pair}, has another definition or other inputs")
    completed = [row for row in letter.attempts if row.state is _COMPLETED]
    expected = [
        row._replace(execution_id=record.execution_id, sequence=sequence, attempt=1)
        for sequence, row in enumerate(completed, 1)
    ]
    if list(retry.attempts[: len(expected)]) != expected:
        yield _of_execution(record, "I13", f"{pair}, does not begin with what that one has completed")


def judge_resolution(letter: StoredExecution, retry_id: str | None, *, is_kept: bool) -> Iterator[Finding]:
    """Whether what a dead letter was requeued as is there. `is_kept`: whether it cannot have been deleted."""
    requeued = letter.resolution == "requeued"
    if requeued and retry_id is None and is_kept:
        yield _of_execution(letter, "I2", f"{letter.execution_id} was requeued, and nothing carries it on")
    if not requeued and retry_id is not None:
        said = letter.resolution or "not resolved"
        yield _of_execution(letter, "I14", f"{letter.execution_id} is {said}, and {retry_id} carries it on")


def judge_claim(
    key: str, execution_id: str, definition_id: str, found: StoredExecution | None, *, is_kept: bool
) -> Iterator[Finding]:
    """Whether what was answered to a request under an idempotency key is there.

    `definition_id`: empty where the answer did not say. `is_kept`: whether the execution cannot have been deleted.
    """
    if found is None and is_kept:
        message = f"{execution_id} was the answer to the idempotency key {key!r}, and is not there"
        yield Finding("I2", execution_id, None, None, message)
    if found is not None and definition_id not in ("", found.definition_id):
        message = f"{execution_id} is of another definition than what was answered to the idempotency key {key!r}"
        yield Finding("I3", execution_id, None, None, message)


def overdue(history: History, owners: Mapping[int, PartitionRecord], now: int) -> Iterator[Finding]:
    """What should have happened by now although the partition has an owner, or should have one.

    `owners` by partition. A partition that was handed over says not since when nobody has it, and is not judged.
    """
    record = history.record
    owner = owners.get(record.partition)
    if owner is None:
        return
    if owner.is_owned:
        for command in history.commands:
            if not command.consumed and command.created_at + OVERDUE_MILLISECONDS < now:
                yield _of_execution(record, "I19", f"the cancel {command.command_id} of {record.execution_id} waits")
        due_at = record.parked_until
        if record.state is WorkflowState.RUNNING and due_at is not None and due_at + OVERDUE_MILLISECONDS < now:
            yield _of_execution(record, "I15", f"{record.execution_id} was due at {due_at} and is still parked")
        return
    expired = owner.expires_in_seconds * 1000 < -OVERDUE_MILLISECONDS
    if record.state is WorkflowState.RUNNING and expired and any(each.is_owned for each in owners.values()):
        message = f"{record.execution_id} is in partition {record.partition}, which nobody takes from {owner.owner}"
        yield _of_execution(record, "I22", message)


def unsettled(history: History) -> Iterator[Finding]:
    """What is not at its end, for a system of which everything is meant to have ended."""
    record = history.record
    if record.state is WorkflowState.RUNNING:
        yield _of_execution(record, "I1", f"{record.execution_id} is {record.state}")
    for command in history.commands:
        if not command.consumed:
            message = f"the cancel {command.command_id} of {record.execution_id} was never consumed"
            yield _of_execution(record, "I19", message)


def _judge_row(history: History) -> Iterator[Finding]:
    """The row by itself: what goes with its state, and what does not."""
    record = history.record
    state = record.state
    pending = state is WorkflowState.PENDING
    started = record.started_at is not None
    if started is not (record.input_text is not None):
        yield _of_execution(record, "I13", f"{record.execution_id} has a start without inputs, or the reverse")
    if pending is started and state is not WorkflowState.CANCELLED:
        has = "has started" if started else "has not started"
        yield _of_execution(record, "I13", f"{record.execution_id} is {state} and {has}")
    if (state in TERMINAL_WORKFLOW_STATES) is not (record.completed_at is not None):
        has = "has a time" if record.completed_at is not None else "has no time"
        yield _of_execution(record, "I13", f"{record.execution_id} is {state} and {has} of its end")
    if record.resolution is not None and state is not WorkflowState.FAILED:
        yield _of_execution(record, "I14", f"{record.execution_id} is {state} and was {record.resolution}")
    if not started:
        for row in history.attempts:
            yield _of(row, "I13", f"{_named(row)} has an outcome, and the execution was never started")


def _judge_sequence(history: History) -> Iterator[Finding]:
    record = history.record
    effective = [command.sequence for command in history.commands if command.sequence is not None]
    sequences = sorted([row.sequence for row in history.attempts] + effective)
    for place, sequence in enumerate(sequences, 1):
        if place != sequence:
            message = f"the sequence of {record.execution_id} is not dense: {sequence} is at place {place}"
            yield _of_execution(record, "I13", message)
            return


def _judge_cancels(history: History) -> Iterator[Finding]:
    record = history.record
    effective = [command for command in history.commands if command.sequence is not None]
    for command in effective:
        if not command.consumed:
            message = f"the cancel {command.command_id} of {record.execution_id} had an effect, and is not consumed"
            yield _of_execution(record, "I19", message)
    if len(effective) > 1:
        ids = ", ".join(str(command.command_id) for command in effective)
        yield _of_execution(record, "I19", f"several cancels of {record.execution_id} had an effect: {ids}")
    if record.state is WorkflowState.CANCELLED and record.started_at is not None and not effective:
        yield _of_execution(record, "I19", f"{record.execution_id} is CANCELLED by no cancel")
    if record.state is not WorkflowState.CANCELLED and effective:
        message = f"{record.execution_id} is {record.state}, and the cancel {effective[0].command_id} had an effect"
        yield _of_execution(record, "I19", message)


def _judge_attempt(row: AttemptRow) -> Iterator[Finding]:
    """An outcome by itself."""
    if (row.output is not None) is not (row.state is _COMPLETED):
        yield _of(row, "I5", f"{_named(row)} is {row.state} and has {'an' if row.output is not None else 'no'} output")
    if (row.error is not None) is not (row.state is _FAILED):
        yield _of(row, "I5", f"{_named(row)} is {row.state} and has {'an' if row.error is not None else 'no'} error")
    if row.retry_at is not None and row.state is not _FAILED:
        yield _of(row, "I5", f"{_named(row)} is {row.state} and is to be tried again")
    if row.retry_at is not None and row.retry_at < row.finished_at:
        yield _of(row, "I15", f"{_named(row)} is to be tried again before it ended")


def _judge_numbers(rows: Sequence[AttemptRow], most: int) -> Iterator[Finding]:
    numbers = [row.attempt for row in rows]
    if numbers != list(range(1, len(rows) + 1)):
        row = rows[-1]
        yield _of(row, "I6", f"the attempts of {row.node_id} in {row.execution_id} are numbered {numbers}")
    if len(rows) > most:
        row = rows[most]
        yield _of(row, "I6", f"{row.node_id} in {row.execution_id} had {len(rows)} attempts instead of {most} at most")


def _judge_succession(rows: Sequence[AttemptRow], *, clocks_agree: bool) -> Iterator[Finding]:
    """One attempt of a node after another: only what failed and was to be tried again has a successor."""
    for before, row in pairwise(rows):
        if before.state is not _FAILED or before.retry_at is None:
            yield _of(row, "I5", f"{_named(row)} comes after attempt {before.attempt}, which ended the node")
        elif clocks_agree and row.started_at is not None:
            early = before.retry_at - row.started_at
            if early > CLOCK_ALLOWANCE_MILLISECONDS:
                yield _of(row, "I15", f"{_named(row)} started {early / 1000:g} s before its time")


def _judge_order(history: History, graph: Graph, completed_at: Mapping[str, int]) -> Iterator[Finding]:
    for row in history.attempts:
        for index in graph.dependencies[graph.index_of[row.node_id]]:
            dependency = graph.node_ids[index]
            if completed_at.get(dependency, row.sequence) >= row.sequence:
                yield _of(row, "I7", f"{_named(row)} ran before {dependency} was committed")


def _judge_end(history: History, graph: Graph) -> Iterator[Finding]:
    """After the end there is nothing but what the end has cancelled, and before it nothing is cancelled."""
    end = _end(history, graph)
    for row in history.attempts:
        if end is not None and row.sequence > end and row.state is not _CANCELLED:
            yield _of(row, "I14", f"{_named(row)} has an outcome from after the end of the execution")
        if row.state is _CANCELLED and (end is None or row.sequence < end):
            yield _of(row, "I14", f"{_named(row)} was cancelled before the execution ended")


def _end(history: History, graph: Graph) -> int | None:
    """The sequence of what ended the execution: a cancel, the first failure for good, the last node to complete."""
    ends = [command.sequence for command in history.commands if command.sequence is not None]
    left = set(graph.node_ids)
    for row in history.attempts:
        if row.state is _FAILED and row.retry_at is None:
            ends.append(row.sequence)
        elif row.state is _COMPLETED and row.node_id in left:
            left.remove(row.node_id)
            if not left:
                ends.append(row.sequence)
    return min(ends, default=None)


def _judge_suspicions(
    history: History, graph: Graph, by_node: Mapping[str, Sequence[AttemptRow]], completed_at: Mapping[str, int]
) -> Iterator[Finding]:
    """Deliveries are lost of attempts that were due, and each only counts up."""
    for each in history.suspicions:
        what = f"attempt {each.attempt} of {each.node_id} in {each.execution_id}"
        if each.lost_deliveries < 1:
            yield _of(each, "I17", f"{what} is noted as lost {each.lost_deliveries} times")
        index = graph.index_of.get(each.node_id)
        if index is None:
            yield _of(each, "I17", f"{what} has lost deliveries, and there is no such node")
            continue
        rows = by_node.get(each.node_id)
        if rows:
            last = rows[-1].attempt + (rows[-1].retry_at is not None)
        else:
            last = int(all(graph.node_ids[needed] in completed_at for needed in graph.dependencies[index]))
        if not 1 <= each.attempt <= last:
            yield _of(each, "I17", f"{what} has lost deliveries, and was never due")


def _judge_fold(history: History, graph: Graph) -> Iterator[Finding]:
    """The row says what the rows of attempts and cancels add up to."""
    record = history.record
    if record.started_at is None:
        return
    effective = [command.sequence for command in history.commands if command.sequence is not None]
    try:
        folded = fold(record.execution_id, graph, b"{}", history.attempts, min(effective, default=None))
    except IllegalTransition as error:
        yield _of_execution(record, "I13", f"the rows of {record.execution_id} contradict each other: {error}")
        return
    if folded.state is not record.state:
        yield _of_execution(record, "I13", f"{record.execution_id} is {record.state}, its rows say {folded.state}")
    elif folded.error != record.error:
        yield _of_execution(record, "I13", f"{record.execution_id} has another error than the attempt that ended it")
    yield from _judge_parking(record, folded)


def _judge_parking(record: StoredExecution, folded: Execution) -> Iterator[Finding]:
    """A parked execution is looked at when the first of its retries is due; one that is not, all the time."""
    if record.parked_until is None:
        return
    if record.state is not WorkflowState.RUNNING:
        yield _of_execution(record, "I14", f"{record.execution_id} is {record.state} and parked")
    elif record.parked_until != parked_until(folded):
        message = f"{record.execution_id} is parked until {record.parked_until}, its rows say {parked_until(folded)}"
        yield _of_execution(record, "I15", message)


def _named(row: AttemptRow) -> str:
    return f"attempt {row.attempt} of {row.node_id} in {row.execution_id}"


def _of(row: AttemptRow | Suspicion, invariant: str, message: str) -> Finding:
    return Finding(invariant, row.execution_id, row.node_id, row.attempt, message)


def _of_execution(record: StoredExecution, invariant: str, message: str) -> Finding:
    return Finding(invariant, record.execution_id, None, None, message)
