"""What the audit reads of every Store, and what it finds: the contract of `Histories` in `runtime/audit.py`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from commits import LEASE_SECONDS, commit_one, version_of

from workflow_engine.runtime import audit
from workflow_engine.runtime.audit import Auditor, ClaimRecord, Histories, Report
from workflow_engine.runtime.clock import SystemClock, format_uuid7
from workflow_engine.runtime.core.machine import AttemptRow, ConsumedCommand, Suspicion
from workflow_engine.runtime.core.shares import partition_of
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.errors import ExecutionNotFound, StoreUnavailable
from workflow_engine.runtime.ports import (
    CommitBatch,
    ExecutionUpdate,
    IdempotencyClaim,
    NewDefinition,
    NewExecution,
    Store,
)

START = 1_700_000_000_000
NODES = [
    {"id": "a", "handler": "noop", "retry_config": {"max_retries": 1}},
    {"id": "b", "handler": "noop", "dependencies": ["a"]},
]
DEFINITION = NewDefinition("d", "flow", "digest", json.dumps({"name": "flow", "dag": {"nodes": NODES}}).encode())
INPUT = b'{"n": 1}'
ERROR = '{"type": "Broken"}'


@pytest.fixture
async def histories(opened: Any) -> AsyncIterator[Histories]:
    """The store under test as the audit reads it, while the store is open."""
    histories = opened.kind.histories(opened.store)
    await histories.open()
    yield histories
    await histories.close()


def id_of(number: int, created_at: int = START) -> str:
    return format_uuid7(created_at, number)


async def create(store: Store, number: int, *, created_at: int = START, claim: IdempotencyClaim | None = None) -> str:
    execution_id = id_of(number, created_at)
    partition = partition_of(execution_id, store.partitions)
    await store.create_execution(DEFINITION, NewExecution(execution_id, partition, INPUT, created_at), claim)
    return execution_id


def completed(execution_id: str, sequence: int, node_id: str, attempt: int = 1) -> AttemptRow:
    return AttemptRow(execution_id, sequence, node_id, attempt, NodeState.COMPLETED, b"1", None, START, START + 1, None)


def failed(execution_id: str, sequence: int, node_id: str, retry_at: int | None = None) -> AttemptRow:
    return AttemptRow(execution_id, sequence, node_id, 1, NodeState.FAILED, None, ERROR, START, START + 1, retry_at)


async def commit(
    store: Store,
    execution_id: str,
    rows: Sequence[AttemptRow],
    state: WorkflowState,
    *,
    commands: Sequence[ConsumedCommand] = (),
    suspicions: Sequence[Suspicion] = (),
    **update: Any,
) -> None:
    """Commit as the owner; what has ended did so a second after it was started."""
    partition = partition_of(execution_id, store.partitions)
    version = await store.take_partition(partition, "owner", await version_of(store, partition), LEASE_SECONDS)
    ended = None if state is WorkflowState.RUNNING else START + 1_000
    values = {"error": None, "completed_at": ended, "parked_until": None, **update}
    changed = ExecutionUpdate(execution_id, state, **values)
    await commit_one(store, CommitBatch(partition, version, rows, [changed], commands, suspicions))


async def audited(histories: Histories, **question: Any) -> Report:
    settings = {name: question.pop(name) for name in ("settled", "kept_from") if name in question}
    return await Auditor(histories, SystemClock(), **settings).run(**question)


def found(report: Report) -> list[tuple[str, str]]:
    return [(each.invariant, each.execution_id) for each in report.findings]


async def make_one_of_each(store: Store) -> None:
    """Completed after a retry, failed, cancelled, requeued, discarded, pending, waiting for a retry, begun."""
    one = await create(store, 1, claim=IdempotencyClaim("one", "asked", START))
    rows = [failed(one, 1, "a", START + 2), completed(one, 2, "a", 2), completed(one, 3, "b")]
    await commit(store, one, rows, WorkflowState.COMPLETED, suspicions=[Suspicion(one, "a", 2, 3)])
    for number in (2, 3, 4):
        dead = await create(store, number)
        rows = [completed(dead, 1, "a"), failed(dead, 2, "b")]
        await commit(store, dead, rows, WorkflowState.FAILED, error=ERROR)
    again = id_of(20)
    new = NewExecution(again, partition_of(again, store.partitions), None, START)
    assert await store.requeue(id_of(3), new, IdempotencyClaim("again", "asked", START)) == again
    assert await store.discard(id_of(4))
    cancelled = await create(store, 5)
    await store.add_cancel(cancelled, START)
    await store.add_cancel(cancelled, START)
    commands = [
        ConsumedCommand(command.command_id, None if place else 2, cancelled)
        for place, command in enumerate(await store.read_cancels([cancelled]))
    ]
    stopped = AttemptRow(cancelled, 3, "b", 1, NodeState.CANCELLED, None, None, None, START, None)
    rows = [completed(cancelled, 1, "a"), stopped]
    await commit(store, cancelled, rows, WorkflowState.CANCELLED, commands=commands)
    pending = id_of(6)
    await store.create_execution("d", NewExecution(pending, partition_of(pending, store.partitions), None, START))
    waiting = await create(store, 7)
    far = SystemClock().now() + 3_600_000
    await commit(store, waiting, [failed(waiting, 1, "a", far)], WorkflowState.RUNNING, parked_until=far)
    await create(store, 8)


async def test_an_empty_store_is_clean(histories: Histories) -> None:
    report = await audited(histories)
    assert (report.executions, report.idempotency_keys, report.found) == (0, 0, 0)


async def test_every_kind_of_history_is_clean(
    store: Store, histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    await make_one_of_each(store)
    monkeypatch.setattr(audit, "EXECUTIONS_AT_ONCE", 2)
    monkeypatch.setattr(audit, "CLAIMS_AT_ONCE", 1)
    report = await audited(histories)
    assert [str(each) for each in report.findings] == []
    assert (report.executions, report.nodes, report.attempts, report.idempotency_keys) == (9, 18, 13, 2)


async def test_of_a_settled_system_what_runs_is_found(store: Store, histories: Histories) -> None:
    await make_one_of_each(store)
    report = await audited(histories, settled=True)
    assert found(report) == [("I1", id_of(7)), ("I1", id_of(8)), ("I1", id_of(20))]


async def test_what_does_not_add_up_is_found(
    store: Store, histories: Histories, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await create(store, 1)
    await commit(store, one, [completed(one, 1, "b")], WorkflowState.RUNNING)
    two = await create(store, 2)
    await commit(store, two, [completed(two, 1, "a"), completed(two, 2, "b")], WorkflowState.FAILED)
    report = await audited(histories)
    assert found(report) == [("I7", one), ("I13", one), ("I13", two)]
    assert (report.findings[0].node_id, report.findings[0].attempt) == ("b", 1)
    monkeypatch.setattr(audit, "MOST_FINDINGS", 1)
    report = await audited(histories)
    assert (report.found, found(report)) == (3, [("I7", one)])


async def test_an_execution_in_the_wrong_partition_is_found(store: Store, histories: Histories) -> None:
    execution_id = id_of(1)
    partition = partition_of(execution_id, store.partitions) + 1
    await store.create_execution(DEFINITION, NewExecution(execution_id, partition, INPUT, START))
    assert found(await audited(histories)) == [("I22", execution_id)]


async def test_a_definition_that_is_not_there_or_cannot_be_read_is_found(store: Store, histories: Histories) -> None:
    for number, definition in enumerate([NewDefinition("x", "x", "x", b"{"), NewDefinition("y", "y", "y", b"{}"), "z"]):
        execution_id = id_of(number)
        partition = partition_of(execution_id, store.partitions)
        await store.create_execution(definition, NewExecution(execution_id, partition, INPUT, START))
    report = await audited(histories)
    assert found(report) == [("I2", id_of(0)), ("I2", id_of(1)), ("I2", id_of(2))]
    assert "z is not there" in report.findings[2].message


async def test_only_what_was_asked_for_is_looked_at(store: Store, histories: Histories) -> None:
    old, new = await create(store, 1), await create(store, 0, created_at=START + 1)
    assert (await audited(histories, created_from=START + 1)).executions == 1
    assert (await audited(histories, created_from=START)).executions == 2
    assert found(await audited(histories, execution_ids=[new, new], settled=True)) == [("I1", new)]
    with pytest.raises(ExecutionNotFound, match="absent"):
        await audited(histories, execution_ids=[old, "absent"])


async def test_a_key_whose_execution_is_gone_is_found_unless_it_may_have_been_deleted(
    store: Store, histories: Histories
) -> None:
    gone = await create(store, 1, claim=IdempotencyClaim("key", "asked", START))
    await create(store, 2, claim=IdempotencyClaim("other", "asked", START))
    rows = [completed(gone, 1, "a"), completed(gone, 2, "b")]
    await commit(store, gone, rows, WorkflowState.COMPLETED)
    assert await store.delete_ended_executions(START + 2_000, 10) == 1
    assert found(await audited(histories)) == [("I2", gone)]
    assert found(await audited(histories, kept_from=START)) == [("I2", gone)]
    assert found(await audited(histories, kept_from=START + 1)) == []


async def test_half_of_a_dead_letter_that_was_requeued_is_found_unless_it_may_have_been_deleted(
    store: Store, histories: Histories
) -> None:
    dead = await create(store, 1)
    await commit(store, dead, [failed(dead, 1, "a")], WorkflowState.FAILED, error=ERROR)
    again = id_of(2, START + 5_000)
    new = NewExecution(again, partition_of(again, store.partitions), None, START + 5_000)
    assert await store.requeue(dead, new) == again
    assert found(await audited(histories)) == []
    assert await store.delete_ended_executions(START + 2_000, 10) == 1
    assert found(await audited(histories)) == [("I2", again)]
    assert found(await audited(histories, kept_from=START + 1)) == []


async def test_outlines_are_all_but_inputs_and_outputs(store: Store, histories: Histories) -> None:
    await make_one_of_each(store)
    ids = await histories.list_execution_ids("", 100)
    whole = {each.record.execution_id: each for each in await histories.load([*ids, "absent"])}
    assert whole == {each.record.execution_id: each for each in await store.load(ids)}
    outlines = {each.record.execution_id: each for each in await histories.load_outlines([*ids, "absent"])}
    assert set(outlines) == set(whole) == set(ids)
    for execution_id, outline in outlines.items():
        expected = whole[execution_id]
        texts = [outline.record.input_text, *(row.output for row in outline.attempts)]
        of_whole = [expected.record.input_text, *(row.output for row in expected.attempts)]
        assert texts == [None if text is None else b"" for text in of_whole]
        assert [row._replace(output=None) for row in outline.attempts] == [
            row._replace(output=None) for row in expected.attempts
        ]
        assert outline.record._replace(input_text=None) == expected.record._replace(input_text=None)
        assert (list(outline.commands), list(outline.suspicions)) == (
            list(expected.commands),
            list(expected.suspicions),
        )


async def test_identifiers_and_claims_come_page_by_page(store: Store, histories: Histories) -> None:
    ids = [
        await create(store, number, claim=IdempotencyClaim(f"key{number}", "asked", START + number))
        for number in (3, 1, 2)
    ]
    assert await histories.list_execution_ids("", 2) == sorted(ids)[:2]
    assert await histories.list_execution_ids(sorted(ids)[1], 2) == sorted(ids)[2:]
    claims = [ClaimRecord(f"key{number}", id_of(number), "d", START + number) for number in (1, 2, 3)]
    assert list(await histories.list_claims("", 2)) == claims[:2]
    assert list(await histories.list_claims("key2", 2)) == claims[2:]


async def test_partitions_definitions_and_retries_are_those_of_the_store(store: Store, histories: Histories) -> None:
    await make_one_of_each(store)
    there = [each._replace(expires_in_seconds=0.0) for each in await store.read_partitions()]
    assert [each._replace(expires_in_seconds=0.0) for each in await histories.read_partitions()] == there
    assert await histories.read_definition("d") == await store.read_definition("d")
    assert await histories.read_definition("absent") is None
    assert await histories.find_retry(id_of(3)) == id_of(20)
    assert await histories.find_retry(id_of(4)) is None


async def test_what_is_closed_reads_no_more(opened: Any) -> None:
    histories = opened.kind.histories(opened.store)
    await histories.close()
    await histories.open()
    await histories.close()
    await histories.close()
    if opened.kind.refuses_when_closed:
        with pytest.raises(StoreUnavailable):
            await histories.read_partitions()
