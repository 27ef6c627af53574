"""What every Store keeps of lost deliveries, and what a worker reads of executions it does not own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from commits import LEASE_SECONDS, commit_one, version_of

from workflow_engine.runtime.clock import uuid7_floor
from workflow_engine.runtime.core.machine import AttemptRow, Suspicion
from workflow_engine.runtime.core.shares import NOBODY, PartitionRecord
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.errors import PartitionLost
from workflow_engine.runtime.ports import CommitBatch, ExecutionUpdate, LoadedExecution, NewExecution, Store

NO_TIME = 0.0


def row(execution_id: str, sequence: int, node_id: str, attempt: int = 1) -> AttemptRow:
    """A completed attempt whose output tells it from all others."""
    output = f"{execution_id} {node_id} {attempt}".encode()
    return AttemptRow(execution_id, sequence, node_id, attempt, NodeState.COMPLETED, output, None, 1, 2, None)


async def create(store: Store, *ids: str) -> None:
    for execution_id in ids:
        await store.create_execution("def", NewExecution(execution_id, 0, b"{}", 1))


async def take(store: Store) -> int:
    return await store.take_partition(0, "owner", await version_of(store, 0), LEASE_SECONDS)


async def commit(store: Store, suspicions: Sequence[Suspicion], attempts: Sequence[AttemptRow] = ()) -> int:
    """Commit as whoever has just taken the partition."""
    return await commit_one(store, CommitBatch(0, await take(store), attempts, (), (), suspicions))


async def suspicions_of(store: Store, execution_id: str) -> list[Suspicion]:
    [loaded] = await store.load([execution_id])
    return list(loaded.suspicions)


async def nodes_of(store: Store, wanted: dict[str, Any]) -> dict[str, LoadedExecution]:
    found = await store.load_nodes(wanted)
    by_id = {each.record.execution_id: each for each in found}
    assert len(by_id) == len(found), "an execution was loaded twice"
    return by_id


# --- lost deliveries --------------------------------------------------------------------------------


async def test_lost_deliveries_are_loaded_by_node_and_attempt(opened: Any) -> None:
    await create(opened.store, "e1", "e2", "e3")
    b, a2, a1 = Suspicion("e1", "b", 1, 1), Suspicion("e1", "a", 2, 3), Suspicion("e1", "a", 1, 2)
    other = Suspicion("e2", "a", 1, 9)
    await commit(opened.store, [b, a2, other, a1])
    await opened.reopen()
    assert await suspicions_of(opened.store, "e1") == [a1, a2, b]
    assert await suspicions_of(opened.store, "e2") == [other]
    assert await suspicions_of(opened.store, "e3") == []
    shown = await opened.store.read_execution_state("e1")
    assert shown is not None
    assert list(shown.suspicions) == [a1, a2, b]


async def test_what_is_known_later_replaces_what_was_known(store: Store) -> None:
    await create(store, "e1")
    await commit(store, [Suspicion("e1", "a", 1, 1), Suspicion("e1", "b", 1, 1)])
    await commit(store, [Suspicion("e1", "a", 1, 2), Suspicion("e1", "a", 2, 1)])
    expected = [Suspicion("e1", "a", 1, 2), Suspicion("e1", "a", 2, 1), Suspicion("e1", "b", 1, 1)]
    assert await suspicions_of(store, "e1") == expected
    await commit(store, [Suspicion("e1", "b", 1, 2), Suspicion("e1", "b", 1, 3)])
    assert await suspicions_of(store, "e1") == [*expected[:2], Suspicion("e1", "b", 1, 3)], "of two, the last"


@pytest.mark.parametrize("size", [1, 31, 257, 1_000])
async def test_batches_of_every_size_are_written_whole(store: Store, size: int) -> None:
    await create(store, "e1")
    for lost in (1, 2):
        expected = [Suspicion("e1", f"n{number:04}", 1, lost) for number in range(size)]
        await commit(store, expected)
        assert await suspicions_of(store, "e1") == expected


async def test_a_commit_that_is_fenced_off_writes_no_suspicion(store: Store) -> None:
    await create(store, "e1")
    former = await take(store)
    present = await take(store)
    with pytest.raises(PartitionLost):
        await commit_one(store, CommitBatch(0, former, (), (), (), [Suspicion("e1", "a", 1, 1)]))
    assert await suspicions_of(store, "e1") == []

    await commit_one(store, CommitBatch(0, present, (), (), (), [Suspicion("e1", "a", 1, 2)]))
    for version in (former, present):
        with pytest.raises(PartitionLost):
            await commit_one(store, CommitBatch(0, version, (), (), (), [Suspicion("e1", "a", 1, 9)]))
    assert await suspicions_of(store, "e1") == [Suspicion("e1", "a", 1, 2)]


async def test_of_batches_of_several_partitions_only_what_is_held_is_suspected(store: Store) -> None:
    batches = []
    for number in (0, 1, 2):
        await store.create_execution("def", NewExecution(f"e{number}", number, b"{}", 1))
        version = await store.take_partition(number, "owner", 0, LEASE_SECONDS)
        suspicion = Suspicion(f"e{number}", "a", 1, 1)
        batches.append(CommitBatch(number, version - (number == 1), (), (), (), [suspicion]))
    assert await store.commit(batches, LEASE_SECONDS) == [2, None, 2]
    assert [len(await suspicions_of(store, f"e{number}")) for number in (0, 1, 2)] == [1, 0, 1]


async def test_a_refused_outcome_takes_the_suspicions_of_its_batch_with_it(
    store: Store, contradiction: type[Exception]
) -> None:
    await create(store, "e1")
    version = await commit(store, (), [row("e1", 1, "a")])
    with pytest.raises(contradiction):
        await store.commit(
            [CommitBatch(0, version, [row("e1", 2, "a")], (), (), [Suspicion("e1", "b", 1, 1)])], LEASE_SECONDS
        )
    assert await suspicions_of(store, "e1") == []


async def test_suspicions_are_deleted_with_their_executions(store: Store) -> None:
    old, young = uuid7_floor(1_000), uuid7_floor(2_000)
    await create(store, old, young)
    ended = [ExecutionUpdate(each, WorkflowState.COMPLETED, None, 3_000, None) for each in (old, young)]
    suspicions = [Suspicion(each, "a", 1, 1) for each in (old, young)]
    await commit_one(store, CommitBatch(0, await take(store), (), ended, (), suspicions))
    assert await store.delete_ended_executions(3_001, 1) == 1
    await create(store, old)
    assert await suspicions_of(store, old) == []
    assert await suspicions_of(store, young) == [suspicions[1]]


# --- some nodes of some executions ------------------------------------------------------------------


async def test_nodes_are_loaded_with_outputs_and_suspicions_and_without_the_rest(store: Store) -> None:
    await create(store, "e1", "e2", "e3")
    failed = row("e1", 2, "b")._replace(state=NodeState.FAILED, output=None, error="é", retry_at=5)
    of_one = [row("e1", 1, "a"), failed, row("e1", 3, "b", 2), row("e1", 4, "c")]
    of_two = [row("e2", 1, "c"), row("e2", 2, "b"), row("e2", 3, "a")]
    suspected = [Suspicion("e1", "b", 1, 2), Suspicion("e1", "c", 1, 1), Suspicion("e2", "b", 1, 1)]
    await commit(store, suspected, [*of_two, *of_one, row("e3", 1, "a")])
    await store.add_cancel("e1", 50)

    found = await nodes_of(store, {"e1": ["c", "b", "b", "absent"], "unknown": ["a"], "e2": {"a"}, "e3": ()})
    assert set(found) == {"e1", "e2", "e3"}
    assert list(found["e1"].attempts) == of_one[1:]
    assert list(found["e1"].suspicions) == suspected[:2]
    assert (list(found["e2"].attempts), list(found["e2"].suspicions)) == (of_two[2:], [])
    assert (list(found["e3"].attempts), list(found["e3"].suspicions)) == ([], [])
    assert [list(each.commands) for each in found.values()] == [[], [], []]
    for execution_id, each in found.items():
        assert each.record == await store.read_execution(execution_id)


async def test_where_nothing_is_asked_for_nothing_is_found(store: Store) -> None:
    assert list(await store.load_nodes({})) == []
    assert list(await store.load_nodes({"unknown": (), "another": ["a"]})) == []


async def test_texts_with_a_nul_find_nothing_and_shift_nothing(store: Store) -> None:
    await create(store, "e1", "e2")
    await commit(store, [Suspicion("e2", "b", 1, 1)], [row("e1", 1, "a"), row("e1", 2, "b"), row("e2", 1, "b")])
    found = await nodes_of(store, {"e1\0": ["a"], "e1": ["a\0", "b"], "e2": ["\0", "b"]})
    assert {each: list(found[each].attempts) for each in found} == {
        "e1": [row("e1", 2, "b")],
        "e2": [row("e2", 1, "b")],
    }
    assert list(found["e2"].suspicions) == [Suspicion("e2", "b", 1, 1)]


async def test_a_node_with_ten_thousand_dependencies_is_loaded(store: Store) -> None:
    await create(store, "e1")
    names = [f"n{number:05} 日本'\"" for number in range(10_001)]
    rows = [row("e1", number, name) for number, name in enumerate(names)]
    await commit(store, (), rows)
    found = await nodes_of(store, {"e1": set(names[:-1])})
    assert list(found["e1"].attempts) == rows[:-1]


async def test_nodes_of_many_executions_are_not_mixed_up(store: Store) -> None:
    ids = [f"e{number:03}" for number in range(100)]
    await create(store, *ids)
    rows = {each: [row(each, number, f"n{number}") for number in range(6)] for each in ids}
    suspicions = {each: [Suspicion(each, f"n{number}", 1, number + 1) for number in range(6)] for each in ids}
    await commit(
        store,
        [suspicion for each in ids for suspicion in suspicions[each]],
        [attempt for each in ids for attempt in rows[each]],
    )
    found = await nodes_of(
        store, {each: [f"n{(place + step) % 6}" for step in range(3)] for place, each in enumerate(ids)}
    )
    for place, each in enumerate(ids):
        kept = sorted((place + step) % 6 for step in range(3))
        assert list(found[each].attempts) == [rows[each][number] for number in kept]
        assert list(found[each].suspicions) == [suspicions[each][number] for number in kept]


# --- who owned a partition before -------------------------------------------------------------------


async def partition(store: Store) -> PartitionRecord:
    look = await store.look("observer", LEASE_SECONDS)
    return next(each for each in look.partitions if each.partition == 0)


async def test_what_was_left_without_a_word_shows_its_owner_and_what_was_released_does_not(opened: Any) -> None:
    assert (await partition(opened.store)).owner == NOBODY
    assert await opened.store.take_partition(0, "a", 0, NO_TIME) == 1

    left = await partition(await opened.reopen())
    assert (left.version, left.owner, left.expires_in_seconds <= 0) == (1, "a", True)
    assert await opened.store.take_partition(0, "b", 1, NO_TIME) == 2
    assert (await partition(opened.store)).owner == "b"

    assert await opened.store.release_partition(0, 2) is True
    released = await partition(await opened.reopen())
    assert (released.version, released.owner, released.expires_in_seconds <= 0) == (3, NOBODY, True)
