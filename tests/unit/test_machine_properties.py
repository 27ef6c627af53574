"""The state machine under any order of events: what must hold after every step, and what the rows add up to.

`Model` is a second, naive reading of the rules. It looks at the stored rows only and recomputes
everything from them at each step, so it shares no counter with the machine.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from results import output_data

from workflow_engine.runtime.core import machine
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
from workflow_engine.runtime.ports import CommitBatch, ExecutionUpdate, LoadedExecution, NewExecution
from workflow_engine.runtime.store.memory import MemoryStore

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


@settings(max_examples=300)
@given(st.randoms(use_true_random=False), st.integers(0, 60), st.booleans())
def test_everything_holds_after_every_event(chance: random.Random, steps: int, restarts: bool) -> None:
    driver = Driver(random_graph(chance, 8))
    for _ in range(steps):
        step(driver, chance, restarts=restarts)
    drain(driver)
    driver.check_prefixes()
    assert driver.execution.terminal


def bring_down(driver: Driver, chance: random.Random, steps: int) -> None:
    """Random events until something fails for good: after so many steps at the latest, and before everything is
    completed."""
    for number in range(steps + 10 * driver.graph.size):
        execution = driver.execution
        for node in list(execution.retry_at):
            if chance.random() < 0.5 or number >= steps:
                driver.retry_due(node)
        live = [node for node, state in enumerate(execution.node_states) if state in (QUEUED, RUNNING)]
        if not live:
            continue
        node = chance.choice(live)
        if chance.random() < 0.3:
            driver.start(node, execution.attempts[node])
        last = number >= steps or execution.remaining == 1
        driver.outcome(node, execution.attempts[node], FINAL if last else chance.choices([None, FLAKY], [80, 20])[0])
        driver.check()
        if driver.execution.terminal:
            return
    raise AssertionError(f"does not fail: {driver.execution}")


async def requeued(rows: list[AttemptRow], error: str | None) -> LoadedExecution:
    """What an execution that FAILED with these rows is requeued as."""
    store = MemoryStore()
    await store.create_execution("definition", NewExecution("e", 0, b"{}", 0))
    version = await store.take_partition(0, "owner", 0, 60.0)
    failed = ExecutionUpdate("e", WorkflowState.FAILED, error, 1, None)
    assert await store.commit([CommitBatch(0, version, rows, [failed], ())], 60.0) == [version + 1]
    assert await store.requeue("e", NewExecution("copy", 0, None, 2)) == "copy"
    return store.loaded("copy")


@settings(max_examples=200)
@given(st.randoms(use_true_random=False), st.integers(0, 30))
def test_what_is_requeued_goes_on_from_what_was_completed(chance: random.Random, steps: int) -> None:
    failed = Driver(random_graph(chance, 8))
    bring_down(failed, chance, steps)
    assert failed.execution.state is WorkflowState.FAILED
    loaded = asyncio.run(requeued(failed.rows, failed.execution.error))

    copy = Driver(failed.graph)
    copy.rows = list(loaded.attempts)
    copy.restart()
    copy.check()
    for node, state in enumerate(failed.execution.node_states):
        if state is COMPLETED:
            assert copy.execution.node_states[node] is COMPLETED
            assert copy.execution.outputs[node] == failed.execution.outputs[node]
        else:
            assert copy.execution.attempts[node] == (copy.execution.node_states[node] is QUEUED)
    [node] = [node for node, state in enumerate(failed.execution.node_states) if state is FAILED]
    assert copy.execution.node_states[node] is QUEUED
    drain(copy)
    assert copy.execution.state is WorkflowState.COMPLETED


WORDS = st.lists(st.sampled_from([*'"\\,: é\0', '", "type": "', '", "message": "', "Broken"]), max_size=4).map("".join)


@given(WORDS, WORDS, WORDS, WORDS)
def test_the_mark_of_an_error_type_is_in_errors_of_that_type_alone(
    wanted: str, error_type: str, message: str, node_id: str
) -> None:
    error = machine._error_text(node_id, 1, AttemptError(error_type, message, retryable=False))
    assert (machine.error_mark(wanted) in error) is (wanted == error_type)
    assert machine.error_mark(error_type) in error


def test_many_histories_in_which_everything_happens() -> None:
    """The same with fixed seeds and larger graphs; a run in which nothing happened would prove nothing."""
    events: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    row_states: Counter[str] = Counter()
    stale = 0
    for seed in range(1_000):
        chance = random.Random(seed)
        driver = Driver(random_graph(chance, 20))
        for _ in range(chance.randrange(120)):
            step(driver, chance, restarts=seed % 2 == 0)
        drain(driver)
        driver.check_prefixes()
        events += driver.events
        ends[driver.execution.state] += 1
        row_states.update(row.state if row.retry_at is None else "RETRIED" for row in driver.rows)
        stale += driver.stale
    assert min(events.values()) > 50
    assert set(events) == {"outcome", "start", "retry due", "hand back", "stale", "again", "cancel", "restart"}
    assert set(ends) == TERMINAL_WORKFLOW_STATES
    assert min(ends.values()) > 30
    assert set(row_states) == {COMPLETED, FAILED, CANCELLED, "RETRIED"}
    assert min(row_states.values()) > 50
    assert stale > 5_000


def test_events_of_one_batch_are_the_same_as_one_by_one() -> None:
    """A batch shares its effects; nothing else may depend on where batches end."""
    for seed in range(300):
        chance = random.Random(seed)
        graph = random_graph(chance, 12)
        together, apart = Execution("e", graph, b"{}"), Execution("e", graph, b"{}")
        one = Effects()
        many: list[Effects] = []
        for number in range(60):
            node = chance.randrange(graph.size)
            error = chance.choices([None, FLAKY, FINAL], [80, 18, 2])[0]
            output = b"1" if error is None else None
            outcome = Outcome("e", node, together.attempts[node], output, error, number, number)
            many.append(Effects())
            for execution, effects in ((together, one), (apart, many[-1])):
                if chance.random() < 0.05 and execution is together:
                    apply_cancel(together, number, number, one)
                    apply_cancel(apart, number, number, many[-1])
                apply_outcome(execution, outcome, effects)
                if node in execution.retry_at and number % 3 == 0:
                    apply_retry_due(execution, node, effects)
            assert snapshot(together) == snapshot(apart)
        assert one.rows == [row for effects in many for row in effects.rows]
        assert one.commands == [command for effects in many for command in effects.commands]
        assert [node for _, node in one.dispatch] == [node for effects in many for _, node in effects.dispatch]
        assert [t[1:] for t in one.timers] == [t[1:] for effects in many for t in effects.timers]
        assert one.stale == sum(effects.stale for effects in many)
        assert len(one.finished) == sum(len(effects.finished) for effects in many) <= 1


# --- joins ----------------------------------------------------------------------------------------


def fan_in(width: int) -> Graph:
    """`width` nodes without dependencies, and one that waits for all of them."""
    return make_graph([[] for _ in range(width)] + [list(range(width))], [0] * width + [0])


DIAMOND = make_graph([[], [0], [0], [1, 2]], [0] * 4)
LAYERS = make_graph([[], [], [], *[[0, 1, 2]] * 3, *[[3, 4, 5]] * 3, [6, 7, 8]], [0] * 10)


@pytest.mark.parametrize(
    ("graph", "orders"),
    [(DIAMOND, 2_500), (fan_in(3), 2_500), (fan_in(10), 2_500), (LAYERS, 2_400), (fan_in(300), 100)],
    ids=["diamond", "fan-in of 3", "fan-in of 10", "layers", "fan-in of 300"],
)
def test_the_join_runs_exactly_once_in_ten_thousand_completion_orders(graph: Graph, orders: int) -> None:
    """Ten thousand in all five together: random orders, with outcomes handed in up to three times."""
    chance = random.Random(graph.size * 1_000 + orders)
    different = set()
    for _ in range(orders):
        execution = Execution("e", graph, b"{}")
        effects = Effects()
        ready = list(graph.roots)
        dispatched = Counter(ready)
        order = []
        doubled = 0
        while ready:
            node = ready.pop(chance.randrange(len(ready)))
            order.append(node)
            before = len(effects.dispatch)
            copies = chance.choices([1, 2, 3], [6, 3, 1])[0]
            doubled += copies - 1
            for _copy in range(copies):
                apply_outcome(execution, Outcome("e", node, 1, b"1", None, 0, 1), effects)
            for _, after in effects.dispatch[before:]:
                assert set(graph.dependencies[after]) <= set(order), "not before all it waits for"
                ready.append(after)
                dispatched[after] += 1
        assert dispatched == Counter(range(graph.size)), "each node exactly once"
        assert sorted(order) == list(range(graph.size))
        assert len(effects.rows) == graph.size
        assert effects.stale == doubled
        assert effects.finished == [execution]
        assert execution.state is WorkflowState.COMPLETED
        different.add(tuple(order))
    assert len(different) > 1


def test_the_join_is_dispatched_by_whichever_outcome_comes_last() -> None:
    graph = fan_in(5)
    chance = random.Random(5)
    last_ones: Counter[int] = Counter()
    for _ in range(1_000):
        execution = Execution("e", graph, b"{}")
        order = chance.sample(range(5), 5)
        dispatches = []
        for node in order:
            effects = Effects()
            apply_outcome(execution, Outcome("e", node, 1, b"1", None, 0, 1), effects)
            dispatches.append([ready for _, ready in effects.dispatch])
        assert dispatches == [[], [], [], [], [5]]
        last_ones[order[-1]] += 1
    assert set(last_ones) == set(range(5))


# --- the checks themselves ------------------------------------------------------------------------


def test_the_checks_notice_a_join_that_fires_early() -> None:
    """A machine that forgets one dependency has to fail them, or they check nothing."""
    driver = Driver(DIAMOND)
    driver.outcome(0, 1, None)
    driver.check()
    driver.execution.waiting[3] -= 1
    with pytest.raises(AssertionError):
        driver.outcome(1, 1, None)


@pytest.mark.parametrize("broken", ["is_current", "_queue_attempt", "record"])
def test_the_checks_notice_a_machine_that_is_broken(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {name: getattr(machine, name) for name in ("is_current", "_queue_attempt", "record")}

    def accept_everything(execution: Execution, node: int, attempt: int) -> bool:
        return execution.node_states[node] in (QUEUED, RUNNING)

    def forget_to_count(execution: Execution, node: int) -> None:
        whole["_queue_attempt"](execution, node)
        execution.attempts[node] = max(execution.attempts[node] - 1, 1)

    def skip_a_number(execution: Execution, row: AttemptRow) -> Any:
        ready = whole["record"](execution, row)
        execution.sequence += row.sequence % 5 == 4
        return ready

    replacement = {"is_current": accept_everything, "_queue_attempt": forget_to_count, "record": skip_a_number}
    monkeypatch.setattr(machine, broken, replacement[broken])
    with pytest.raises(AssertionError):
        for seed in range(50):
            chance = random.Random(seed)
            driver = Driver(random_graph(chance, 10))
            for _ in range(60):
                step(driver, chance, restarts=False)
            drain(driver)
