"""What every Store does, whatever it is made of: the contract of `runtime/ports.py`, verb by verb."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from commits import LEASE_SECONDS, commit_one, version_of

from workflow_engine.runtime.core.machine import AttemptRow, ConsumedCommand
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from workflow_engine.runtime.errors import PartitionLost, StoreUnavailable
from workflow_engine.runtime.ports import (
    CommandRecord,
    CommitBatch,
    DefinitionRecord,
    ExecutionFilter,
    ExecutionRecord,
    ExecutionUpdate,
    KeyRecord,
    LoadedExecution,
    NewDefinition,
    NewExecution,
    Store,
    Work,
)

PENDING, RUNNING, COMPLETED = WorkflowState.PENDING, WorkflowState.RUNNING, WorkflowState.COMPLETED
FAILED, CANCELLED = WorkflowState.FAILED, WorkflowState.CANCELLED
TERMINAL = sorted(TERMINAL_WORKFLOW_STATES)
BATCH_SIZES = (1, 2, 3, 31, 257, 1_000)
TEXTS = [
    "",
    "plain",
    "naïve 日本 🌀 \N{COMBINING ACUTE ACCENT}",
    "line\nbreak\ttab\0nul",
    "'; --\"?:rows",
    "x" * 100_000,
]


def definition(definition_id: str = "def-1", name: str = "flow", digest: str = "digest-1") -> NewDefinition:
    return NewDefinition(definition_id, name, digest, f'{{"digest": "{digest}"}}'.encode())


def pending(execution_id: str, partition: int = 0, created_at: int = 1_000) -> NewExecution:
    return NewExecution(execution_id, partition, None, created_at)


def running(execution_id: str, partition: int = 0, created_at: int = 1_000) -> NewExecution:
    return NewExecution(execution_id, partition, b"{}", created_at)


def attempt(execution_id: str, sequence: int = 1, node_id: str = "a", number: int = 1, **fields: Any) -> AttemptRow:
    """An attempt's row: COMPLETED with an output unless `fields` say otherwise."""
    row = AttemptRow(execution_id, sequence, node_id, number, NodeState.COMPLETED, b'"done"', None, 2_000, 2_001, None)
    return row._replace(**fields)


def ended(execution_id: str, state: WorkflowState = COMPLETED, error: str | None = None) -> ExecutionUpdate:
    return ExecutionUpdate(execution_id, state, error, 3_000, None)


def parked(execution_id: str, until: int | None) -> ExecutionUpdate:
    return ExecutionUpdate(execution_id, RUNNING, None, None, until)


async def create(store: Store, *executions: NewExecution) -> None:
    """Store executions of one definition."""
    await asyncio.gather(*(store.create_execution("def-0", execution) for execution in executions))


async def take(store: Store, partition: int = 0) -> int:
    """Take a partition as it stands; returns its new version."""
    return await store.take_partition(partition, "owner", await version_of(store, partition), LEASE_SECONDS)


async def commit(
    store: Store,
    attempts: Sequence[AttemptRow] = (),
    executions: Sequence[ExecutionUpdate] = (),
    commands: Sequence[ConsumedCommand] = (),
) -> int:
    """Commit as whoever has just taken partition 0."""
    version = await take(store)
    return await commit_one(store, CommitBatch(0, version, attempts, executions, commands))


async def read(store: Store, execution_id: str) -> ExecutionRecord:
    record = await store.read_execution(execution_id)
    assert record is not None
    return record


async def load(store: Store, *execution_ids: str) -> dict[str, LoadedExecution]:
    loaded = await store.load(execution_ids)
    by_id = {each.record.execution_id: each for each in loaded}
    assert len(by_id) == len(loaded), "an execution was loaded twice"
    return by_id


async def command_ids(store: Store, execution_id: str) -> list[int]:
    return [command.command_id for command in await store.read_cancels([execution_id])]


# --- definitions and executions ---------------------------------------------------------------------


async def test_a_new_definition_and_its_execution_are_stored_as_given(store: Store) -> None:
    new = NewDefinition("def-1", "flow 日本", "abc", b'{"body": 1}')
    assert await store.create_execution(new, pending("e1", partition=7, created_at=123)) == ("e1", "def-1")
    assert await store.read_definition("def-1") == DefinitionRecord("def-1", "flow 日本", 1, "abc", b'{"body": 1}', 123)
    expected = ExecutionRecord("e1", "def-1", 7, PENDING, None, None, 123, None, None, None)
    assert await store.read_execution("e1") == expected


async def test_the_same_name_and_digest_reuse_the_stored_definition(store: Store) -> None:
    await store.create_execution(definition("def-1"), pending("e1", created_at=1))
    assert await store.create_execution(definition("def-2"), pending("e2", created_at=2)) == ("e2", "def-1")
    assert await store.read_definition("def-2") is None
    stored = await store.read_definition("def-1")
    assert stored is not None
    assert (stored.version, stored.created_at) == (1, 1)
    assert (await read(store, "e2")).definition_id == "def-1"


async def test_another_digest_makes_the_next_version_and_the_first_stays_the_first(store: Store) -> None:
    for number, digest in enumerate(["one", "two", "one", "three", "two"]):
        await store.create_execution(definition(f"def-{number}", digest=digest), pending(f"e{number}"))
    used = [(await read(store, f"e{number}")).definition_id for number in range(5)]
    assert used == ["def-0", "def-1", "def-0", "def-3", "def-1"]
    stored = [await store.read_definition(definition_id) for definition_id in ("def-0", "def-1", "def-3")]
    assert [each and (each.digest, each.version) for each in stored] == [("one", 1), ("two", 2), ("three", 3)]


async def test_each_name_counts_its_own_versions(store: Store) -> None:
    for number, name in enumerate(["a", "b", "a"]):
        await store.create_execution(definition(f"def-{number}", name, f"digest-{number}"), pending(f"e{number}"))
    stored = [await store.read_definition(f"def-{number}") for number in range(3)]
    assert [each and (each.name, each.version) for each in stored] == [("a", 1), ("b", 1), ("a", 2)]


async def test_the_same_digest_under_another_name_is_another_definition(store: Store) -> None:
    first = await store.create_execution(definition("def-1", "a", "same"), pending("e1"))
    second = await store.create_execution(definition("def-2", "b", "same"), pending("e2"))
    assert (first, second) == (("e1", "def-1"), ("e2", "def-2"))


async def test_concurrent_creates_of_one_new_definition_make_one(store: Store) -> None:
    created = await asyncio.gather(
        *(store.create_execution(definition(f"def-{n}"), pending(f"e{n}")) for n in range(50))
    )
    assert [execution_id for execution_id, _ in created] == [f"e{n}" for n in range(50)]
    [definition_id] = {definition_id for _, definition_id in created}
    stored = [await store.read_definition(f"def-{n}") for n in range(50)]
    assert [each.definition_id for each in stored if each is not None] == [definition_id]
    assert {(await read(store, f"e{n}")).definition_id for n in range(50)} == {definition_id}


async def test_concurrent_creates_of_several_versions_number_them_without_gaps(store: Store) -> None:
    new = [definition(f"def-{n}", digest=f"digest-{n % 5}") for n in range(20)]
    created = await asyncio.gather(*(store.create_execution(each, pending(f"e-{each.definition_id}")) for each in new))
    stored = [await store.read_definition(definition_id) for definition_id in {used for _, used in created}]
    assert sorted((each.digest, each.name) for each in stored if each) == [(f"digest-{n}", "flow") for n in range(5)]
    assert sorted(each.version for each in stored if each) == [1, 2, 3, 4, 5]


async def test_an_execution_may_name_its_definition(store: Store) -> None:
    await store.create_execution(definition("def-1"), pending("e1"))
    assert await store.create_execution("def-1", pending("e2")) == ("e2", "def-1")
    assert (await read(store, "e2")).definition_id == "def-1"


@pytest.mark.parametrize("input_text", [b"{}", b"", b'{"\xc3\xa9": [1, null]}', b"\x00\xff" * 50_000])
async def test_an_execution_with_inputs_runs_from_the_start(store: Store, input_text: bytes) -> None:
    await store.create_execution("def-1", NewExecution("e1", 3, input_text, 55))
    expected = ExecutionRecord("e1", "def-1", 3, RUNNING, input_text, None, 55, 55, None, None)
    assert await store.read_execution("e1") == expected
    assert await store.find_work([3], 55, 10) == Work(["e1"], [], None)


async def test_an_execution_id_is_stored_once(store: Store, contradiction: type[Exception]) -> None:
    await create(store, running("e1"))
    before = await read(store, "e1")
    with pytest.raises(contradiction):
        await store.create_execution(definition("def-9"), pending("e1"))
    assert await read(store, "e1") == before
    assert await store.read_definition("def-9") is None, "a refused write was half applied"


async def test_an_id_with_a_nul_is_not_the_id_before_it(store: Store) -> None:
    """An id may come from an address that anybody can type; JSON functions of databases cut texts at a NUL."""
    await create(store, running("e1"))
    await commit(store, [attempt("e1")])
    await store.add_cancel("e1", 50)
    assert await store.read_execution("e1\0") is None
    assert await store.read_execution_state("e1\0") is None
    assert list(await store.load(["e1\0"])) == []
    assert list(await store.read_cancels(["e1\0"])) == []
    assert list(await store.read_outputs("e1", ["a\0"])) == []


async def test_what_is_not_there_reads_as_none(store: Store) -> None:
    assert await store.read_execution("nothing") is None
    assert await store.read_execution_state("nothing") is None
    assert await store.read_definition("nothing") is None
    assert list(await store.read_outputs("nothing", ["a"])) == []
    assert list(await store.load(["nothing"])) == []
    assert list(await store.load([])) == []
    assert list(await store.read_cancels(["nothing"])) == []
    assert await store.find_work([0], 0, 10) == Work([], [], None)


# --- trigger and cancel_pending: compare-and-set ----------------------------------------------------


async def test_a_trigger_starts_a_pending_execution_once(store: Store) -> None:
    await create(store, pending("e1", partition=2))
    assert await store.trigger("e1", b'{"first": 1}', 1_500) == "e1"
    expected = ExecutionRecord("e1", "def-0", 2, RUNNING, b'{"first": 1}', None, 1_000, 1_500, None, None)
    assert await store.read_execution("e1") == expected
    assert await store.trigger("e1", b'{"second": 2}', 1_600) is None
    assert await store.read_execution("e1") == expected
    assert await store.trigger("unknown", b"{}", 1_600) is None


async def test_of_concurrent_triggers_one_wins_and_its_input_is_stored(store: Store) -> None:
    await create(store, pending("e1"), pending("e2"))
    first, second = await asyncio.gather(store.trigger("e1", b"first", 1_001), store.trigger("e1", b"second", 1_002))
    assert {first, second} == {"e1", None}
    record = await read(store, "e1")
    expected = (b"first", 1_001) if first else (b"second", 1_002)
    assert (record.state, record.input_text, record.started_at) == (RUNNING, *expected)
    answers = await asyncio.gather(*(store.trigger("e2", b"%d" % n, 2_000 + n) for n in range(50)))
    assert answers.count("e2") == 1
    assert answers.count(None) == 49
    winner = answers.index("e2")
    record = await read(store, "e2")
    assert (record.input_text, record.started_at) == (b"%d" % winner, 2_000 + winner)


async def test_a_create_and_its_trigger_may_follow_at_once(store: Store) -> None:
    answers = await asyncio.gather(*(_create_and_trigger(store, f"e{n}") for n in range(20)))
    assert answers == [f"e{n}" for n in range(20)]


async def _create_and_trigger(store: Store, execution_id: str) -> str | None:
    await store.create_execution(definition(), pending(execution_id))
    return await store.trigger(execution_id, b"{}", 1_001)


async def test_a_pending_execution_is_cancelled_once(store: Store) -> None:
    await create(store, pending("e1"))
    assert await store.cancel_pending("e1", 1_200) is True
    expected = ExecutionRecord("e1", "def-0", 0, CANCELLED, None, None, 1_000, None, 1_200, None)
    assert await store.read_execution("e1") == expected
    assert await store.cancel_pending("e1", 1_300) is False
    assert await store.trigger("e1", b"{}", 1_300) is None
    assert await store.read_execution("e1") == expected
    assert await store.cancel_pending("unknown", 1_300) is False


async def test_a_running_execution_is_not_cancelled_as_if_it_were_pending(store: Store) -> None:
    await create(store, running("e1"))
    before = await read(store, "e1")
    assert await store.cancel_pending("e1", 1_200) is False
    assert await read(store, "e1") == before


@pytest.mark.parametrize("trigger_first", [True, False])
async def test_of_a_trigger_and_a_cancel_one_wins(store: Store, trigger_first: bool) -> None:
    await create(store, *(pending(f"e{n}") for n in range(20)))
    for number in range(20):
        execution_id = f"e{number}"
        trigger, cancel = store.trigger(execution_id, b"input", 1_001), store.cancel_pending(execution_id, 1_002)
        if trigger_first:
            triggered, cancelled = await asyncio.gather(trigger, cancel)
        else:
            cancelled, triggered = await asyncio.gather(cancel, trigger)
        assert [triggered == execution_id, cancelled].count(True) == 1
        record = await read(store, execution_id)
        found = (record.state, record.input_text, record.started_at, record.completed_at)
        assert found == ((RUNNING, b"input", 1_001, None) if triggered else (CANCELLED, None, None, 1_002))


@pytest.mark.parametrize("state", TERMINAL)
async def test_an_ended_execution_is_neither_triggered_nor_cancelled(store: Store, state: WorkflowState) -> None:
    await create(store, running("e1"))
    await commit(store, executions=[ended("e1", state)])
    before = await read(store, "e1")
    assert await store.trigger("e1", b"again", 4_000) is None
    assert await store.cancel_pending("e1", 4_000) is False
    assert await read(store, "e1") == before


# --- cancels ----------------------------------------------------------------------------------------


async def test_cancels_are_read_in_the_order_they_were_stored(store: Store) -> None:
    await create(store, running("e1"), running("e2"), running("e3"))
    for execution_id, created_at in [("e2", 10), ("e1", 20), ("e2", 5), ("e3", 30)]:
        await store.add_cancel(execution_id, created_at)
    cancels = list(await store.read_cancels(["e1", "e2"]))
    assert [(each.execution_id, each.created_at) for each in cancels] == [("e2", 10), ("e1", 20), ("e2", 5)]
    assert [(each.consumed, each.sequence) for each in cancels] == [(False, None)] * 3
    assert [each.command_id for each in cancels] == sorted({each.command_id for each in cancels})


@pytest.mark.parametrize("sequence", [None, 1, 17])
async def test_a_consumed_cancel_is_not_read_again(store: Store, sequence: int | None) -> None:
    await create(store, running("e1"), running("e2"))
    for execution_id in ("e1", "e1", "e2"):
        await store.add_cancel(execution_id, 50)
    first, second = await command_ids(store, "e1")
    await commit(store, commands=[ConsumedCommand(first, sequence, "e1")])
    assert await command_ids(store, "e1") == [second]
    assert len(await command_ids(store, "e2")) == 1
    assert (await load(store, "e1"))["e1"].commands == [
        CommandRecord(first, "e1", 50, True, sequence),
        CommandRecord(second, "e1", 50, False, None),
    ]


async def test_a_cancel_of_an_unknown_execution_disturbs_nobody(store: Store) -> None:
    await create(store, running("e1"))
    await store.add_cancel("unknown", 50)
    assert await store.find_work([0], 100, 10) == Work(["e1"], [], None)
    assert list(await store.load(["e1", "unknown"])) == [LoadedExecution(await read(store, "e1"), [], [], [])]


# --- ownership and the fence ------------------------------------------------------------------------


async def test_taking_a_partition_raises_its_version(store: Store) -> None:
    assert await version_of(store, 0) == 0
    for version in range(4):
        assert await store.take_partition(0, "owner", version, LEASE_SECONDS) == version + 1
        assert await version_of(store, 0) == version + 1
    assert await store.take_partition(5, "owner", 0, LEASE_SECONDS) == 1
    assert [await version_of(store, partition) for partition in (0, 5, 6)] == [4, 1, 0]


@pytest.mark.parametrize("version", [-1, 0, 2, 4, 100])
async def test_a_taking_at_another_version_changes_nothing(store: Store, version: int) -> None:
    for taken in range(3):
        await store.take_partition(0, "owner", taken, LEASE_SECONDS)
    with pytest.raises(PartitionLost):
        await store.take_partition(0, "owner", version, LEASE_SECONDS)
    assert await version_of(store, 0) == 3
    assert await commit_one(store, CommitBatch(0, 3, (), (), ())) == 4, "the owner must not have been fenced off"


async def test_a_first_taking_at_another_version_than_0_is_refused(store: Store) -> None:
    for version in (-1, 1, 2):
        with pytest.raises(PartitionLost):
            await store.take_partition(0, "owner", version, LEASE_SECONDS)
    assert await version_of(store, 0) == 0
    assert await store.take_partition(0, "owner", 0, LEASE_SECONDS) == 1


@pytest.mark.parametrize("taken_before", [0, 3])
async def test_of_concurrent_takings_at_one_version_one_wins(store: Store, taken_before: int) -> None:
    for version in range(taken_before):
        await store.take_partition(0, "owner", version, LEASE_SECONDS)
    takings = (store.take_partition(0, "owner", taken_before, LEASE_SECONDS) for n in range(20))
    results = await asyncio.gather(*takings, return_exceptions=True)
    assert results.count(taken_before + 1) == 1
    assert sum(isinstance(result, PartitionLost) for result in results) == 19
    assert await version_of(store, 0) == taken_before + 1


async def test_a_commit_and_a_taking_at_one_version_exclude_each_other(store: Store) -> None:
    await create(store, running("e1"))
    for round_number in range(10):
        version = await take(store)
        committing = commit_one(store, CommitBatch(0, version, [attempt("e1", 1, f"n{round_number}")], (), ()))
        taking = store.take_partition(0, "owner", version, LEASE_SECONDS)
        pair = (committing, taking) if round_number % 2 else (taking, committing)
        results = await asyncio.gather(*pair, return_exceptions=True)
        assert {type(result) for result in results} == {PartitionLost, int}
        assert await version_of(store, 0) == version + 1


async def test_each_commit_raises_the_version_by_one(store: Store) -> None:
    await create(store, running("e1"))
    version = await take(store)
    for sequence in range(1, 6):
        batch = CommitBatch(0, version, [attempt("e1", sequence, number=sequence)], (), ())
        assert await commit_one(store, batch) == version + 1
        version += 1
    assert await commit_one(store, CommitBatch(0, version, (), (), ())) == version + 1, (
        "an empty commit renews the lease"
    )
    assert await store.take_partition(0, "owner", version + 1, LEASE_SECONDS) == version + 2


def everything_at(version: int, command_id: int) -> CommitBatch:
    """A batch with something of each kind for the executions e1 and e2."""
    return CommitBatch(
        0,
        version,
        [attempt("e1", 1), attempt("e2", 1)],
        [ended("e1"), parked("e2", 9_000)],
        [ConsumedCommand(command_id, 2, "e1")],
    )


async def state_of(store: Store, *execution_ids: str) -> list[object]:
    """Everything that can be read of some executions, for comparing before and after."""
    loaded = await load(store, *execution_ids)
    outputs = [list(await store.read_outputs(each, ["a", "b", "c"])) for each in execution_ids]
    shown = [await store.read_execution_state(each) for each in execution_ids]
    cancels = list(await store.read_cancels(execution_ids))
    return [loaded, outputs, shown, cancels, await store.find_work([0], 5_000, 1_000)]


@pytest.mark.parametrize("off", [-2, -1, 1, 100])
async def test_a_commit_at_another_version_writes_nothing(store: Store, off: int) -> None:
    await create(store, running("e1"), running("e2"))
    await store.add_cancel("e1", 50)
    [command_id] = await command_ids(store, "e1")
    version = 0
    for _ in range(3):
        version = await take(store)
    before = await state_of(store, "e1", "e2")
    with pytest.raises(PartitionLost):
        await commit_one(store, everything_at(version + off, command_id))
    assert await state_of(store, "e1", "e2") == before
    assert await commit_one(store, everything_at(version, command_id)) == version + 1, (
        "the miss must not raise the version"
    )


async def test_a_commit_to_a_partition_nobody_took_is_refused(store: Store) -> None:
    await create(store, running("e1"), running("e2"))
    before = await state_of(store, "e1", "e2")
    for version in (0, 1):
        with pytest.raises(PartitionLost):
            await commit_one(store, everything_at(version, 1))
    assert await state_of(store, "e1", "e2") == before


async def test_a_former_owner_is_fenced_off(store: Store) -> None:
    await create(store, running("e1"), running("e2"))
    former = await take(store)
    former = await commit_one(store, CommitBatch(0, former, [attempt("e1", 1)], (), ()))
    present = await take(store)
    late = CommitBatch(0, former, [attempt("e1", 2, "b")], [ended("e1", FAILED, "late")], ())
    with pytest.raises(PartitionLost):
        await commit_one(store, late)
    present = await commit_one(store, CommitBatch(0, present, [attempt("e2", 1)], (), ()))
    with pytest.raises(PartitionLost):
        await commit_one(store, late)
    loaded = await load(store, "e1", "e2")
    assert [len(loaded[each].attempts) for each in ("e1", "e2")] == [1, 1]
    assert loaded["e1"].record.state is RUNNING
    assert await commit_one(store, CommitBatch(0, present, (), (), ())) == present + 1


async def test_a_commit_does_not_land_twice(store: Store) -> None:
    """A repeated commit of unknown outcome is caught by the fence, not by luck."""
    await create(store, running("e1"))
    version = await take(store)
    batch = CommitBatch(0, version, [attempt("e1", 1)], (), ())
    await commit_one(store, batch)
    with pytest.raises(PartitionLost):
        await commit_one(store, batch)
    assert (await load(store, "e1"))["e1"].attempts == [attempt("e1", 1)]


async def test_of_two_commits_at_one_version_one_lands(store: Store) -> None:
    await create(store, running("e1"))
    version = await take(store)
    batches = [CommitBatch(0, version, [attempt("e1", 1, node_id)], (), ()) for node_id in "ab"]
    results = await asyncio.gather(*(commit_one(store, batch) for batch in batches), return_exceptions=True)
    assert {type(result) for result in results} == {PartitionLost, int}
    won = 0 if results[0] == version + 1 else 1
    assert (await load(store, "e1"))["e1"].attempts == list(batches[won].attempts)


async def test_another_partition_is_not_fenced(store: Store) -> None:
    await create(store, running("e1", partition=1), running("e2", partition=2))
    one, two = await take(store, 1), await take(store, 2)
    await take(store, 2)
    assert await commit_one(store, CommitBatch(1, one, [attempt("e1")], (), ())) == one + 1
    with pytest.raises(PartitionLost):
        await commit_one(store, CommitBatch(2, two, [attempt("e2")], (), ()))
    loaded = await load(store, "e1", "e2")
    assert (loaded["e1"].attempts, loaded["e2"].attempts) == ([attempt("e1")], [])


async def test_a_commit_that_misses_does_not_disturb_what_is_asked_for_with_it(store: Store) -> None:
    await create(store, pending("e1"), running("e2"))
    stale = await take(store)
    version = await take(store)
    results = await asyncio.gather(
        store.trigger("e1", b"input", 1_001),
        commit_one(store, CommitBatch(0, stale, [attempt("e2", 1, "stale")], (), ())),
        commit_one(store, CommitBatch(0, version, [attempt("e2", 1, "good")], (), ())),
        store.create_execution(definition(), pending("e3")),
        return_exceptions=True,
    )
    assert isinstance(results[1], PartitionLost)
    assert [results[0], *results[2:]] == ["e1", version + 1, ("e3", "def-1")]
    assert [row.node_id for row in (await load(store, "e2"))["e2"].attempts] == ["good"]


# --- what a commit writes ---------------------------------------------------------------------------


@pytest.mark.parametrize("within_one_batch", [True, False])
async def test_a_second_outcome_of_an_attempt_is_refused_with_the_whole_batch(
    store: Store, contradiction: type[Exception], within_one_batch: bool
) -> None:
    await create(store, running("e1"), running("e2"))
    await store.add_cancel("e1", 50)
    [command_id] = await command_ids(store, "e1")
    version = await take(store)
    rows = [attempt("e2", 1), attempt("e1", 1), attempt("e1", 2, output=b'"second"')]
    if not within_one_batch:
        version = await commit_one(store, CommitBatch(0, version, [rows.pop(1)], (), ()))
    before = await state_of(store, "e1", "e2")
    with pytest.raises(contradiction):
        await commit_one(store, CommitBatch(0, version, rows, [ended("e2")], [ConsumedCommand(command_id, 3, "e1")]))
    assert await state_of(store, "e1", "e2") == before
    assert await commit_one(store, everything_at(version, command_id)._replace(attempts=())) == version + 1


@pytest.mark.parametrize(
    "row",
    [
        attempt("e1", 1),
        attempt("e1", 1, number=9_999_999),
        attempt("e1", 2**53, started_at=None, finished_at=2**47, retry_at=None),
        attempt("e1", 1, state=NodeState.FAILED, output=None, error='{"type": "x"}', retry_at=2_500),
        attempt("e1", 1, state=NodeState.CANCELLED, output=None, error=None, started_at=None, retry_at=None),
        attempt("e1", 1, started_at=0, finished_at=0, retry_at=0, output=b"", error=""),
        attempt("e1", 1, output=bytes(range(256)) * 4_000),
        attempt("e1", 1, output='"日本 🌀"'.encode()),
    ],
    ids=lambda row: f"{row.state}-{row.finished_at}",
)
async def test_an_attempts_row_is_read_as_it_was_written(store: Store, row: AttemptRow) -> None:
    await create(store, running("e1"))
    await commit(store, [row])
    [found] = (await load(store, "e1"))["e1"].attempts
    assert found == row
    assert [type(value) for value in found] == [type(value) for value in row]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
async def test_every_text_comes_back_as_it_was(store: Store, text: str) -> None:
    await create(store, running("e1"))
    row = attempt("e1", 1, "a", state=NodeState.FAILED, error=text)
    done = attempt("e1", 2, f"node {text}".replace("\0", ""), output=text.encode())
    await commit(store, [row, done], [ended("e1", FAILED, text)])
    loaded = (await load(store, "e1"))["e1"]
    assert (loaded.record.error, list(loaded.attempts)) == (text, [row, done])
    assert list(await store.read_outputs("e1", [done.node_id])) == [(done.node_id, text.encode())]


@pytest.mark.parametrize("state", TERMINAL)
async def test_the_end_of_an_execution_is_stored(store: Store, state: WorkflowState) -> None:
    await create(store, running("e1", partition=4))
    await commit(store, executions=[ExecutionUpdate("e1", state, '{"message": "é"}', 3_210, None)])
    expected = ExecutionRecord("e1", "def-0", 4, state, b"{}", '{"message": "é"}', 1_000, 1_000, 3_210, None)
    assert await read(store, "e1") == expected


@pytest.mark.parametrize("later", [*TERMINAL, RUNNING])
@pytest.mark.parametrize("state", TERMINAL)
async def test_an_ended_execution_never_changes(store: Store, state: WorkflowState, later: WorkflowState) -> None:
    await create(store, running("e1"), running("e2"))
    await commit(store, executions=[ended("e1", state, "first")])
    before = await read(store, "e1")
    await commit(store, executions=[ExecutionUpdate("e1", later, "later", 9_999, 9_999), ended("e2")])
    assert await read(store, "e1") == before
    assert (await read(store, "e2")).state is COMPLETED, "the rest of the batch counts"


async def test_a_pending_execution_is_the_callers_not_the_owners(store: Store) -> None:
    await create(store, pending("e1"))
    before = await read(store, "e1")
    await commit(store, executions=[ended("e1")])
    assert await read(store, "e1") == before


async def test_a_commit_about_the_unknown_writes_the_rest(store: Store) -> None:
    await create(store, running("e1"))
    await commit(store, [attempt("e1")], [ended("unknown"), ended("e1")], [ConsumedCommand(12_345, 1, "e1")])
    loaded = await load(store, "e1", "unknown")
    assert list(loaded) == ["e1"]
    assert (loaded["e1"].record.state, loaded["e1"].attempts) == (COMPLETED, [attempt("e1")])


# --- looking for work -------------------------------------------------------------------------------


async def test_work_is_what_runs_in_the_partition(store: Store) -> None:
    await create(store, pending("e1"), running("e2"), running("e3", partition=1), running("e4"), running("e5"))
    await commit(store, executions=[ended("e4")])
    assert await store.find_work([0], 5_000, 10) == Work(["e2", "e5"], [], None)
    assert await store.find_work([1], 5_000, 10) == Work(["e3"], [], None)
    assert await store.find_work([2], 5_000, 10) == Work([], [], None)


async def test_a_parked_execution_is_work_again_when_it_is_due(store: Store) -> None:
    await create(store, running("e1"), running("e2"), running("e3", partition=1))
    await commit(store, executions=[parked("e1", 2_000), parked("e2", 3_000), parked("e3", 1_500)])
    assert (await read(store, "e1")).parked_until == 2_000
    assert await store.find_work([0], 1_999, 10) == Work([], [], 2_000)
    assert await store.find_work([0], 2_000, 10) == Work(["e1"], [], 3_000)
    assert await store.find_work([0], 2_999, 10) == Work(["e1"], [], 3_000)
    assert await store.find_work([0], 3_000, 10) == Work(["e1", "e2"], [], None)
    await commit(store, executions=[parked("e1", None), parked("e2", 8_000)])
    assert (await read(store, "e1")).parked_until is None
    assert await store.find_work([0], 4_000, 10) == Work(["e1"], [], 8_000)
    await commit(store, executions=[ended("e2")])
    assert await store.find_work([0], 4_000, 10) == Work(["e1"], [], None), "what has ended is never due"


async def test_an_unconsumed_cancel_makes_work_of_what_is_parked_or_has_ended(store: Store) -> None:
    """Of what has ended too: its cancel changes nothing, and is consumed so that nobody looks again."""
    await create(store, running("e1"), running("e2"), running("e3"), running("e4", partition=1))
    await commit(store, executions=[parked("e1", 9_000), ended("e2"), parked("e3", 9_500)])
    for execution_id in ("e1", "e1", "e2", "e4"):
        await store.add_cancel(execution_id, 50)
    assert await store.find_work([0], 1_000, 10) == Work([], ["e1", "e2"], 9_000)
    consumed = [ConsumedCommand(each, None, id_) for id_ in ("e1", "e2") for each in await command_ids(store, id_)]
    await commit(store, commands=consumed)
    assert await store.find_work([0], 1_000, 10) == Work([], [], 9_000)


@pytest.mark.parametrize("limit", range(1, 8))
async def test_the_oldest_work_comes_first_of_whatever_kind(store: Store, limit: int) -> None:
    """A limit that took the longest overdue first would let a busy partition starve its oldest executions."""
    order = ["e4", "e1", "e6", "e2", "e7", "e5", "e3"]
    await create(store, *(running(execution_id, created_at=int(execution_id[1:])) for execution_id in order))
    until = {"e1": 900, "e3": 100, "e4": 9_000, "e6": 500, "e7": 8_000}
    await commit(store, executions=[parked(*item) for item in until.items()])
    await store.add_cancel("e4", 50)
    work = await store.find_work([0], 1_000, limit)
    assert work == Work(["e1", "e2", "e3", "e5", "e6"][:limit], ["e4"], 8_000)


# --- reading ----------------------------------------------------------------------------------------


async def test_load_gives_everything_of_each_execution(store: Store) -> None:
    await create(store, running("e1"), running("e2"), pending("e3"), running("other"))
    rows = [attempt("e1", sequence, f"n{sequence}") for sequence in (3, 1, 2)]
    await commit(store, [*rows, attempt("other", 1)])
    await commit(store, [attempt("e2", 1), attempt("e1", 4, "n3", 2)])
    for execution_id in ("e2", "other", "e2"):
        await store.add_cancel(execution_id, 50)
    loaded = await load(store, "e3", "unknown", "e1", "e2")
    assert set(loaded) == {"e1", "e2", "e3"}
    assert [(row.sequence, row.node_id, row.attempt) for row in loaded["e1"].attempts] == [
        (1, "n1", 1),
        (2, "n2", 1),
        (3, "n3", 1),
        (4, "n3", 2),
    ]
    assert [command.execution_id for command in loaded["e2"].commands] == ["e2", "e2"]
    assert [loaded[each].record for each in loaded] == [await read(store, each) for each in loaded]
    assert (list(loaded["e3"].attempts), list(loaded["e3"].commands)) == ([], [])


async def test_an_id_asked_for_twice_is_loaded_once(store: Store) -> None:
    await create(store, running("e1"))
    assert set(await load(store, "e1", "e1")) == {"e1"}


async def test_the_state_of_an_execution_has_everything_but_outputs(store: Store) -> None:
    await create(store, running("e1"))
    await store.add_cancel("e1", 50)
    await commit(store, [attempt("e1", 2, "b", retry_at=7, error="why"), attempt("e1", 1, "a")])
    state = await store.read_execution_state("e1")
    loaded = (await load(store, "e1"))["e1"]
    assert [row.output for row in loaded.attempts] == [b'"done"', b'"done"']
    assert state == loaded._replace(attempts=[row._replace(output=None) for row in loaded.attempts])


async def test_outputs_come_in_the_order_asked_for(store: Store) -> None:
    await create(store, running("e1"), running("e2"))
    failed = attempt("e1", 2, "retried", state=NodeState.FAILED, output=None, retry_at=5)
    await commit(
        store,
        [
            attempt("e1", 1, "a", output=b"1"),
            failed,
            attempt("e1", 3, "retried", 2, output=b"2"),
            attempt("e1", 4, "日本", output=b""),
            failed._replace(sequence=5, node_id="failed", retry_at=None),
            attempt("e1", 6, "cancelled", state=NodeState.CANCELLED, output=None),
            attempt("e2", 1, "other", output=b"3"),
        ],
    )
    asked = ["日本", "failed", "retried", "unknown", "cancelled", "other", "a"]
    assert list(await store.read_outputs("e1", asked)) == [("日本", b""), ("retried", b"2"), ("a", b"1")]
    assert list(await store.read_outputs("e1", ["a", "retried"])) == [("a", b"1"), ("retried", b"2")]
    assert list(await store.read_outputs("e1", [])) == []


@pytest.mark.parametrize("size", BATCH_SIZES)
async def test_batches_of_every_size_are_written_whole(store: Store, size: int) -> None:
    """Stores write many rows in one statement of one of several sizes: none may fall between two of them."""
    ids = [f"e{number:04}" for number in range(size)]
    await create(store, *map(pending, ids))
    answers = await asyncio.gather(*(store.trigger(each, each.encode(), 1_001) for each in ids))
    assert answers == ids
    await asyncio.gather(*(store.add_cancel(each, 50) for each in ids))
    commands = {each.execution_id: each.command_id for each in await store.read_cancels(ids)}
    rows = [attempt(each, 1, output=each.encode()) for each in ids]
    updates = [ended(each, error=each) for each in ids]
    consumed = [ConsumedCommand(commands[each], number, each) for number, each in enumerate(ids)]
    await commit(store, rows, updates, consumed)
    loaded = await load(store, *ids)
    assert sorted(loaded) == ids
    for number, (each, row) in enumerate(zip(ids, rows, strict=True)):
        expected = ExecutionRecord(each, "def-0", 0, COMPLETED, each.encode(), each, 1_000, 1_001, 3_000, None)
        assert loaded[each].record == expected
        assert loaded[each].attempts == [row]
        assert [(command.consumed, command.sequence) for command in loaded[each].commands] == [(True, number)]


async def test_thousands_of_ids_are_loaded_at_once(store: Store) -> None:
    ids = [f"e{number:04}" for number in range(2_500)]
    await create(store, *map(running, ids))
    await commit(store, [attempt(each) for each in ids])
    loaded = await load(store, *ids, *(f"unknown-{number}" for number in range(1_500)))
    assert sorted(loaded) == ids
    assert all(each.attempts == [attempt(execution_id)] for execution_id, each in loaded.items())
    assert await store.find_work([0], 0, 2_000) == Work(ids[:2_000], [], None)


# --- opening and closing ----------------------------------------------------------------------------


async def test_everything_is_there_after_opening_again(opened: Any) -> None:
    store: Store = opened.store
    ids = [f"e{number}" for number in range(1, 6)]
    await store.create_execution(definition("def-1", digest="one"), pending("e1"))
    await store.create_execution(definition("def-2", digest="two"), pending("e2"))
    await create(store, running("e3"), running("e4"), pending("e5"))
    await store.trigger("e2", b"input", 1_001)
    await store.cancel_pending("e5", 1_002)
    for execution_id in ("e2", "e3", "e3"):
        await store.add_cancel(execution_id, 50)
    consumed, _ = await command_ids(store, "e3")
    rows = [attempt("e2", 1, "a"), attempt("e2", 2, "b", state=NodeState.FAILED, error="é", retry_at=9_000)]
    version = await commit(store, rows, [parked("e2", 9_000), ended("e3")], [ConsumedCommand(consumed, 1, "e1")])
    before = await state_of(store, *ids)
    definitions = [await store.read_definition(each) for each in ("def-1", "def-2")]
    again: Store = await opened.reopen()
    assert await state_of(again, *ids) == before
    assert [await again.read_definition(each) for each in ("def-1", "def-2")] == definitions
    assert await again.create_execution(definition("def-3", digest="two"), pending("e6")) == ("e6", "def-2")
    assert await commit_one(again, CommitBatch(0, version, (), (), ())) == version + 1
    assert await again.take_partition(0, "owner", version + 1, LEASE_SECONDS) == version + 2
    await again.add_cancel("e2", 60)
    assert max(await command_ids(again, "e2")) > consumed, "ids of commands are never used again"


async def test_an_open_store_is_healthy(store: Store) -> None:
    health = await store.health()
    assert health.ok
    assert health.detail


async def test_close_is_safe_without_open_and_twice(opened: Any) -> None:
    await opened.make().close()
    await opened.store.close()
    await opened.store.close()
    assert await (await opened.reopen()).find_work([0], 0, 1) == Work([], [], None)


async def test_a_closed_store_says_so(opened: Any) -> None:
    store: Store = opened.store
    await create(store, running("e1"))
    await store.close()
    if not opened.kind.refuses_when_closed:
        pytest.skip("this store cannot be told open from closed")
    for call in (
        store.create_execution(definition(), pending("e2")),
        store.trigger("e1", b"{}", 1),
        store.cancel_pending("e1", 1),
        store.add_cancel("e1", 1),
        version_of(store, 0),
        store.take_partition(0, "owner", 0, LEASE_SECONDS),
        commit_one(store, CommitBatch(0, 1, (), (), ())),
        store.find_work([0], 0, 1),
        store.load(["e1"]),
        store.load_nodes({"e1": ["a"]}),
        store.read_cancels(["e1"]),
        store.read_execution_state("e1"),
        store.read_execution("e1"),
        store.read_outputs("e1", ["a"]),
        store.read_definition("def-0"),
        store.define(definition(), 1),
        store.find_definition("flow"),
        store.list_definitions(None, 1),
        store.list_versions("flow", None, 1),
        store.list_executions(ExecutionFilter(), None, 1),
        store.add_key(KeyRecord("key-1", "", "digest", (), 1, None, None)),
        store.list_keys(),
        store.find_key("digest"),
        store.revoke_key("key-1", 1),
        store.delete_ended_executions(1, 1),
        store.delete_claims(1, 1),
    ):
        with pytest.raises(StoreUnavailable):
            await call
    assert not (await store.health()).ok
