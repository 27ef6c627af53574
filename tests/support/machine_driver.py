"""Drives the state machine through any order of events, and checks after each one what must hold.

`Model` is a second, naive reading of the rules. It looks at the stored rows only and recomputes
everything from them at each step, so it shares no counter with the machine.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from results import output_data

from workflow_engine.runtime.core.graph import Graph, NodeDefaults, compile_graph
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
    fold,
    hand_back,
    parked_until,
    resume,
    start,
)
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.core.state import (
    NODE_TRANSITIONS,
    TERMINAL_NODE_STATES,
    TERMINAL_WORKFLOW_STATES,
    NodeState,
    WorkflowState,
)

PENDING, QUEUED, RUNNING = NodeState.PENDING, NodeState.QUEUED, NodeState.RUNNING
COMPLETED, FAILED, CANCELLED = NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED

FINAL = AttemptError("Broken", "for good", retryable=False)
FLAKY = AttemptError("Flaky", "again", retryable=True)


def make_graph(dependencies: list[list[int]], max_retries: list[int]) -> Graph:
    nodes = [
        {
            "id": f"n{index}",
            "handler": "noop",
            "dependencies": [f"n{before}" for before in needed],
            "retry_config": {"max_retries": retries, "initial_delay": 1, "jitter": False},
        }
        for index, (needed, retries) in enumerate(zip(dependencies, max_retries, strict=True))
    ]
    return compile_graph({"name": "test", "dag": {"nodes": nodes}}, NodeDefaults(RetryPolicy(), lambda _handler: 60.0))


def random_graph(chance: random.Random, most_nodes: int) -> Graph:
    """Nodes in a random order of their indexes, each with a random choice of those before it."""
    size = chance.randint(1, most_nodes)
    order = list(range(size))
    chance.shuffle(order)
    density = chance.random()
    dependencies: list[list[int]] = [[] for _ in range(size)]
    for position, index in enumerate(order):
        dependencies[index] = [before for before in order[:position] if chance.random() < density]
    return make_graph(dependencies, [chance.randint(0, 3) for _ in range(size)])


@dataclass
class Model:
    """What the rows mean, recomputed from all of them at each look."""

    graph: Graph
    rows: list[AttemptRow]
    cancelled: bool

    def last(self, node: int) -> AttemptRow | None:
        return next((row for row in reversed(self.rows) if row.node_id == self.graph.node_ids[node]), None)

    def completed(self, node: int) -> bool:
        last = self.last(node)
        return last is not None and last.state is COMPLETED

    @property
    def failure(self) -> AttemptRow | None:
        return next((row for row in self.rows if row.state is FAILED and row.retry_at is None), None)

    @property
    def state(self) -> WorkflowState:
        if self.cancelled:
            return WorkflowState.CANCELLED
        if self.failure is not None:
            return WorkflowState.FAILED
        if all(map(self.completed, range(self.graph.size))):
            return WorkflowState.COMPLETED
        return WorkflowState.RUNNING

    def ready(self, node: int) -> bool:
        return all(map(self.completed, self.graph.dependencies[node]))

    def node_states(self, node: int) -> set[NodeState]:
        """The states that the node may be in: more than one only where no row can tell."""
        last = self.last(node)
        if last is not None and last.state is COMPLETED:
            return {COMPLETED}
        if self.failure is not None and self.failure.node_id == self.graph.node_ids[node] and not self.cancelled:
            return {FAILED}
        if self.state is not WorkflowState.RUNNING:
            return {CANCELLED}
        if not self.ready(node):
            return {PENDING}
        return {QUEUED, RUNNING} if last is None else {PENDING, QUEUED, RUNNING}


def snapshot(execution: Execution) -> tuple[Any, ...]:
    """Everything that could change, copied."""
    return (
        execution.state,
        tuple(execution.node_states),
        tuple(execution.attempts),
        tuple(execution.waiting),
        tuple(execution.outputs),
        execution.remaining,
        execution.active,
        execution.sequence,
        tuple(sorted(execution.retry_at.items())),
        execution.error,
    )


@dataclass
class Driver:
    """An execution with all it has asked for so far; checks everything after every event."""

    graph: Graph
    execution: Execution = field(init=False)
    rows: list[AttemptRow] = field(default_factory=list)
    commands: list[ConsumedCommand] = field(default_factory=list)
    dispatched: Counter[tuple[int, int]] = field(default_factory=Counter)
    sent: list[Outcome] = field(default_factory=list)
    finished: int = 0
    stale: int = 0
    now: int = 1_000
    events: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.execution = Execution("e", self.graph, b"{}")
        effects = Effects()
        resume(self.execution, [], self.now, effects)
        self.absorb(effects)
        self.check()

    # --- events ---

    def outcome(self, node: int, attempt: int, error: AttemptError | None) -> None:
        output = b"%d" % self.now if error is None else None
        self.deliver(Outcome("e", node, attempt, output, error, self.now - 1, self.now))

    def deliver(self, outcome: Outcome) -> None:
        """Hand in an outcome, perhaps one that was handed in before."""
        acceptable = self.execution.node_states[outcome.node] in (QUEUED, RUNNING)
        acceptable = acceptable and self.execution.attempts[outcome.node] == outcome.attempt
        self.sent.append(outcome)
        effects = Effects()
        before = snapshot(self.execution)
        apply_outcome(self.execution, outcome, effects)
        assert effects.stale == (not acceptable)
        if not acceptable:
            assert snapshot(self.execution) == before
            assert not (effects.rows or effects.dispatch or effects.timers or effects.finished or effects.touched)
        self.absorb(effects)

    def cancel(self) -> None:
        ended = self.execution.terminal
        effects = Effects()
        apply_cancel(self.execution, len(self.commands) + 1, self.now, effects)
        assert [command.sequence is None for command in effects.commands] == [ended]
        assert bool(effects.finished) is not ended
        self.absorb(effects)

    def retry_due(self, node: int) -> None:
        waited = node in self.execution.retry_at
        effects = Effects()
        apply_retry_due(self.execution, node, effects)
        assert effects.rows == []
        assert effects.dispatch == ([(self.execution, node)] if waited else [])
        self.absorb(effects)

    def start(self, node: int, attempt: int) -> None:
        may = self.execution.node_states[node] is QUEUED and self.execution.attempts[node] == attempt
        assert start(self.execution, node, attempt) is may
        if may:
            assert self.dispatched[node, attempt] == 1, "nothing starts that was not dispatched"

    def hand_back(self, node: int, attempt: int) -> None:
        may = self.execution.node_states[node] is RUNNING and self.execution.attempts[node] == attempt
        assert hand_back(self.execution, node, attempt) is may

    def restart(self) -> None:
        """Forget everything but the rows, and go on from there; some of what ran still does."""
        running = [
            (node, self.execution.attempts[node])
            for node, state in enumerate(self.execution.node_states)
            if state is RUNNING and node % 2
        ]
        self.execution = self.folded()
        self.dispatched = Counter(
            {(self.graph.index_of[row.node_id], row.attempt): 1 for row in self.rows if row.state is not CANCELLED}
        )
        effects = Effects()
        resume(self.execution, running, self.now, effects)
        assert {(node, self.execution.attempts[node]) for _, node in effects.dispatch}.isdisjoint(running)
        for node, attempt in running:
            assert self.execution.node_states[node] is RUNNING
            self.dispatched[node, attempt] += 1
        assert {node for _, node, _ in effects.timers} == set(self.execution.retry_at)
        self.absorb(effects)

    # --- checks ---

    def absorb(self, effects: Effects) -> None:
        self.rows += effects.rows
        self.commands += effects.commands
        self.finished += len(effects.finished)
        self.stale += effects.stale
        for execution, node in effects.dispatch:
            assert execution is self.execution
            assert self.execution.terminal or all(
                self.execution.node_states[before] is COMPLETED for before in self.graph.dependencies[node]
            )
            self.dispatched[node, self.execution.attempts[node]] += 1
        self.now += 10

    @property
    def cancelled_at(self) -> int | None:
        return next((command.sequence for command in self.commands if command.sequence is not None), None)

    def folded(self, rows: Iterable[AttemptRow] | None = None) -> Execution:
        return fold("e", self.graph, b"{}", self.rows if rows is None else rows, self.cancelled_at)

    def check(self) -> None:
        self.check_rows()
        self.check_against_the_model()
        self.check_counters()
        self.check_fold()

    def check_rows(self) -> None:
        sequences = [row.sequence for row in self.rows]
        if self.cancelled_at is not None:
            sequences.append(self.cancelled_at)
        assert sorted(sequences) == list(range(1, self.execution.sequence + 1)), "dense"
        assert [row.sequence for row in self.rows] == sorted(row.sequence for row in self.rows)
        accepted = Counter((row.node_id, row.attempt) for row in self.rows)
        assert set(accepted.values()) <= {1}, "each attempt has one outcome"
        for node, node_id in enumerate(self.graph.node_ids):
            attempts = [row.attempt for row in self.rows if row.node_id == node_id]
            assert attempts == list(range(1, len(attempts) + 1)), "attempts are dense"
            assert len(attempts) <= self.graph.retry_policies[node].max_retries + 1
            assert all(
                row.retry_at is not None for row in self.rows if row.node_id == node_id and row.attempt < len(attempts)
            )
        completed: set[str] = set()
        for row in self.rows:
            needed = {
                self.graph.node_ids[before] for before in self.graph.dependencies[self.graph.index_of[row.node_id]]
            }
            assert needed <= completed, "no outcome before those of all dependencies"
            if row.state is COMPLETED:
                completed.add(row.node_id)

    def check_against_the_model(self) -> None:
        model = Model(self.graph, self.rows, self.cancelled_at is not None)
        execution = self.execution
        assert execution.state is model.state
        for node, state in enumerate(execution.node_states):
            assert state in model.node_states(node)
        assert execution.error == (
            model.failure.error if execution.state is WorkflowState.FAILED and model.failure else None
        )
        for node in range(self.graph.size):
            last = model.last(node)
            expected = last.output if last is not None and last.state is COMPLETED else None
            assert execution.outputs[node] == expected

    def check_counters(self) -> None:
        execution, graph = self.execution, self.graph
        in_flight = [node for node, state in enumerate(execution.node_states) if state in (QUEUED, RUNNING)]
        assert execution.active == len(in_flight)
        assert execution.remaining == sum(state is not COMPLETED for state in execution.node_states)
        for node in range(graph.size):
            open_needs = sum(execution.node_states[before] is not COMPLETED for before in graph.dependencies[node])
            assert execution.waiting[node] == open_needs
        assert all(execution.node_states[node] is PENDING for node in execution.retry_at)
        assert set(self.dispatched.values()) <= {1}, "each attempt is dispatched once"
        for node in in_flight:
            assert self.dispatched[node, execution.attempts[node]] == 1, "what is queued was dispatched"
        assert self.finished == execution.terminal
        if execution.terminal:
            assert execution.active == 0
            assert set(execution.node_states) <= TERMINAL_NODE_STATES
        else:
            assert in_flight or execution.retry_at, "something goes on, or waits for a retry"
            parked = parked_until(execution)
            assert (parked is None) is bool(in_flight)
            assert parked is None or parked == min(due for due, _ in execution.retry_at.values())
        assert (output_data(execution) is not None) is (execution.state is WorkflowState.COMPLETED)

    def check_fold(self) -> None:
        """The rows and the cancel give the live state. They do not tell what runs, or which retry was due by now."""
        folded = self.folded()
        for node, state in enumerate(self.execution.node_states):
            if state in (QUEUED, RUNNING) and node in folded.retry_at:
                apply_retry_due(folded, node, Effects())
            unstarted = state is CANCELLED and self.execution.attempts[node] == folded.attempts[node] + 1
            if unstarted:
                assert (self.graph.node_ids[node], self.execution.attempts[node]) not in {
                    (row.node_id, row.attempt) for row in self.rows
                }
                folded.attempts[node] += 1
        live = snapshot(self.execution)
        states = tuple(QUEUED if state is RUNNING else state for state in live[1])
        assert snapshot(folded) == (live[0], states, *live[2:])

    def check_prefixes(self) -> None:
        """Whatever had been stored when the process died is a state, and leads on to the next by legal transitions."""
        before: Execution | None = None
        for length in range(len(self.rows) + 1):
            prefix = fold("e", self.graph, b"{}", self.rows[:length])
            model = Model(self.graph, self.rows[:length], cancelled=False)
            if not any(row.state is CANCELLED for row in self.rows[:length]) or self.cancelled_at is None:
                assert prefix.state is model.state
            if before is not None:
                for earlier, later in zip(before.node_states, prefix.node_states, strict=True):
                    assert later in reachable(earlier)
                assert before.state not in TERMINAL_WORKFLOW_STATES or prefix.state is before.state
            before = prefix


def reachable(state: NodeState) -> set[NodeState]:
    found = {state}
    stack = [state]
    while stack:
        for after in NODE_TRANSITIONS[stack.pop()]:
            if after not in found:
                found.add(after)
                stack.append(after)
    return found


def step(driver: Driver, chance: random.Random, *, restarts: bool) -> None:
    """One random event, sensible or not."""
    execution = driver.execution
    node = chance.randrange(driver.graph.size)
    attempt = execution.attempts[node]
    kind = chance.choices(
        ["outcome", "start", "retry due", "hand back", "stale", "again", "cancel", "restart"],
        [40, 20, 12, 6, 8, 8, 1, 3 if restarts else 0],
    )[0]
    ended_before = snapshot(execution) if execution.terminal else None
    if kind == "outcome":
        driver.outcome(node, attempt, chance.choices([None, FLAKY, FINAL], [80, 17, 3])[0])
    elif kind == "start":
        driver.start(node, chance.choice([attempt, attempt, attempt, attempt - 1, attempt + 1]))
    elif kind == "retry due":
        driver.retry_due(node)
    elif kind == "hand back":
        driver.hand_back(node, chance.choice([attempt, attempt, attempt + 1]))
    elif kind == "stale":
        driver.outcome(node, attempt + chance.choice([-2, -1, 1, 2]), chance.choice([None, FLAKY, FINAL]))
    elif kind == "again" and driver.sent:
        driver.deliver(chance.choice(driver.sent))
    elif kind == "cancel":
        driver.cancel()
    elif kind == "restart" and not execution.terminal:
        driver.restart()
    driver.events[kind] += 1
    if ended_before is not None:
        assert snapshot(execution) == ended_before, "what has ended never changes"
    driver.check()


def drain(driver: Driver) -> None:
    """Let everything that goes on succeed, and every retry come due, until nothing is left."""
    for _ in range(4 * driver.graph.size + 1):
        execution = driver.execution
        if execution.terminal:
            return
        for node in list(execution.retry_at):
            driver.retry_due(node)
        for node, state in enumerate(list(execution.node_states)):
            if state in (QUEUED, RUNNING):
                driver.outcome(node, execution.attempts[node], None)
        driver.check()
    raise AssertionError(f"does not end: {driver.execution}")
