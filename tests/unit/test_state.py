"""The two tables of transitions: what they allow, what they refuse, and the diagram made from them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TypeVar

import pytest

from workflow_engine.runtime.core.state import (
    NODE_TRANSITIONS,
    TERMINAL_NODE_STATES,
    TERMINAL_WORKFLOW_STATES,
    WORKFLOW_TRANSITIONS,
    IllegalTransition,
    NodeState,
    WorkflowState,
    check_node_transition,
    check_workflow_transition,
    mermaid_diagram,
)

W, N = WorkflowState, NodeState

# Written down a second time on purpose: whoever changes a table has to change what it promises too.
WORKFLOW_PAIRS = {
    (W.PENDING, W.RUNNING),
    (W.PENDING, W.CANCELLED),
    (W.RUNNING, W.COMPLETED),
    (W.RUNNING, W.FAILED),
    (W.RUNNING, W.CANCELLED),
}
NODE_PAIRS = {
    (N.PENDING, N.QUEUED),
    (N.PENDING, N.CANCELLED),
    (N.QUEUED, N.RUNNING),
    (N.QUEUED, N.CANCELLED),
    (N.RUNNING, N.COMPLETED),
    (N.RUNNING, N.FAILED),
    (N.RUNNING, N.PENDING),
    (N.RUNNING, N.QUEUED),
    (N.RUNNING, N.CANCELLED),
}

S = TypeVar("S", WorkflowState, NodeState)


def pairs(table: Mapping[S, Mapping[S, str]]) -> set[tuple[S, S]]:
    return {(before, after) for before, afters in table.items() for after in afters}


def reachable(table: Mapping[S, Mapping[S, str]], start: S) -> set[S]:
    found = {start}
    stack = [start]
    while stack:
        for after in table[stack.pop()]:
            if after not in found:
                found.add(after)
                stack.append(after)
    return found


def test_the_tables_hold_exactly_these_transitions() -> None:
    assert pairs(WORKFLOW_TRANSITIONS) == WORKFLOW_PAIRS
    assert pairs(NODE_TRANSITIONS) == NODE_PAIRS


def test_every_state_has_a_row_and_every_transition_a_reason() -> None:
    assert set(WORKFLOW_TRANSITIONS) == set(WorkflowState)
    assert set(NODE_TRANSITIONS) == set(NodeState)
    reasons = [reason for table in (WORKFLOW_TRANSITIONS, NODE_TRANSITIONS) for row in table.values() for reason in row]
    assert len(reasons) == len(WORKFLOW_PAIRS) + len(NODE_PAIRS)
    assert all(reasons)


@pytest.mark.parametrize(("before", "after"), list(product(WorkflowState, WorkflowState)))
def test_workflow_transition(before: WorkflowState, after: WorkflowState) -> None:
    legal = (before, after) in WORKFLOW_PAIRS
    if legal:
        check_workflow_transition(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"^an execution cannot go from {before} to {after}$"):
            check_workflow_transition(before, after)
    assert (after in WORKFLOW_TRANSITIONS[before]) is legal


@pytest.mark.parametrize(("before", "after"), list(product(NodeState, NodeState)))
def test_node_transition(before: NodeState, after: NodeState) -> None:
    legal = (before, after) in NODE_PAIRS
    if legal:
        check_node_transition(before, after)
    else:
        with pytest.raises(IllegalTransition, match=f"^a node cannot go from {before} to {after}$"):
            check_node_transition(before, after)
    assert (after in NODE_TRANSITIONS[before]) is legal


def test_terminal_states() -> None:
    assert {W.COMPLETED, W.FAILED, W.CANCELLED} == TERMINAL_WORKFLOW_STATES
    assert {N.COMPLETED, N.FAILED, N.CANCELLED} == TERMINAL_NODE_STATES


def test_every_state_is_reached_and_leads_to_an_end() -> None:
    assert reachable(WORKFLOW_TRANSITIONS, W.PENDING) == set(WorkflowState)
    assert reachable(NODE_TRANSITIONS, N.PENDING) == set(NodeState)
    for workflow_state in WorkflowState:
        assert reachable(WORKFLOW_TRANSITIONS, workflow_state) & TERMINAL_WORKFLOW_STATES
    for node_state in NodeState:
        assert reachable(NODE_TRANSITIONS, node_state) & TERMINAL_NODE_STATES


def test_whatever_an_execution_may_end_in_its_nodes_can_follow() -> None:
    """A failed or cancelled execution cancels every node that has not ended: the table must have all those steps."""
    for state in set(NodeState) - TERMINAL_NODE_STATES:
        assert N.CANCELLED in NODE_TRANSITIONS[state]


def test_states_are_their_names() -> None:
    for state in (*WorkflowState, *NodeState):
        assert state == state.name == str(state) == f"{state}"


def test_an_illegal_transition_is_a_bug_of_the_engine() -> None:
    assert issubclass(IllegalTransition, AssertionError)


def drawn_arrows(diagram: str) -> tuple[set[tuple[str, str, str]], set[str]]:
    """The arrows of a diagram, and the states from which one leads to the end."""
    head, *lines = diagram.splitlines()
    assert head == "stateDiagram-v2"
    arrows, ends = set(), set()
    for line in lines:
        before, arrow, rest = line.strip().split(" ", 2)
        assert arrow == "-->"
        if rest == "[*]":
            ends.add(before)
        else:
            after, _, reason = rest.partition(": ")
            arrows.add((before, after, reason))
    return arrows, ends


def test_the_diagram_is_the_workflow_table() -> None:
    arrows, ends = drawn_arrows(mermaid_diagram(WORKFLOW_TRANSITIONS))
    assert arrows == {(b, a, reason) for b, row in WORKFLOW_TRANSITIONS.items() for a, reason in row.items()}
    assert ends == TERMINAL_WORKFLOW_STATES


def test_the_diagram_is_the_node_table() -> None:
    arrows, ends = drawn_arrows(mermaid_diagram(NODE_TRANSITIONS))
    assert arrows == {(b, a, reason) for b, row in NODE_TRANSITIONS.items() for a, reason in row.items()}
    assert ends == TERMINAL_NODE_STATES


def test_the_diagram_draws_each_arrow_once() -> None:
    for diagram, count in (
        (mermaid_diagram(WORKFLOW_TRANSITIONS), len(WORKFLOW_PAIRS) + 3),
        (mermaid_diagram(NODE_TRANSITIONS), len(NODE_PAIRS) + 3),
    ):
        assert len(diagram.splitlines()) == 1 + count
