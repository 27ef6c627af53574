"""The states of executions and nodes, and every transition there is.

This file owns all transitions; the diagram in the documentation and the tests of illegal
transitions are made from the two tables. A state that leads nowhere is terminal, and never changes.

A node is PENDING while it waits for its dependencies or for the time of its next attempt, QUEUED
from the moment its attempt may start, RUNNING while a worker has it. RUNNING is only informative:
after a crash a node that ran is QUEUED again, with the same attempt number.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class WorkflowState(StrEnum):
    """The state of an execution."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class NodeState(StrEnum):
    """The state of a node of an execution."""

    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


WORKFLOW_TRANSITIONS: Mapping[WorkflowState, Mapping[WorkflowState, str]] = {
    WorkflowState.PENDING: {
        WorkflowState.RUNNING: "triggered",
        WorkflowState.CANCELLED: "cancelled before it was triggered",
    },
    WorkflowState.RUNNING: {
        WorkflowState.COMPLETED: "every node completed",
        WorkflowState.FAILED: "a node failed for good",
        WorkflowState.CANCELLED: "cancel requested",
    },
    WorkflowState.COMPLETED: {},
    WorkflowState.FAILED: {},
    WorkflowState.CANCELLED: {},
}

NODE_TRANSITIONS: Mapping[NodeState, Mapping[NodeState, str]] = {
    NodeState.PENDING: {
        NodeState.QUEUED: "dependencies completed, or the retry is due",
        NodeState.CANCELLED: "the execution failed or was cancelled",
    },
    NodeState.QUEUED: {
        NodeState.RUNNING: "a worker takes it",
        NodeState.CANCELLED: "the execution failed or was cancelled",
    },
    NodeState.RUNNING: {
        NodeState.COMPLETED: "the attempt succeeded",
        NodeState.FAILED: "the attempt failed for good",
        NodeState.PENDING: "the attempt failed and will be retried",
        NodeState.QUEUED: "the worker was lost or handed it back",
        NodeState.CANCELLED: "the execution failed or was cancelled",
    },
    NodeState.COMPLETED: {},
    NodeState.FAILED: {},
    NodeState.CANCELLED: {},
}

TERMINAL_WORKFLOW_STATES = frozenset(state for state, after in WORKFLOW_TRANSITIONS.items() if not after)
TERMINAL_NODE_STATES = frozenset(state for state, after in NODE_TRANSITIONS.items() if not after)


class IllegalTransition(AssertionError):
    """A transition that the tables do not have: a bug of the engine, never a user's doing."""


def check_workflow_transition(before: WorkflowState, after: WorkflowState) -> None:
    """Raise `IllegalTransition` unless the table leads from `before` to `after`."""
    if after not in WORKFLOW_TRANSITIONS[before]:
        raise IllegalTransition(f"an execution cannot go from {before} to {after}")


def check_node_transition(before: NodeState, after: NodeState) -> None:
    """Raise `IllegalTransition` unless the table leads from `before` to `after`."""
    if after not in NODE_TRANSITIONS[before]:
        raise IllegalTransition(f"a node cannot go from {before} to {after}")


def mermaid_diagram(
    transitions: Mapping[WorkflowState, Mapping[WorkflowState, str]] | Mapping[NodeState, Mapping[NodeState, str]],
) -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2"]
    for before, afters in transitions.items():
        for after, reason in afters.items():
            lines.append(f"    {before} --> {after}: {reason}")
        if not afters:
            lines.append(f"    {before} --> [*]")
    return "\n".join(lines)
