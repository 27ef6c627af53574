"""The state machine by example: chains, joins, fail fast, retries, cancels, what is late, and what is folded."""

from __future__ import annotations

import inspect
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from results import output_data

from workflow_engine.runtime.core import machine
from workflow_engine.runtime.core.graph import Graph, NodeDefaults, compile_graph
from workflow_engine.runtime.core.limits import MAX_ERROR_MESSAGE_CHARACTERS
from workflow_engine.runtime.core.machine import (
    AttemptError,
    AttemptRow,
    ConsumedCommand,
    Effects,
    Execution,
    Outcome,
    apply_cancel,
    apply_outcome,
    apply_retry_due,
    combine_exit_outputs,
    fold,
    hand_back,
    is_current,
    parked_until,
    record,
    resume,
    start,
)
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.core.state import IllegalTransition, NodeState, WorkflowState

PENDING, QUEUED, RUNNING = NodeState.PENDING, NodeState.QUEUED, NodeState.RUNNING
COMPLETED, FAILED, CANCELLED = NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED

CHAIN = {"a": [], "b": ["a"], "c": ["b"]}
DIAMOND = {"top": [], "left": ["top"], "right": ["top"], "bottom": ["left", "right"]}

BROKEN = AttemptError("ValueError", "broken", retryable=False)
FLAKY = AttemptError("http_503", "try again", retryable=True)


def make_graph(edges: dict[str, list[str]], policy: RetryPolicy | None = None) -> Graph:
    nodes = [{"id": node_id, "handler": "noop", "dependencies": needed} for node_id, needed in edges.items()]
    chosen = policy or RetryPolicy(max_retries=2, initial_delay_seconds=1, jitter=False)
    return compile_graph({"name": "test", "dag": {"nodes": nodes}}, NodeDefaults(chosen, lambda _handler: 60.0))


class Run:
    """One execution and everything it has asked for; nodes by their ids, times in milliseconds."""

    def __init__(self, edges: dict[str, list[str]], policy: RetryPolicy | None = None) -> None:
        self.graph = make_graph(edges, policy)
        self.execution = Execution("e1", self.graph, b'{"x":1}')
        self.effects = Effects()
        self.now = 1_000

    def node(self, node_id: str) -> int:
        return self.graph.index_of[node_id]

    def attempt(self, node_id: str) -> int:
        return self.execution.attempts[self.node(node_id)]

    def start(self, *node_ids: str) -> None:
        for node_id in node_ids:
            assert start(self.execution, self.node(node_id), self.attempt(node_id))

    def ends(
        self, node_id: str, error: AttemptError | None = None, *, output: bytes = b"null", attempt: int | None = None
    ) -> None:
        self.now += 10
        number = self.attempt(node_id) if attempt is None else attempt
        result = output if error is None else None
        outcome = Outcome("e1", self.node(node_id), number, result, error, self.now - 5, self.now, jitter=0.5)
        apply_outcome(self.execution, outcome, self.effects)

    def cancel(self, command_id: int = 1) -> None:
        self.now += 10
        apply_cancel(self.execution, command_id, self.now, self.effects)

    def retry_due(self, node_id: str) -> None:
        apply_retry_due(self.execution, self.node(node_id), self.effects)

    @property
    def states(self) -> dict[str, NodeState]:
        return dict(zip(self.graph.node_ids, self.execution.node_states, strict=True))

    @property
    def dispatched(self) -> list[str]:
        assert all(execution is self.execution for execution, _ in self.effects.dispatch)
        return [self.graph.node_ids[node] for _, node in self.effects.dispatch]

    @property
    def timers(self) -> list[tuple[str, int]]:
        return [(self.graph.node_ids[node], delay) for _, node, delay in self.effects.timers]

    @property
    def rows(self) -> list[tuple[int, str, int, NodeState]]:
        return [(row.sequence, row.node_id, row.attempt, row.state) for row in self.effects.rows]

    def folded(self) -> Execution:
        cancelled = next((command.sequence for command in self.effects.commands if command.sequence), None)
        return fold("e1", self.graph, b'{"x":1}', self.effects.rows, cancelled)


ENDS: tuple[Callable[[Run], None], ...] = (lambda run: run.cancel(), lambda run: run.ends("b", BROKEN))


def contents(execution: Execution) -> dict[str, Any]:
    """Everything there is in an execution, but for what is never stored."""
    unstored = {"graph", "parked", "detached"}
    return {name: getattr(execution, name) for name in Execution.__slots__ if name not in unstored}


# --- going through --------------------------------------------------------------------------------


def test_a_new_execution_has_its_roots_queued() -> None:
    run = Run({"a": [], "b": ["a"], "c": []})
    assert run.states == {"a": QUEUED, "b": PENDING, "c": QUEUED}
    assert run.execution.attempts == [1, 0, 1]
    assert (run.execution.state, run.execution.terminal) == (WorkflowState.RUNNING, False)
    assert (run.execution.sequence, run.execution.active, run.execution.remaining) == (0, 2, 3)


def test_chain() -> None:
    run = Run(CHAIN)
    for node_id, output in (("a", b"1"), ("b", b'{"x":2}'), ("c", b"3")):
        assert run.states[node_id] is QUEUED
        assert not run.effects.finished
        run.start(node_id)
        assert run.states[node_id] is RUNNING
        run.ends(node_id, output=output)
    assert run.dispatched == ["b", "c"]
    assert run.rows == [(1, "a", 1, COMPLETED), (2, "b", 1, COMPLETED), (3, "c", 1, COMPLETED)]
    assert run.execution.state is WorkflowState.COMPLETED
    assert run.effects.finished == [run.execution]
    assert run.execution.outputs == [b"1", b'{"x":2}', b"3"]
    assert output_data(run.execution) == b"3"
    assert (run.execution.active, run.execution.remaining, run.execution.error) == (0, 0, None)


def test_rows_say_everything_about_an_attempt() -> None:
    run = Run(CHAIN)
    run.start("a")
    run.ends("a", output=b'"x"')
    assert run.effects.rows == [AttemptRow("e1", 1, "a", 1, COMPLETED, b'"x"', None, 1_005, 1_010, None)]
    run.ends("b", FLAKY)
    error = '{"node_id": "b", "type": "http_503", "message": "try again", "attempt": 1}'
    assert run.effects.rows[1] == AttemptRow("e1", 2, "b", 1, FAILED, None, error, 1_015, 1_020, 2_020)


@pytest.mark.parametrize("order", [("left", "right"), ("right", "left")])
def test_diamond(order: tuple[str, str]) -> None:
    run = Run(DIAMOND)
    run.ends("top")
    assert run.dispatched == ["left", "right"]
    run.ends(order[0])
    assert run.states["bottom"] is PENDING
    assert run.dispatched == ["left", "right"]
    run.ends(order[1])
    assert run.dispatched == ["left", "right", "bottom"]
    assert run.execution.attempts == [1, 1, 1, 1]
    run.ends("bottom")
    assert run.execution.state is WorkflowState.COMPLETED


def test_a_join_filled_within_one_batch_is_dispatched_once() -> None:
    edges = {**{f"n{number}": [] for number in range(50)}, "end": [f"n{number}" for number in range(50)]}
    run = Run(edges)
    for number in range(50):
        run.ends(f"n{number}")
        run.ends(f"n{number}")
    assert run.dispatched == ["end"]
    assert run.effects.stale == 50
    assert list(run.effects.touched) == ["e1"]


def test_nodes_that_nobody_waits_for_end_the_execution_together() -> None:
    run = Run({"a": [], "b": [], "c": []})
    run.ends("c")
    run.ends("a")
    assert not run.effects.finished
    run.ends("b")
    assert run.effects.finished == [run.execution]


# --- permission to start --------------------------------------------------------------------------


def test_an_attempt_starts_once() -> None:
    run = Run(CHAIN)
    assert start(run.execution, 0, 1)
    assert not start(run.execution, 0, 1)


def test_nothing_else_starts() -> None:
    run = Run(CHAIN)
    assert not start(run.execution, 0, 0)
    assert not start(run.execution, 0, 2)
    assert not start(run.execution, 1, 0)
    assert not start(run.execution, 1, 1)
    assert run.states == {"a": QUEUED, "b": PENDING, "c": PENDING}
    run.ends("a")
    assert not start(run.execution, 0, 1)


def test_nothing_starts_after_the_end() -> None:
    failed, cancelled = Run({"a": [], "b": []}), Run({"a": [], "b": []})
    failed.ends("a", BROKEN)
    cancelled.cancel()
    for run in (failed, cancelled):
        assert not start(run.execution, 1, 1)
        assert run.states["b"] is CANCELLED


def test_nothing_starts_of_what_was_dropped_from_memory() -> None:
    run = Run(CHAIN)
    run.execution.detached = True
    assert not start(run.execution, 0, 1)
    assert run.states["a"] is QUEUED


def test_handing_back() -> None:
    run = Run(CHAIN)
    assert not hand_back(run.execution, 0, 1), "it does not run yet"
    run.start("a")
    assert not hand_back(run.execution, 0, 2), "another attempt"
    assert hand_back(run.execution, 0, 1)
    assert run.states["a"] is QUEUED
    assert not hand_back(run.execution, 0, 1), "once is enough"
    assert start(run.execution, 0, 1), "the same number again"
    run.ends("a")
    assert not hand_back(run.execution, 0, 1)
    assert run.rows == [(1, "a", 1, COMPLETED)]


def test_an_outcome_that_comes_after_handing_back_counts_and_nothing_starts_again() -> None:
    run = Run(CHAIN)
    run.start("a")
    hand_back(run.execution, 0, 1)
    run.ends("a")
    assert run.rows == [(1, "a", 1, COMPLETED)]
    assert not start(run.execution, 0, 1)


def test_handing_back_after_the_end_changes_nothing() -> None:
    run = Run({"a": [], "b": []})
    run.start("a", "b")
    run.ends("a", BROKEN)
    assert not hand_back(run.execution, 1, 1)
    assert run.states == {"a": FAILED, "b": CANCELLED}


# --- late, doubled, made up -----------------------------------------------------------------------


def test_a_second_outcome_of_an_attempt_changes_nothing_but_a_counter() -> None:
    run = Run(CHAIN)
    run.ends("a", output=b"1")
    before = contents(run.execution)
    run.ends("a", output=b"2")
    run.ends("a", BROKEN)
    run.ends("a", FLAKY)
    assert contents(run.execution) == before
    assert run.effects.stale == 3
    assert run.rows == [(1, "a", 1, COMPLETED)]
    assert run.timers == []


def test_an_outcome_of_an_earlier_attempt_changes_nothing() -> None:
    run = Run(CHAIN)
    run.ends("a", FLAKY)
    run.ends("a", attempt=1)
    assert run.effects.stale == 1, "while the retry waits"
    run.retry_due("a")
    run.ends("a", attempt=1)
    assert run.effects.stale == 2, "while it is queued"
    run.start("a")
    run.ends("a", BROKEN, attempt=1)
    assert run.effects.stale == 3, "while it runs"
    run.ends("a", attempt=2)
    assert run.rows == [(1, "a", 1, FAILED), (2, "a", 2, COMPLETED)]


@pytest.mark.parametrize("attempt", [-1, 0, 2, 99])
def test_an_outcome_of_an_attempt_that_nobody_decided_changes_nothing(attempt: int) -> None:
    run = Run(CHAIN)
    before = contents(run.execution)
    run.ends("a", attempt=attempt)
    run.ends("b", attempt=attempt)
    assert contents(run.execution) == before
    assert (run.effects.stale, run.effects.rows) == (2, [])


def test_the_attempt_after_the_failed_one_does_not_exist_before_its_time() -> None:
    run = Run(CHAIN)
    run.ends("a", FLAKY)
    run.ends("a", attempt=2)
    assert run.effects.stale == 1
    assert run.states["a"] is PENDING


def test_what_is_current() -> None:
    run = Run(CHAIN)
    assert is_current(run.execution, 0, 1)
    assert not is_current(run.execution, 0, 2)
    assert not is_current(run.execution, 1, 0)
    run.start("a")
    assert is_current(run.execution, 0, 1)
    run.ends("a")
    assert not is_current(run.execution, 0, 1)
    assert is_current(run.execution, 1, 1)
    run.cancel()
    assert not is_current(run.execution, 1, 1)


# --- fail fast ------------------------------------------------------------------------------------


def test_a_node_that_fails_for_good_ends_the_execution() -> None:
    run = Run({"a": [], "b": [], "c": [], "d": ["a", "b"], "done": []})
    run.ends("done", output=b'"kept"')
    run.start("a", "b")
    run.ends("b", AttemptError("ZeroDivisionError", 'caf\u00e9 "quoted"\n', retryable=False))
    assert run.execution.state is WorkflowState.FAILED
    assert run.states == {"a": CANCELLED, "b": FAILED, "c": CANCELLED, "d": CANCELLED, "done": COMPLETED}
    assert run.execution.error is not None
    assert json.loads(run.execution.error) == {
        "node_id": "b",
        "type": "ZeroDivisionError",
        "message": 'caf\u00e9 "quoted"\n',
        "attempt": 1,
    }
    assert run.rows == [(1, "done", 1, COMPLETED), (2, "b", 1, FAILED), (3, "a", 1, CANCELLED)]
    assert run.effects.rows[2] == AttemptRow("e1", 3, "a", 1, CANCELLED, None, None, None, run.now, None)
    assert run.effects.finished == [run.execution]
    assert run.execution.outputs[run.node("done")] == b'"kept"'
    assert (run.dispatched, run.timers, run.execution.active) == ([], [], 0)


def test_after_a_failure_nothing_changes_any_more() -> None:
    run = Run({"a": [], "b": [], "c": ["b"]})
    run.start("b")
    run.ends("a", BROKEN)
    before = contents(run.execution)
    run.ends("b", output=b"1")
    run.ends("b", BROKEN)
    run.ends("a")
    run.retry_due("a")
    assert contents(run.execution) == before
    assert run.effects.stale == 3
    assert run.effects.finished == [run.execution]


def test_two_failures_in_one_batch_are_one_failure() -> None:
    run = Run({"a": [], "b": []})
    run.start("a", "b")
    run.ends("a", BROKEN)
    run.ends("b", BROKEN)
    assert run.rows == [(1, "a", 1, FAILED), (2, "b", 1, CANCELLED)]
    assert run.effects.finished == [run.execution]
    assert json.loads(run.execution.error or "")["node_id"] == "a"


def test_a_failure_cancels_what_waits_for_a_retry() -> None:
    run = Run({"a": [], "b": []})
    run.ends("a", FLAKY)
    run.ends("b", BROKEN)
    assert run.states == {"a": CANCELLED, "b": FAILED}
    assert run.execution.retry_at == {}
    run.retry_due("a")
    assert run.dispatched == []
    assert run.rows == [(1, "a", 1, FAILED), (2, "b", 1, FAILED)], "no attempt of it was running"


def test_the_message_of_an_error_is_bounded() -> None:
    run = Run(CHAIN)
    run.ends("a", AttemptError("E", "\u00e9" * 1_000_000, retryable=False))
    message = json.loads(run.execution.error or "")["message"]
    assert message == "\u00e9" * MAX_ERROR_MESSAGE_CHARACTERS


# --- retries --------------------------------------------------------------------------------------


def test_retry() -> None:
    run = Run(CHAIN)
    run.start("a")
    run.ends("a", FLAKY)
    assert run.states["a"] is PENDING
    assert run.execution.state is WorkflowState.RUNNING
    assert run.timers == [("a", 1_000)]
    assert run.execution.retry_at == {0: (run.now + 1_000, 1_000)}
    assert (run.dispatched, run.effects.finished, run.execution.error) == ([], [], None)
    run.retry_due("a")
    assert run.dispatched == ["a"]
    assert (run.states["a"], run.attempt("a"), run.execution.retry_at) == (QUEUED, 2, {})
    run.start("a")
    run.ends("a", output=b"2")
    assert run.rows == [(1, "a", 1, FAILED), (2, "a", 2, COMPLETED)]
    assert run.dispatched == ["a", "b"]
    assert run.execution.outputs[0] == b"2"


def test_backoff_grows_and_the_last_failure_is_for_good() -> None:
    run = Run(CHAIN, RetryPolicy(max_retries=3, initial_delay_seconds=1, max_delay_seconds=3, jitter=False))
    for attempt in (1, 2, 3, 4):
        assert run.attempt("a") == attempt
        run.ends("a", FLAKY)
        run.retry_due("a")
    assert run.timers == [("a", 1_000), ("a", 2_000), ("a", 3_000)]
    assert run.execution.state is WorkflowState.FAILED
    assert json.loads(run.execution.error or "")["attempt"] == 4
    assert [row.retry_at is None for row in run.effects.rows] == [False, False, False, True]
    assert run.dispatched == ["a", "a", "a"]


def test_a_failure_that_cannot_be_helped_is_not_retried() -> None:
    run = Run(CHAIN)
    run.ends("a", FLAKY)
    run.retry_due("a")
    run.ends("a", BROKEN)
    assert run.execution.state is WorkflowState.FAILED
    assert run.rows == [(1, "a", 1, FAILED), (2, "a", 2, FAILED)]


def test_without_retries_the_first_failure_is_for_good() -> None:
    run = Run(CHAIN, RetryPolicy(max_retries=0))
    run.ends("a", FLAKY)
    assert run.execution.state is WorkflowState.FAILED
    assert run.timers == []


def test_jitter_comes_with_the_outcome() -> None:
    run = Run(CHAIN, RetryPolicy(max_retries=1, initial_delay_seconds=4, jitter=True))
    run.ends("a", FLAKY)
    assert run.timers == [("a", 2_000)]


def test_retry_after_is_waited_for() -> None:
    run = Run(CHAIN)
    run.ends("a", FLAKY._replace(retry_after_seconds=90.0))
    assert run.timers == [("a", 90_000)]
    assert run.effects.rows[0].retry_at == run.now + 90_000


def test_a_retry_is_due_once() -> None:
    run = Run(CHAIN)
    run.retry_due("a")
    run.retry_due("b")
    assert run.dispatched == []
    run.ends("a", FLAKY)
    run.retry_due("a")
    run.retry_due("a")
    assert (run.dispatched, run.attempt("a")) == (["a"], 2)
    run.start("a")
    run.retry_due("a")
    run.ends("a")
    run.retry_due("a")
    assert run.dispatched == ["a", "b"]


def test_a_retry_changes_a_row_of_the_execution_only_when_that_was_parked() -> None:
    run = Run(CHAIN)
    run.ends("a", FLAKY)
    run.effects = Effects()
    run.retry_due("a")
    assert run.effects.touched == {}
    run.ends("a", FLAKY)
    run.effects = Effects()
    run.execution.parked = True
    run.retry_due("a")
    assert run.effects.touched == {"e1": run.execution}


def test_other_nodes_go_on_while_one_waits() -> None:
    run = Run({"a": [], "b": [], "c": ["b"], "end": ["a", "c"]})
    run.ends("a", FLAKY)
    run.ends("b")
    run.ends("c")
    assert run.states == {"a": PENDING, "b": COMPLETED, "c": COMPLETED, "end": PENDING}
    run.retry_due("a")
    run.ends("a")
    run.ends("end")
    assert run.execution.state is WorkflowState.COMPLETED


# --- cancel ---------------------------------------------------------------------------------------


def test_cancel() -> None:
    run = Run({"a": [], "b": [], "c": ["a"], "d": [], "e": []})
    run.ends("d", output=b"1")
    run.ends("e", FLAKY)
    run.start("b")
    run.cancel(command_id=7)
    assert run.execution.state is WorkflowState.CANCELLED
    assert run.states == {"a": CANCELLED, "b": CANCELLED, "c": CANCELLED, "d": COMPLETED, "e": CANCELLED}
    assert run.effects.commands == [ConsumedCommand(7, 3, "e1")]
    assert run.rows == [(1, "d", 1, COMPLETED), (2, "e", 1, FAILED), (4, "b", 1, CANCELLED)]
    assert run.effects.rows[-1].finished_at == run.now
    assert run.execution.sequence == 4
    assert (run.execution.error, run.execution.retry_at, run.execution.active) == (None, {}, 0)
    assert run.effects.finished == [run.execution]
    assert run.effects.touched == {"e1": run.execution}
    assert output_data(run.execution) is None


def test_an_outcome_after_a_cancel_changes_nothing() -> None:
    run = Run(CHAIN)
    run.start("a")
    run.cancel()
    before = contents(run.execution)
    run.ends("a")
    run.ends("a", BROKEN)
    assert contents(run.execution) == before
    assert run.effects.stale == 2


def test_a_cancel_after_the_last_outcome_changes_nothing() -> None:
    """The same race the other way round: fully before, or fully after."""
    run = Run({"a": []})
    run.ends("a", output=b"1")
    before = contents(run.execution)
    run.cancel(command_id=3)
    assert contents(run.execution) == before
    assert run.effects.commands == [ConsumedCommand(3, None, "e1")]
    assert run.effects.finished == [run.execution]
    assert output_data(run.execution) == b"1"


def test_a_second_cancel_changes_nothing() -> None:
    run = Run(CHAIN)
    run.start("a")
    run.cancel(command_id=1)
    before = contents(run.execution)
    run.cancel(command_id=2)
    assert contents(run.execution) == before
    assert run.effects.commands == [ConsumedCommand(1, 1, "e1"), ConsumedCommand(2, None, "e1")]
    assert run.effects.finished == [run.execution]


def test_a_cancel_after_a_failure_changes_nothing() -> None:
    run = Run(CHAIN)
    run.ends("a", BROKEN)
    run.cancel()
    assert run.execution.state is WorkflowState.FAILED
    assert run.effects.commands == [ConsumedCommand(1, None, "e1")]


def test_outcome_and_cancel_in_one_batch() -> None:
    run = Run(CHAIN)
    run.ends("a")
    run.cancel()
    assert run.states == {"a": COMPLETED, "b": CANCELLED, "c": CANCELLED}
    assert run.dispatched == ["b"]
    assert not start(run.execution, run.node("b"), 1), "it was to be dispatched, but must not start any more"


# --- parking --------------------------------------------------------------------------------------


def test_parked_until_the_earliest_retry() -> None:
    run = Run({"a": [], "b": [], "c": ["a"]})
    assert parked_until(run.execution) is None
    run.ends("a", FLAKY._replace(retry_after_seconds=100.0))
    assert parked_until(run.execution) is None, "b is still queued"
    run.start("b")
    assert parked_until(run.execution) is None, "b runs"
    run.ends("b", FLAKY._replace(retry_after_seconds=50.0))
    assert parked_until(run.execution) == run.now + 50_000
    run.retry_due("b")
    assert parked_until(run.execution) is None
    run.ends("b")
    assert parked_until(run.execution) == 1_010 + 100_000


def test_what_has_ended_is_not_parked() -> None:
    for end in ENDS:
        run = Run({"a": [], "b": []})
        run.ends("a", FLAKY)
        end(run)
        assert parked_until(run.execution) is None


def test_a_retry_waits_for_nothing_else_to_be_parked() -> None:
    run = Run(CHAIN)
    run.ends("a", FLAKY)
    assert parked_until(run.execution) == run.now + 1_000


# --- results --------------------------------------------------------------------------------------


def test_one_exit_gives_its_output_as_it_is() -> None:
    assert combine_exit_outputs([("end", b'{"a": [1,  2]}')]) == b'{"a": [1,  2]}'


def test_several_exits_give_an_object_by_their_ids() -> None:
    combined = combine_exit_outputs([("b", b"1"), ("a-2", b'{"x":null}'), ("c", b'"\xc3\xa9"')])
    assert combined == b'{"b":1,"a-2":{"x":null},"c":"\xc3\xa9"}'
    assert json.loads(combined) == {"b": 1, "a-2": {"x": None}, "c": "\u00e9"}


def test_output_data_of_several_exits() -> None:
    run = Run({"a": [], "b": ["a"], "c": ["a"]})
    run.ends("a", output=b"0")
    run.ends("c", output=b"3")
    assert output_data(run.execution) is None
    run.ends("b", output=b"[2]")
    assert output_data(run.execution) == b'{"b":[2],"c":3}'


def test_there_are_no_results_of_what_failed() -> None:
    run = Run({"a": [], "b": []})
    run.ends("a")
    run.ends("b", BROKEN)
    assert output_data(run.execution) is None


# --- folding and resuming -------------------------------------------------------------------------


def story_with_everything() -> Run:
    run = Run({"a": [], "b": [], "c": ["a"], "d": ["c", "b"], "e": ["b"], "f": []})
    run.start("a", "b", "f")
    run.ends("a", FLAKY)
    run.ends("b", output=b"1")
    run.retry_due("a")
    run.start("a")
    run.ends("a", output=b"2")
    run.start("c", "e")
    return run


def test_nothing_stored_is_a_new_execution() -> None:
    graph = make_graph(DIAMOND)
    assert contents(fold("e1", graph, b"{}", [])) == contents(Execution("e1", graph, b"{}"))


def test_folding_gives_the_live_state_with_what_ran_queued_again() -> None:
    run = story_with_everything()
    live = contents(run.execution)
    live["node_states"] = [QUEUED if state is RUNNING else state for state in live["node_states"]]
    assert contents(run.folded()) == live


@pytest.mark.parametrize("how", ["failed", "cancelled", "completed"])
def test_folding_what_has_ended(how: str) -> None:
    run = story_with_everything()
    if how == "failed":
        run.ends("c", BROKEN)
    elif how == "cancelled":
        run.cancel()
    else:
        for node_id in ("c", "e", "f", "d"):
            run.ends(node_id)
    folded = run.folded()
    assert folded.state.name == how.upper()
    assert contents(folded) == contents(run.execution)


def test_folding_a_retry_that_ran_when_the_execution_ended() -> None:
    """The row of the cancelled attempt is all there is of it, so it has to say which attempt that was."""
    for end in ENDS:
        run = Run({"a": [], "b": []})
        run.ends("a", FLAKY)
        run.retry_due("a")
        run.start("a")
        end(run)
        assert run.rows[-1] == (run.execution.sequence, "a", 2, CANCELLED)
        assert contents(run.folded()) == contents(run.execution)


def test_folding_a_cancel_between_rows() -> None:
    run = Run({"a": [], "b": [], "c": []})
    run.ends("a")
    run.start("b", "c")
    run.cancel()
    assert [row.sequence for row in run.effects.rows] == [1, 3, 4]
    assert contents(run.folded()) == contents(run.execution)


def test_rows_that_contradict_each_other_are_an_illegal_transition() -> None:
    graph = make_graph(CHAIN)
    row = AttemptRow("e1", 1, "a", 1, COMPLETED, b"1", None, 1, 2, None)
    for wrong in ([row, row], [row._replace(node_id="b")], [row._replace(state=FAILED), row]):
        with pytest.raises(IllegalTransition):
            fold("e1", graph, b"{}", wrong)
    with pytest.raises(KeyError):
        fold("e1", graph, b"{}", [row._replace(node_id="nobody")])


def test_recording_returns_what_became_ready() -> None:
    execution = Execution("e1", make_graph(DIAMOND), b"{}")
    top = AttemptRow("e1", 1, "top", 1, COMPLETED, b"1", None, 1, 2, None)
    assert list(record(execution, top)) == [1, 2]
    assert list(record(execution, top._replace(sequence=2, node_id="left"))) == []
    assert list(record(execution, top._replace(sequence=3, node_id="right"))) == [3]
    assert list(record(execution, top._replace(sequence=4, node_id="bottom"))) == []


def resumed(run: Run, running: list[tuple[int, int]], now: int) -> Run:
    """The run after a restart: folded, and set going again at `now`."""
    again = Run({})
    again.graph, again.execution = run.graph, run.folded()
    resume(again.execution, running, now, again.effects)
    return again


def test_resuming_dispatches_what_is_queued() -> None:
    run = story_with_everything()
    again = resumed(run, [], run.now)
    assert again.dispatched == ["c", "e", "f"]
    assert again.effects.rows == []
    assert again.timers == []


def test_resuming_does_not_dispatch_what_still_runs() -> None:
    run = story_with_everything()
    again = resumed(run, [(run.node("c"), 1), (run.node("e"), 1)], run.now)
    assert again.dispatched == ["f"]
    assert (again.states["c"], again.states["e"]) == (RUNNING, RUNNING)
    again.ends("c")
    assert again.rows == [(4, "c", 1, COMPLETED)]


def test_resuming_ignores_what_runs_for_nothing() -> None:
    run = story_with_everything()
    again = resumed(run, [(run.node("a"), 1), (run.node("c"), 9), (run.node("d"), 1)], run.now)
    assert again.dispatched == ["c", "e", "f"]
    assert again.execution.attempts == run.execution.attempts


def test_resuming_sets_the_timers_of_retries() -> None:
    run = Run({"a": [], "b": []})
    run.ends("a", FLAKY)
    run.ends("b", FLAKY._replace(retry_after_seconds=60.0))
    a_due, b_due = 1_010 + 1_000, 1_020 + 60_000
    assert resumed(run, [], a_due - 300).timers == [("a", 300), ("b", b_due - a_due + 300)]
    assert resumed(run, [], b_due + 5).timers == [("a", 0), ("b", 0)]


def test_a_clock_that_was_set_back_does_not_lengthen_a_wait() -> None:
    run = Run(CHAIN)
    run.ends("a", FLAKY)
    assert resumed(run, [], run.now - 3_600_000).timers == [("a", 1_000)]


def test_resuming_does_not_dispatch_a_retry_that_still_runs() -> None:
    """That the retry was due is not stored: what runs is the proof that it was."""
    run = Run(CHAIN)
    run.ends("a", FLAKY)
    run.retry_due("a")
    run.start("a")
    again = resumed(run, [(0, 2)], run.now + 60_000)
    assert (again.dispatched, again.timers) == ([], [])
    assert (again.states["a"], again.attempt("a")) == (RUNNING, 2)
    again.retry_due("a")
    assert again.dispatched == []
    again.ends("a", output=b"2")
    assert again.rows == [(2, "a", 2, COMPLETED)]
    assert again.effects.stale == 0


@pytest.mark.parametrize("attempt", [1, 3])
def test_only_the_very_next_attempt_proves_that_a_retry_was_due(attempt: int) -> None:
    run = Run(CHAIN)
    run.ends("a", FLAKY)
    again = resumed(run, [(0, attempt)], run.now)
    assert again.timers == [("a", 1_000)]
    assert (again.states["a"], again.attempt("a")) == (PENDING, 1)


def test_what_has_ended_is_not_set_going() -> None:
    run = story_with_everything()
    run.cancel()
    again = resumed(run, [(run.node("c"), 1)], run.now)
    assert (again.dispatched, again.timers) == ([], [])


# --- showing --------------------------------------------------------------------------------------


def test_repr_shows_the_first_nodes() -> None:
    run = Run(CHAIN)
    run.ends("a")
    assert repr(run.execution) == "<Execution e1 RUNNING at 1: a=COMPLETED#1, b=QUEUED#1, c=PENDING#0>"
    wide = Run({f"n{number}": [] for number in range(1_000)})
    assert len(repr(wide.execution)) < 1_000


# --- large graphs ---------------------------------------------------------------------------------


@contextmanager
def little_stack(frames: int = 40) -> Iterator[None]:
    """Only so many more frames: what recurses once per node fails."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + frames)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def chain(size: int) -> dict[str, list[str]]:
    return {f"n{number}": [f"n{number - 1}"] if number else [] for number in range(size)}


def fan(size: int) -> dict[str, list[str]]:
    middle = [f"n{number}" for number in range(size - 2)]
    return {"start": [], **{name: ["start"] for name in middle}, "end": middle}


def ladder(size: int) -> dict[str, list[str]]:
    edges: dict[str, list[str]] = {"a0": [], "b0": []}
    for number in range(1, size // 2):
        above = [f"a{number - 1}", f"b{number - 1}"]
        edges |= {f"a{number}": above, f"b{number}": above}
    return edges


def run_through(run: Run) -> int:
    """Complete every node in the order in which they become ready; returns how many were dispatched."""
    resume(run.execution, [], run.now, run.effects)
    queue = deque(run.effects.dispatch)
    dispatched = 0
    while queue:
        execution, node = queue.popleft()
        dispatched += 1
        assert start(execution, node, 1)
        effects = Effects()
        apply_outcome(execution, Outcome("e1", node, 1, b"1", None, 0, 1), effects)
        queue += effects.dispatch
    return dispatched


@pytest.mark.parametrize("size", [10_000, 20_000])
@pytest.mark.parametrize("edges", [chain, fan, ladder])
def test_large_graphs_complete_without_recursion(edges: Callable[[int], dict[str, list[str]]], size: int) -> None:
    run = Run(edges(size))
    with little_stack():
        assert run_through(run) == size
    assert run.execution.state is WorkflowState.COMPLETED
    assert run.execution.sequence == size


@pytest.mark.parametrize("edges", [chain, fan, ladder])
def test_the_work_grows_with_the_nodes(
    edges: Callable[[int], dict[str, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each node is queued once and completed once, however many there are."""
    moves = 0
    move = machine._move

    def count(*arguments: Any) -> None:
        nonlocal moves
        moves += 1
        move(*arguments)

    monkeypatch.setattr(machine, "_move", count)
    for size in (500, 1_000):
        moves = 0
        run_through(Run(edges(size)))
        assert moves == 2 * size


@pytest.mark.parametrize("edges", [chain, fan, ladder])
def test_large_graphs_fail_and_are_cancelled_without_recursion(edges: Callable[[int], dict[str, list[str]]]) -> None:
    ends: tuple[Callable[[Run], None], ...] = (Run.cancel, lambda run: run.ends(next(iter(run.states)), BROKEN))
    for end in ends:
        run = Run(edges(20_000))
        with little_stack():
            end(run)
        assert run.execution.terminal
        assert set(run.states.values()) <= {FAILED, CANCELLED}
        assert len(run.effects.rows) <= 1


def test_a_row_that_the_table_does_not_allow_is_refused() -> None:
    execution = Execution("e", make_graph({"a": []}), b"{}")
    row = AttemptRow("e", 1, "a", 1, NodeState.COMPLETED, b"1", None, 1, 2, None)
    record(execution, row)

    with pytest.raises(IllegalTransition, match="a node cannot go from COMPLETED to COMPLETED"):
        record(execution, row._replace(sequence=2))
