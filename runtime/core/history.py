"""What has happened to an execution, in order, told from its stored rows.

Rows are made when something ends: of what runs now there is none yet. Where two things have the same time, what
caused the other comes first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from .graph import Graph
from .machine import AttemptRow
from .state import NodeState
from .stored import StoredCancel, StoredExecution


class EventKind(StrEnum):
    """What can happen."""

    CREATED = "execution_created"
    STARTED = "execution_started"
    QUEUED = "attempt_queued"
    ATTEMPT_STARTED = "attempt_started"
    COMPLETED = "attempt_completed"
    FAILED = "attempt_failed"
    RETRY = "retry_decided"
    CANCEL_REQUESTED = "cancel_requested"
    ENDED = "execution_ended"


class Event(NamedTuple):
    """Something that happened at a time, in epoch milliseconds. `details` by name, as JSON values."""

    at: int
    kind: EventKind
    node_id: str | None = None
    attempt: int | None = None
    details: Mapping[str, Any] = {}


class AttemptTimes(NamedTuple):
    """An attempt that has ended: when it could start, when it did, when it ended. Epoch milliseconds.

    `queued_at` is when the last of what it waited for was there: its dependencies, the time of its retry, or the
    start of the execution. `started_at` is None for one that ended before it began.
    """

    node_id: str
    attempt: int
    state: NodeState
    queued_at: int
    started_at: int | None
    finished_at: int
    retry_at: int | None
    error: Mapping[str, Any] | None


def attempt_times(attempts: Sequence[AttemptRow], started_at: int | None, graph: Graph) -> list[AttemptTimes]:
    """The attempts that have ended, in the order in which they were committed."""
    completed_at: dict[str, int] = {}
    retry_at: dict[str, int] = {}
    times = []
    for row in attempts:
        node = graph.index_of[row.node_id]
        ready = [completed_at.get(graph.node_ids[each], 0) for each in graph.dependencies[node]]
        queued_at = max([started_at or 0, retry_at.get(row.node_id, 0), *ready])
        # Clocks differ from one process to the next: nothing is shown to start before it could.
        queued_at = min(queued_at, row.finished_at if row.started_at is None else row.started_at)
        error = None if row.error is None else json.loads(row.error)
        times.append(
            AttemptTimes(
                row.node_id, row.attempt, row.state, queued_at, row.started_at, row.finished_at, row.retry_at, error
            )
        )
        if row.state is NodeState.COMPLETED:
            completed_at[row.node_id] = row.finished_at
        if row.retry_at is not None:
            retry_at[row.node_id] = row.retry_at
    return times


def events_of(
    row: StoredExecution, attempts: Sequence[AttemptRow], commands: Sequence[StoredCancel], graph: Graph
) -> list[Event]:
    """Everything that has happened, by time. Attempts by sequence."""
    events = [Event(row.created_at, EventKind.CREATED)]
    if row.started_at is not None:
        events.append(Event(row.started_at, EventKind.STARTED))
    for each in attempt_times(attempts, row.started_at, graph):
        events += _events_of_attempt(each)
    for command in commands:
        effect = {"effective": command.sequence is not None} if command.consumed else {}
        events.append(Event(command.created_at, EventKind.CANCEL_REQUESTED, details=effect))
    if row.completed_at is not None:
        details: dict[str, Any] = {"state": row.state}
        if row.error is not None:
            details["error"] = json.loads(row.error)
        events.append(Event(row.completed_at, EventKind.ENDED, details=details))
    # Made in an order in which causes come before what they cause, which a stable sort keeps where times are the same.
    return sorted(events, key=lambda event: event.at)


def _events_of_attempt(times: AttemptTimes) -> list[Event]:
    node_id, attempt = times.node_id, times.attempt
    events = [Event(times.queued_at, EventKind.QUEUED, node_id, attempt)]
    if times.started_at is not None:
        events.append(Event(times.started_at, EventKind.ATTEMPT_STARTED, node_id, attempt))
    if times.state is NodeState.COMPLETED:
        events.append(Event(times.finished_at, EventKind.COMPLETED, node_id, attempt))
        return events
    details = {} if times.error is None else {"error": times.error}
    events.append(Event(times.finished_at, EventKind.FAILED, node_id, attempt, details))
    if times.retry_at is not None:
        events.append(Event(times.finished_at, EventKind.RETRY, node_id, attempt, {"retry_at": times.retry_at}))
    return events
