"""Why a node does not run: what it waits for, told from values that are there anyway."""

from __future__ import annotations

from collections.abc import Container, Sequence
from enum import StrEnum
from typing import NamedTuple

from .machine import Execution
from .state import NodeState

MAX_NODES_NAMED = 20


class WaitsFor(StrEnum):
    """What a node waits for."""

    TRIGGER = "trigger"
    PREDECESSORS = "predecessors"
    CANCEL = "cancel"
    PARTITION = "partition"
    RETRY = "retry"
    HANDLER = "handler"
    LIMIT = "limit"
    SLOT = "slot"


class Waiting(NamedTuple):
    """What a node waits for, and the same for people. `nodes`: its predecessors that have not completed; `until`: when
    its retry is due, in epoch milliseconds."""

    kind: WaitsFor
    message: str
    nodes: Sequence[str] = ()
    until: int | None = None


class Surroundings(NamedTuple):
    """What is known beside the execution itself; what is not known counts as no hindrance.

    `cancelled`: whether somebody asked for the execution to be cancelled. `unowned`: whether nobody owns its partition.
    `unserved`: the handlers that no live worker has. `limited`: those that run as often as they may.
    """

    cancelled: bool = False
    unowned: bool = False
    unserved: Container[str] = ()
    limited: Container[str] = ()


NOT_TRIGGERED = Waiting(WaitsFor.TRIGGER, "waits for the execution to be triggered")


def unserved_message(handler: str) -> str:
    """Of a node whose handler no live worker has."""
    return f"waits for a worker that has the handler {handler!r}; none is alive"


def what_it_waits_for(execution: Execution, node: int, around: Surroundings, now: int) -> Waiting | None:
    """What a node of a triggered execution waits for, at a moment in epoch milliseconds; None when it runs or has
    ended."""
    state = execution.node_states[node]
    if state not in (NodeState.PENDING, NodeState.QUEUED):
        return None
    if around.cancelled:
        return Waiting(WaitsFor.CANCEL, "the execution was asked to stop, and is about to")
    retry_at, _ = execution.retry_at.get(node, (now, 0))
    if state is NodeState.PENDING and node not in execution.retry_at:
        return _predecessors(execution, node)
    if around.unowned:
        return Waiting(
            WaitsFor.PARTITION,
            f"waits for a process that owns partition {execution.partition}; none does now",
        )
    if retry_at > now:
        failed = execution.attempts[node]
        return Waiting(WaitsFor.RETRY, f"attempt {failed} failed; waits for the time of the next one", (), retry_at)
    handler = execution.graph.handlers[node]
    if handler in around.unserved:
        return Waiting(WaitsFor.HANDLER, unserved_message(handler))
    if handler in around.limited:
        return Waiting(WaitsFor.LIMIT, f"waits for its turn: as many attempts of {handler!r} run as may")
    return Waiting(WaitsFor.SLOT, f"waits for a free slot of a worker that has the handler {handler!r}")


def _predecessors(execution: Execution, node: int) -> Waiting:
    names = [
        execution.graph.node_ids[each]
        for each in execution.graph.dependencies[node]
        if execution.node_states[each] is not NodeState.COMPLETED
    ]
    more = f" and {len(names) - MAX_NODES_NAMED} more" if len(names) > MAX_NODES_NAMED else ""
    return Waiting(WaitsFor.PREDECESSORS, f"waits for {', '.join(names[:MAX_NODES_NAMED])}{more}", names)
