"""The state machine under any order of events: what must hold after every step, and what the rows add up to."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_driver import (
    CANCELLED,
    COMPLETED,
    FAILED,
    FINAL,
    FLAKY,
    QUEUED,
    RUNNING,
    Driver,
    drain,
    make_graph,
    random_graph,
    snapshot,
    step,
)

from workflow_engine.runtime.core import machine
from workflow_engine.runtime.core.graph import Graph
from workflow_engine.runtime.core.machine import (
    AttemptError,
    AttemptRow,
    Effects,
    Execution,
    Outcome,
    apply_cancel,
    apply_outcome,
    apply_retry_due,
)
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, WorkflowState
from workflow_engine.runtime.ports import CommitBatch, ExecutionUpdate, LoadedExecution, NewExecution
from workflow_engine.runtime.store.memory import MemoryStore


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
