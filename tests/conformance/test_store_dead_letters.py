"""What every Store does with executions that FAILED: the contract of `DeadLetterStore` in `runtime/ports.py`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest
from audit import broken_invariants
from commits import LEASE_SECONDS, commit_one, version_of

from workflow_engine.runtime.clock import format_uuid7
from workflow_engine.runtime.core.graph import Graph, NodeDefaults, compile_graph
from workflow_engine.runtime.core.machine import (
    AttemptError,
    AttemptRow,
    Effects,
    Execution,
    Outcome,
    apply_outcome,
    apply_retry_due,
    fold,
    start,
)
from workflow_engine.runtime.core.retry import RetryPolicy
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.errors import IdempotencyConflict
from workflow_engine.runtime.ports import (
    CommitBatch,
    DeadLetterFilter,
    ExecutionFilter,
    ExecutionRecord,
    ExecutionSummary,
    ExecutionUpdate,
    IdempotencyClaim,
    LoadedExecution,
    NewDefinition,
    NewExecution,
    Resolution,
    Store,
    Work,
)

START = 1_700_000_000_000
FAILED, RUNNING = WorkflowState.FAILED, WorkflowState.RUNNING
ALL = DeadLetterFilter()
INPUT = b'{"n": 1}'
BROKEN = AttemptError("Broken", "for good", retryable=False)
FLAKY = AttemptError("Flaky", "again", retryable=True)


def new(number: int, created_at: int = START, partition: int = 0) -> NewExecution:
    return NewExecution(format_uuid7(created_at, number), partition, None, created_at)


def running(number: int, created_at: int = START) -> NewExecution:
    return new(number, created_at)._replace(input_text=INPUT)


def claim(key: str = "key", fingerprint: str = "asked") -> IdempotencyClaim:
    return IdempotencyClaim(key, fingerprint, START)


def graph_of(dependencies: Sequence[Sequence[int]]) -> Graph:
    nodes = [
        {
            "id": f"n{index}",
            "handler": "noop",
            "dependencies": [f"n{before}" for before in needed],
            "retry_config": {"max_retries": 2, "initial_delay": 1, "jitter": False},
        }
        for index, needed in enumerate(dependencies)
    ]
    return compile_graph({"name": "flow", "dag": {"nodes": nodes}}, NodeDefaults(RetryPolicy(), lambda _handler: 60.0))


ONE = graph_of([[]])


def run_to_failure(
    execution_id: str, graph: Graph, chance: random.Random, error: AttemptError
) -> tuple[Execution, Sequence[AttemptRow]]:
    """Random outcomes until `error` is one: how it ended, and its rows."""
    execution = Execution(execution_id, graph, INPUT)
    effects = Effects()
    fails_after = chance.randrange(2 * graph.size)
    for number in range(10_000):
        for node in list(execution.retry_at):
            if chance.random() < 0.5:
                apply_retry_due(execution, node, effects)
        live = [
            node for node, state in enumerate(execution.node_states) if state in (NodeState.QUEUED, NodeState.RUNNING)
        ]
        for node in live:
            if chance.random() < 0.5:
                start(execution, node, execution.attempts[node])
        if live:
            node = chance.choice(live)
            last = execution.remaining == 1 or number >= fails_after
            failed = error if last else chance.choice([None, None, None, FLAKY])
            output = b'"%d"' % number if failed is None else None
            at = START + 10 * number
            apply_outcome(
                execution, Outcome(execution_id, node, execution.attempts[node], output, failed, at, at + 5), effects
            )
        if execution.terminal:
            return execution, effects.rows
    raise AssertionError("it does not end")


async def commit(store: Store, rows: Sequence[AttemptRow], updates: Sequence[ExecutionUpdate]) -> None:
    version = await store.take_partition(0, "owner", await version_of(store, 0), LEASE_SECONDS)
    await commit_one(store, CommitBatch(0, version, rows, updates, ()))


async def fail(
    store: Store,
    number: int,
    *,
    graph: Graph = ONE,
    error: AttemptError = BROKEN,
    name: str = "flow",
    created_at: int = START,
    seed: int = 0,
) -> str:
    """Store an execution that FAILED; its id."""
    definition = NewDefinition(f"id of {name}", name, "digest", b"{}")
    execution_id, _ = await store.create_execution(definition, running(number, created_at))
    execution, rows = run_to_failure(execution_id, graph, random.Random(seed), error)
    await commit(store, rows, [ExecutionUpdate(execution_id, FAILED, execution.error, START + 10_000, None)])
    return execution_id


async def read(store: Store, execution_id: str) -> ExecutionRecord:
    record = await store.read_execution(execution_id)
    assert record is not None
    return record


async def loaded(store: Store, execution_id: str) -> LoadedExecution:
    [found] = await store.load([execution_id])
    return found


async def listed(store: Store, wanted: DeadLetterFilter = ALL, size: int = 100) -> list[str]:
    """The ids of every page."""
    found: list[str] = []
    while page := await store.list_dead_letters(wanted, found[-1] if found else None, size):
        assert len(page) <= size
        found += [each.execution_id for each in page]
    return found


# --- lists --------------------------------------------------------------------------------------------


async def test_a_dead_letter_is_shown_as_a_list_of_executions_shows_it(store: Store) -> None:
    execution_id = await fail(store, 1)
    error = '{"node_id": "n0", "type": "Broken", "message": "for good", "attempt": 1}'
    letter = ExecutionSummary(execution_id, "id of flow", "flow", 1, FAILED, START, START, START + 10_000, error, None)
    assert await store.list_dead_letters(ALL, None, 10) == [letter]
    assert await store.read_dead_letter(execution_id) == letter
    assert await store.list_executions(ExecutionFilter(), None, 10) == [letter]


async def test_what_has_not_failed_is_none(store: Store) -> None:
    ids = {}
    for number, state in enumerate(sorted(WorkflowState)):
        execution = running(number) if state is not WorkflowState.PENDING else new(number)
        ids[state], _ = await store.create_execution("definition", execution)
        if state not in (WorkflowState.PENDING, RUNNING):
            await commit(store, (), [ExecutionUpdate(ids[state], state, None, START + 1, None)])
    assert await listed(store) == [ids[FAILED]]
    for state, execution_id in ids.items():
        assert (await store.read_dead_letter(execution_id) is not None) is (state is FAILED)
    for unknown in ("unknown", ids[FAILED] + "\0"):
        assert await store.read_dead_letter(unknown) is None


async def test_every_filter_finds_what_meets_it_page_by_page(store: Store) -> None:
    draw = random.Random(11)
    names, types = ["a", "b", "c"], ["Broken", "Timeout", "Time"]
    letters: list[tuple[str, str, str, int]] = []
    for number in range(120):
        name, error_type, at = draw.choice(names), draw.choice(types), START + draw.randrange(50)
        error = AttemptError(error_type, draw.choice(types), retryable=False)
        letters.append((await fail(store, number, error=error, name=name, created_at=at), name, error_type, at))
    for letter in draw.sample(letters, 40):
        assert await store.discard(letter[0])
        letters.remove(letter)

    for _ in range(60):
        wanted = DeadLetterFilter(
            draw.choice([None, *names, "unknown", "a\0"]),
            draw.choice([None, *types, "Tim", ""]),
            draw.choice([None, 0, START + draw.randrange(60)]),
            draw.choice([None, START + draw.randrange(60)]),
        )
        expected = [
            execution_id
            for execution_id, name, error_type, at in sorted(letters, reverse=True)
            if wanted.name in (None, name)
            and wanted.error_type in (None, error_type)
            and (wanted.created_from is None or at >= wanted.created_from)
            and (wanted.created_before is None or at < wanted.created_before)
        ]
        assert await listed(store, wanted, draw.choice([1, 7, 1_000])) == expected, wanted


@pytest.mark.parametrize(
    "error_type",
    ['a"b', "a\\", "nul\0", "naïve 日本", "line\nbreak", ', "type": "other", "message": ', "%", "x" * 200],
)
async def test_an_error_type_is_the_whole_type_whatever_its_characters_are(store: Store, error_type: str) -> None:
    meant = await fail(store, 1, error=AttemptError(error_type, "m", retryable=False))
    await fail(store, 2, error=AttemptError("other", f', "type": "{error_type}", "message": ', retryable=False))
    await fail(store, 3, error=AttemptError(f"{error_type} more", error_type, retryable=False))
    await fail(store, 4, error=AttemptError(f"more {error_type}", error_type, retryable=False))
    assert await listed(store, DeadLetterFilter(error_type=error_type)) == [meant]
    assert await listed(store, DeadLetterFilter("flow", error_type)) == [meant]


async def test_attempts_are_listed_the_last_one_first_and_without_outputs(store: Store) -> None:
    graph = graph_of([[], [0], [0], [1, 2], [3]])
    execution_id = await fail(store, 1, graph=graph, seed=3)
    rows = [row._replace(output=None) for row in reversed((await loaded(store, execution_id)).attempts)]
    assert len(rows) > 3
    assert await store.list_attempts(execution_id, None, 100) == rows
    found: list[AttemptRow] = []
    while page := await store.list_attempts(execution_id, found[-1].sequence if found else None, 2):
        assert len(page) <= 2
        found += page
    assert found == rows
    for unknown in ("unknown", execution_id + "\0"):
        assert list(await store.list_attempts(unknown, None, 100)) == []


# --- requeue ------------------------------------------------------------------------------------------


async def test_a_requeued_letter_goes_on_under_a_new_id_with_what_was_completed(opened: Any) -> None:
    store = opened.store
    await store.create_execution(NewDefinition("id of flow", "flow", "digest", b"{}"), running(1))
    old = new(1).execution_id
    rows = [
        AttemptRow(old, 1, "n0", 1, NodeState.FAILED, None, "{}", START, START + 1, START + 2),
        AttemptRow(old, 2, "n2", 1, NodeState.COMPLETED, b'"two"', None, START + 1, START + 3, None),
        AttemptRow(old, 3, "n0", 2, NodeState.COMPLETED, b'"none"', None, START + 2, START + 4, None),
        AttemptRow(old, 4, "n1", 1, NodeState.FAILED, None, "{}", START + 4, START + 5, None),
        AttemptRow(old, 5, "n3", 1, NodeState.CANCELLED, None, None, None, START + 5, None),
    ]
    await commit(store, rows, [ExecutionUpdate(old, FAILED, "{}", START + 5, None)])
    before = await loaded(store, old)

    assert await store.requeue(old, new(2, START + 50, partition=3)) == new(2, START + 50).execution_id
    store = await opened.reopen()
    copy = new(2, START + 50).execution_id
    expected = ExecutionRecord(
        copy, "id of flow", 3, RUNNING, INPUT, None, START + 50, START + 50, None, None, retry_of=old
    )
    assert await store.read_execution(copy) == expected
    after = await loaded(store, copy)
    assert after.record == expected
    assert after.attempts == [
        AttemptRow(copy, 1, "n2", 1, NodeState.COMPLETED, b'"two"', None, START + 1, START + 3, None),
        AttemptRow(copy, 2, "n0", 1, NodeState.COMPLETED, b'"none"', None, START + 2, START + 4, None),
    ]
    assert await store.find_work([3], START + 50, 10) == Work([copy], [], None)
    summary = (await store.list_executions(ExecutionFilter(), None, 1))[0]
    assert (summary.execution_id, summary.name, summary.version, summary.retry_of) == (copy, "flow", 1, old)

    resolved = await loaded(store, old)
    assert resolved == before._replace(record=before.record._replace(resolution=Resolution.REQUEUED))
    assert await listed(store) == []
    assert await store.find_retry(old) == copy
    assert await store.find_retry(copy) is None


async def test_what_is_requeued_folds_to_an_execution_that_runs(store: Store) -> None:
    """Random graphs and histories: what was completed stays so, what failed is queued as a first attempt."""
    draw = random.Random(3)
    kept = 0
    for seed in range(40):
        size = draw.randint(1, 9)
        graph = graph_of([[before for before in range(index) if draw.random() < 0.4] for index in range(size)])
        old = await fail(store, seed, graph=graph, seed=seed)
        copy = await store.requeue(old, new(seed, START + 1_000))
        assert copy is not None
        found = await loaded(store, copy)
        assert broken_invariants(found, graph) == []
        ended = fold(old, graph, INPUT, (await loaded(store, old)).attempts)
        folded = fold(copy, graph, INPUT, found.attempts)
        assert folded.state is RUNNING
        for node, state in enumerate(ended.node_states):
            if state is NodeState.COMPLETED:
                assert folded.node_states[node] is NodeState.COMPLETED
                assert folded.outputs[node] == ended.outputs[node]
            else:
                ready = all(ended.node_states[each] is NodeState.COMPLETED for each in graph.dependencies[node])
                expected = (NodeState.QUEUED, 1) if ready else (NodeState.PENDING, 0)
                assert (folded.node_states[node], folded.attempts[node]) == expected
            if state is NodeState.FAILED:
                assert folded.node_states[node] is NodeState.QUEUED
        kept += len(found.attempts)
    assert kept > 50


async def test_a_large_execution_is_copied_as_a_whole(store: Store) -> None:
    old, _ = await store.create_execution("definition", running(1))
    rows = [
        AttemptRow(old, number, f"n{number}", 1, NodeState.COMPLETED, b"1", None, START, START + number, None)
        for number in range(1, 10_001)
    ]
    failed = AttemptRow(old, 10_001, "last", 1, NodeState.FAILED, None, "{}", START, START, None)
    await commit(store, [*rows, failed], [ExecutionUpdate(old, FAILED, "{}", START, None)])

    copy = await store.requeue(old, new(2))
    assert copy is not None
    assert (await loaded(store, copy)).attempts == [row._replace(execution_id=copy) for row in rows]


async def test_what_is_no_dead_letter_is_not_requeued(store: Store) -> None:
    ids = {}
    for number, state in enumerate(sorted(WorkflowState)):
        execution = running(number) if state is not WorkflowState.PENDING else new(number)
        ids[state], _ = await store.create_execution("definition", execution)
        if state not in (WorkflowState.PENDING, RUNNING):
            await commit(store, (), [ExecutionUpdate(ids[state], state, None, START + 1, None)])
    none = [execution_id for state, execution_id in ids.items() if state is not FAILED]
    none += ["unknown", ids[FAILED] + "\0"]
    before = await store.load(list(ids.values()))

    for number, execution_id in enumerate(none, 100):
        assert await store.requeue(execution_id, new(number)) is None
        assert await store.discard(execution_id) is False
        assert await store.read_execution(new(number).execution_id) is None
    assert await store.load(list(ids.values())) == before


async def test_of_many_at_the_same_time_one_requeues(store: Store) -> None:
    old = await fail(store, 1)
    asked = [store.requeue(old, new(number)) for number in range(2, 22)]
    answers = [each for each in await asyncio.gather(*asked) if each is not None]
    assert len(answers) == 1
    assert await store.find_retry(old) == answers[0]
    assert len(await store.list_executions(ExecutionFilter(), None, 100)) == 2
    assert await store.requeue(old, new(30)) is None


async def test_requeue_and_discard_at_the_same_time_are_one_of_them(store: Store) -> None:
    for number in range(10):
        old = await fail(store, number)
        requeued, discarded = await asyncio.gather(store.requeue(old, new(number, START + 5)), store.discard(old))
        assert (requeued is None) is discarded
        resolution = (await read(store, old)).resolution
        assert resolution is (Resolution.DISCARDED if discarded else Resolution.REQUEUED)
        assert (await store.find_retry(old) is None) is discarded


async def test_an_id_that_is_there_already_is_refused_and_nothing_is_half_done(
    store: Store, contradiction: type[Exception]
) -> None:
    old = await fail(store, 1)
    await store.create_execution("definition", running(2))
    before = await store.load([old, running(2).execution_id])
    with pytest.raises(contradiction):
        await store.requeue(old, new(2), claim())
    assert await store.load([old, running(2).execution_id]) == before
    assert await store.requeue(old, new(3), claim(fingerprint="other")) == new(3).execution_id


async def test_a_retry_that_fails_is_a_dead_letter_again(store: Store) -> None:
    first = await fail(store, 1)
    second = await store.requeue(first, new(2))
    assert second is not None
    rows = [AttemptRow(second, 1, "n0", 1, NodeState.FAILED, None, "{}", START, START, None)]
    await commit(store, rows, [ExecutionUpdate(second, FAILED, "{}", START, None)])

    assert await listed(store) == [second]
    assert (await store.list_dead_letters(ALL, None, 1))[0].retry_of == first
    third = await store.requeue(second, new(3))
    assert third == new(3).execution_id
    assert [await store.find_retry(each) for each in (first, second, third)] == [second, third, None]


async def test_letter_and_retry_are_deleted_each_by_itself(store: Store) -> None:
    old = await fail(store, 1)
    copy = await store.requeue(old, new(2, START + 20_000))
    assert copy is not None
    assert await store.delete_ended_executions(START + 15_000, 10) == 1
    assert await store.read_execution(old) is None
    assert (await read(store, copy)).retry_of == old

    kept = await fail(store, 3, created_at=START + 20_000)
    retry = await store.requeue(kept, new(4, START))
    assert retry is not None
    await commit(store, (), [ExecutionUpdate(retry, WorkflowState.COMPLETED, None, START + 1, None)])
    assert await store.delete_ended_executions(START + 5, 10) == 1
    assert await store.find_retry(kept) is None
    assert (await read(store, kept)).resolution is Resolution.REQUEUED


# --- idempotency claims -------------------------------------------------------------------------------


async def test_a_claimed_requeue_is_answered_the_same_again(opened: Any) -> None:
    old = await fail(opened.store, 1)
    first = await opened.store.requeue(old, new(2), claim())
    assert first == new(2).execution_id
    store = await opened.reopen()
    assert await store.requeue(old, new(3), claim()) == first
    assert await store.read_execution(new(3).execution_id) is None
    assert await store.requeue(old, new(3), claim("another key")) is None


async def test_one_claim_at_the_same_time_is_one_requeue(store: Store) -> None:
    old = await fail(store, 1)
    answers = await asyncio.gather(*(store.requeue(old, new(number), claim()) for number in range(2, 12)))
    assert len({*answers}) == 1
    assert answers[0] == await store.find_retry(old)
    assert len(await store.list_executions(ExecutionFilter(), None, 100)) == 2


async def test_a_claim_that_was_made_for_something_else_is_refused_and_changes_nothing(store: Store) -> None:
    old, other = await fail(store, 1), await fail(store, 2)
    await store.create_execution("definition", new(3), claim())
    assert await store.requeue(other, new(4), claim("another key")) == new(4).execution_id
    before = await store.load([old])

    for key in ("key", "another key"):
        with pytest.raises(IdempotencyConflict):
            await store.requeue(old, new(5), claim(key, "other"))
    assert await store.load([old]) == before
    assert await store.read_execution(new(5).execution_id) is None


async def test_two_letters_under_one_claim_at_the_same_time_are_one_requeue(store: Store) -> None:
    old, other = await fail(store, 1), await fail(store, 2)
    answers = await asyncio.gather(
        store.requeue(old, new(3), claim(fingerprint="1")),
        store.requeue(other, new(4), claim(fingerprint="2")),
        return_exceptions=True,
    )
    assert sorted(type(answer).__name__ for answer in answers) == ["IdempotencyConflict", "str"]
    assert len(await listed(store)) == 1


async def test_a_requeue_that_does_nothing_makes_no_claim(store: Store) -> None:
    assert await store.requeue("unknown", new(2), claim()) is None
    old = await fail(store, 1)
    assert await store.requeue(old, new(2), claim(fingerprint="other")) == new(2).execution_id


# --- discard ------------------------------------------------------------------------------------------


async def test_a_letter_is_discarded_once_and_stays_what_it_was(opened: Any) -> None:
    old = await fail(opened.store, 1)
    before = await loaded(opened.store, old)
    assert await opened.store.discard(old) is True
    store = await opened.reopen()
    assert await store.discard(old) is False
    assert await store.requeue(old, new(2)) is None
    assert await listed(store) == []
    assert await store.read_dead_letter(old) is None
    assert await loaded(store, old) == before._replace(record=before.record._replace(resolution=Resolution.DISCARDED))
    assert (await store.list_executions(ExecutionFilter(), None, 1))[0].state is FAILED


async def test_what_is_resolved_is_changed_by_no_late_commit(store: Store) -> None:
    old = await fail(store, 1)
    await store.discard(old)
    before = await read(store, old)
    await commit(store, (), [ExecutionUpdate(old, RUNNING, None, None, None)])
    assert await read(store, old) == before
