"""What every Store does for replicas that share partitions: the contract of `runtime/ports.py`.

A lease of no time has run out at once, and one of hours does not run out during a test: nothing here waits.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from workflow_engine.runtime.core.machine import AttemptRow
from workflow_engine.runtime.core.shares import NOBODY, PartitionRecord
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.errors import PartitionLost
from workflow_engine.runtime.ports import CommitBatch, ExecutionUpdate, NewExecution, Store

LONG_SECONDS = 36_000.0
NO_TIME = 0.0


@pytest.fixture
def shared(opened: Any) -> Store:
    """A store that several processes may use."""
    if not opened.kind.has_leases:
        pytest.skip("this store is one process's")
    store: Store = opened.store
    return store


async def partition(store: Store, number: int) -> PartitionRecord:
    look = await store.look("observer", LONG_SECONDS)
    return next(each for each in look.partitions if each.partition == number)


def empty(number: int, version: int) -> CommitBatch:
    return CommitBatch(number, version, (), (), ())


async def test_a_new_store_has_its_partitions_and_nobody_owns_them(shared: Store) -> None:
    look = await shared.look("a", LONG_SECONDS)
    assert [each.partition for each in look.partitions] == list(range(shared.partitions))
    assert {(each.version, each.owner) for each in look.partitions} == {(0, NOBODY)}
    assert all(each.expires_in_seconds <= 0 for each in look.partitions)


async def test_the_number_of_partitions_is_there_again_after_opening_again(opened: Any) -> None:
    before = opened.store.partitions
    assert (await opened.reopen()).partitions == before


async def test_a_partition_is_its_owners_until_the_lease_runs_out(shared: Store) -> None:
    assert await shared.take_partition(0, "a", 0, LONG_SECONDS) == 1
    with pytest.raises(PartitionLost):
        await shared.take_partition(0, "b", 1, LONG_SECONDS)
    found = await partition(shared, 0)
    assert (found.version, found.owner) == (1, "a")
    assert 0 < found.expires_in_seconds <= LONG_SECONDS

    assert await shared.take_partition(0, "a", 1, NO_TIME) == 2, "its own is taken again at once"
    assert await shared.take_partition(0, "b", 2, LONG_SECONDS) == 3
    assert (await partition(shared, 0)).owner == "b"


async def test_of_many_that_take_what_has_expired_one_wins(shared: Store) -> None:
    await shared.take_partition(0, "a", 0, NO_TIME)
    takings = (shared.take_partition(0, f"b{number}", 1, LONG_SECONDS) for number in range(20))
    results = await asyncio.gather(*takings, return_exceptions=True)
    assert results.count(2) == 1
    assert sum(isinstance(result, PartitionLost) for result in results) == 19
    assert (await partition(shared, 0)).owner == f"b{results.index(2)}"


async def test_a_commit_renews_the_lease_and_an_expired_owner_that_nobody_followed_may_commit(shared: Store) -> None:
    await shared.take_partition(0, "a", 0, NO_TIME)
    assert await shared.commit([empty(0, 1)], LONG_SECONDS) == [2]
    found = await partition(shared, 0)
    assert (found.owner, found.expires_in_seconds > 0) == ("a", True)
    with pytest.raises(PartitionLost):
        await shared.take_partition(0, "b", 2, LONG_SECONDS)


async def test_a_former_owner_neither_commits_nor_releases(shared: Store) -> None:
    await shared.take_partition(0, "a", 0, NO_TIME)
    await shared.take_partition(0, "b", 1, LONG_SECONDS)
    assert await shared.commit([empty(0, 1)], LONG_SECONDS) == [None]
    assert await shared.release_partition(0, 1) is False
    found = await partition(shared, 0)
    assert (found.version, found.owner) == (2, "b")


async def test_what_is_released_is_nobodys_and_fences_off_who_had_it(shared: Store) -> None:
    await shared.take_partition(0, "a", 0, LONG_SECONDS)
    assert await shared.release_partition(0, 1) is True
    found = await partition(shared, 0)
    assert (found.version, found.owner, found.expires_in_seconds <= 0) == (2, NOBODY, True)
    assert await shared.commit([empty(0, 1)], LONG_SECONDS) == [None]
    assert await shared.release_partition(0, 1) is False
    assert await shared.take_partition(0, "b", 2, LONG_SECONDS) == 3


async def test_batches_of_several_partitions_land_each_by_its_own_version(store: Store) -> None:
    for number in (0, 1, 2):
        await store.create_execution("def", NewExecution(f"e{number}", number, b"{}", 1))
        await store.take_partition(number, "a", 0, LONG_SECONDS)
    rows = [AttemptRow(f"e{number}", 1, "n", 1, NodeState.COMPLETED, b"1", None, 1, 2, None) for number in (0, 1, 2)]
    batches = [CommitBatch(number, 0 if number == 1 else 1, [rows[number]], (), ()) for number in (2, 1, 0)]

    assert await store.commit(batches, LONG_SECONDS) == [2, None, 2]
    loaded = {each.record.execution_id: list(each.attempts) for each in await store.load(["e0", "e1", "e2"])}
    assert loaded == {"e0": [rows[0]], "e1": [], "e2": [rows[2]]}
    assert await store.commit([empty(1, 1), empty(0, 2)], LONG_SECONDS) == [2, 3]
    assert await store.commit([], LONG_SECONDS) == []


async def test_who_looks_is_alive_until_the_lease_runs_out_or_it_leaves(shared: Store) -> None:
    assert list((await shared.look("b", LONG_SECONDS)).replicas) == ["b"]
    assert list((await shared.look("a", LONG_SECONDS)).replicas) == ["a", "b"]
    assert list((await shared.look("c", NO_TIME)).replicas)[:2] == ["a", "b"]
    assert list((await shared.look("a", LONG_SECONDS)).replicas) == ["a", "b"]
    await shared.leave("b")
    await shared.leave("b")
    assert list((await shared.look("a", LONG_SECONDS)).replicas) == ["a"]


async def test_work_is_found_in_the_partitions_asked_for_alone(store: Store) -> None:
    for number in range(6):
        await store.create_execution("def", NewExecution(f"e{number}", number % 3, b"{}", 1))
    for execution_id in ("e5", "e4"):
        await store.add_cancel(execution_id, 1)

    assert (await store.find_work([0, 2], 0, 10)) == (["e0", "e2", "e3", "e5"], ["e5"], None)
    assert (await store.find_work([0, 2], 0, 3)) == (["e0", "e2", "e3"], ["e5"], None)
    assert (await store.find_work([1], 0, 10)) == (["e1", "e4"], ["e4"], None)
    assert (await store.find_work([], 0, 10)) == ([], [], None)


async def test_who_only_reads_the_partitions_changes_nothing(store: Store) -> None:
    before = await store.read_partitions()
    assert [each.partition for each in before] == list(range(store.partitions))
    assert {(each.version, each.owner, each.is_owned) for each in before} == {(0, NOBODY, False)}

    version = await store.take_partition(0, "a", 0, LONG_SECONDS)
    read = (await store.read_partitions())[0]
    assert (read.version, read.owner, read.is_owned) == (version, "a", True)
    assert await store.release_partition(0, version) is True
    assert (await store.read_partitions())[0].is_owned is False


async def test_reading_the_partitions_makes_nobody_alive(shared: Store) -> None:
    await shared.take_partition(1, "a", 0, NO_TIME)
    expired = (await shared.read_partitions())[1]
    assert (expired.owner, expired.is_owned) == ("a", False)
    assert expired.expires_in_seconds <= 0
    assert (await shared.look("b", LONG_SECONDS)).replicas == ["b"]


async def test_since_when_the_oldest_execution_is_ready(store: Store) -> None:
    assert await store.oldest_ready([0, 1, 2], 100) == {}
    for number, (partition, started_at) in enumerate([(0, 30), (0, 20), (1, 40), (2, 50)]):
        await store.create_execution("def", NewExecution(f"e{number}", partition, b"{}", started_at))
    await store.create_execution("def", NewExecution("pending", 3, None, 10))
    assert await store.oldest_ready([0, 1, 3], 100) == {0: 30, 1: 40}, "the oldest by its identifier"

    for partition, execution_id, parked_until in ((0, "e0", 60), (1, "e2", 70), (2, "e3", 200)):
        await store.take_partition(partition, "a", 0, LONG_SECONDS)
        update = ExecutionUpdate(execution_id, WorkflowState.RUNNING, None, None, parked_until)
        await store.commit([CommitBatch(partition, 1, (), [update], ())], LONG_SECONDS)
    assert await store.oldest_ready([0, 1, 2], 100) == {0: 20, 1: 70}
    assert await store.oldest_ready([0, 1, 2], 65) == {0: 20}
    assert await store.oldest_ready([0, 1, 2], 200) == {0: 20, 1: 70, 2: 200}
    assert await store.oldest_ready([], 200) == {}


# --- checkpoints ----------------------------------------------------------------------------------------


async def test_what_replicas_say_of_themselves_is_kept_the_last_of_each(shared: Store) -> None:
    assert await shared.list_checkpoints() == []
    await shared.checkpoint("b", '{"b": 1}')
    await shared.checkpoint("a", '{"a": 1}')
    await shared.checkpoint("b", '{"b": 2}')
    found = await shared.list_checkpoints()
    assert [text for text, _ in found] == ['{"a": 1}', '{"b": 2}']
    assert all(0 <= age_seconds < LONG_SECONDS for _, age_seconds in found)


async def test_who_only_says_something_of_himself_has_no_share_and_who_looks_has_said_nothing(shared: Store) -> None:
    await shared.look("orchestrator", LONG_SECONDS)
    await shared.checkpoint("worker", "{}")
    assert (await shared.look("orchestrator", LONG_SECONDS)).replicas == ["orchestrator"]
    assert [text for text, _ in await shared.list_checkpoints()] == ["{}"]


async def test_a_checkpoint_does_not_touch_the_lease_and_a_look_not_the_checkpoint(shared: Store) -> None:
    await shared.look("a", LONG_SECONDS)
    await shared.checkpoint("a", "{}")
    assert (await shared.look("b", LONG_SECONDS)).replicas == ["a", "b"]
    await shared.look("a", NO_TIME)
    assert (await shared.look("b", LONG_SECONDS)).replicas == ["b"]
    assert [text for text, _ in await shared.list_checkpoints()] == ["{}"]


async def test_nothing_is_known_of_who_has_left(shared: Store) -> None:
    await shared.look("a", LONG_SECONDS)
    await shared.checkpoint("a", "{}")
    await shared.checkpoint("worker", "{}")
    await shared.leave("a")
    await shared.leave("worker")
    assert await shared.list_checkpoints() == []
    assert (await shared.look("b", LONG_SECONDS)).replicas == ["b"]


async def test_a_store_of_one_process_keeps_no_checkpoints(opened: Any) -> None:
    if opened.kind.has_leases:
        pytest.skip("others use this store")
    await opened.store.checkpoint("a", "{}")
    assert await opened.store.list_checkpoints() == []
