"""What every Store does for those who list, name, repeat and forget: the contract of `runtime/ports.py`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from workflow_engine.runtime.clock import format_uuid7
from workflow_engine.runtime.core.machine import AttemptRow
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from workflow_engine.runtime.errors import IdempotencyConflict
from workflow_engine.runtime.ports import (
    CommitBatch,
    DefinitionVersion,
    ExecutionFilter,
    ExecutionSummary,
    ExecutionUpdate,
    HandlerRecord,
    IdempotencyClaim,
    KeyRecord,
    NewDefinition,
    NewExecution,
    Store,
)

START = 1_700_000_000_000
PENDING, RUNNING, COMPLETED = WorkflowState.PENDING, WorkflowState.RUNNING, WorkflowState.COMPLETED


def definition(name: str, digest: str) -> NewDefinition:
    return NewDefinition(f"id of {name} {digest}", name, digest, b"{}")


def new(created_at: int, number: int = 0, *, running: bool = False) -> NewExecution:
    return NewExecution(format_uuid7(created_at, number), 0, b"{}" if running else None, created_at)


def claim(key: str = "key", fingerprint: str = "asked", created_at: int = START) -> IdempotencyClaim:
    return IdempotencyClaim(key, fingerprint, created_at)


async def end(store: Store, ends: Sequence[tuple[str, WorkflowState, int]]) -> None:
    """Commit that executions have ended, each with one attempt."""
    versions = {each.partition: each.version for each in (await store.look("owner", 60.0)).partitions}
    version = await store.take_partition(0, "owner", versions[0], 60.0)
    rows = [AttemptRow(each, 1, "a", 1, NodeState.COMPLETED, b"1", None, at, at, None) for each, _, at in ends]
    updates = [ExecutionUpdate(each, state, None, at, None) for each, state, at in ends]
    assert await store.commit([CommitBatch(0, version, rows, updates, ())], 60.0) == [version + 1]


# --- definitions ------------------------------------------------------------------------------------


async def test_defining_numbers_the_versions_of_each_name_and_stores_each_once(store: Store) -> None:
    first = await store.define(definition("flow", "1"), 10)
    second = await store.define(definition("flow", "2"), 20)
    other = await store.define(definition("other", "1"), 30)
    again = await store.define(definition("flow", "1")._replace(definition_id="new"), 40)

    assert first == DefinitionVersion("id of flow 1", "flow", 1, "1", 10)
    assert second == DefinitionVersion("id of flow 2", "flow", 2, "2", 20)
    assert other == DefinitionVersion("id of other 1", "other", 1, "1", 30)
    assert again == first
    assert await store.read_definition("new") is None


async def test_a_definition_is_found_by_name_and_version(store: Store) -> None:
    stored = [await store.define(definition("flow", str(number)), number) for number in range(1, 4)]

    assert await store.find_definition("flow") == stored[2]
    assert [await store.find_definition("flow", number) for number in range(5)] == [None, *stored, None]
    assert await store.find_definition("flo") is None
    assert await store.find_definition("FLOW") is None


async def test_the_latest_version_of_each_name_is_listed_by_name_page_by_page(store: Store) -> None:
    names = ["b", "a", "ab", "B", "naïve", "日本", "a b"]
    latest = {}
    for name in names:
        for digest in ("1", "2"):
            latest[name] = await store.define(definition(name, digest), 5)
    expected = [latest[name] for name in sorted(names)]

    assert await store.list_definitions(None, 100) == expected
    pages: list[DefinitionVersion] = []
    while page := await store.list_definitions(pages[-1].name if pages else None, 3):
        assert len(page) <= 3
        pages += page
    assert pages == expected


async def test_versions_are_listed_newest_first_page_by_page(store: Store) -> None:
    stored = [await store.define(definition("flow", str(number)), number) for number in range(1, 6)]
    await store.define(definition("other", "1"), 1)

    assert await store.list_versions("flow", None, 2) == [stored[4], stored[3]]
    assert await store.list_versions("flow", 4, 2) == [stored[2], stored[1]]
    assert await store.list_versions("flow", 2, 2) == [stored[0]]
    assert await store.list_versions("flow", 1, 2) == []
    assert await store.list_versions("unknown", None, 2) == []


# --- lists of executions ----------------------------------------------------------------------------


async def test_a_list_shows_what_each_execution_is_of(store: Store) -> None:
    await store.define(definition("flow", "1"), START)
    second = definition("flow", "2")
    pending, running = new(START + 1), new(START + 2, running=True)
    await store.create_execution(second, pending)
    await store.create_execution("id of flow 1", running)
    await end(store, [(running.execution_id, COMPLETED, START + 9)])

    assert await store.list_executions(ExecutionFilter(), None, 10) == [
        ExecutionSummary(
            running.execution_id, "id of flow 1", "flow", 1, COMPLETED, START + 2, START + 2, START + 9, None
        ),
        ExecutionSummary(pending.execution_id, "id of flow 2", "flow", 2, PENDING, START + 1, None, None, None),
    ]


async def test_every_filter_finds_what_meets_it_page_by_page(store: Store) -> None:
    """A few hundred executions of several names, states and times, and filters drawn from all combinations."""
    draw = random.Random(7)
    names = ["a", "b", "c"]
    rows: list[tuple[str, str, WorkflowState, int]] = []
    ends = []
    for number in range(300):
        name, state, at = draw.choice(names), draw.choice(list(WorkflowState)), START + draw.randrange(50)
        execution = new(at, number, running=state is not PENDING)
        await store.create_execution(definition(name, draw.choice("12")), execution)
        rows.append((execution.execution_id, name, state, at))
        if state in TERMINAL_WORKFLOW_STATES:
            ends.append((execution.execution_id, state, at + 5))
    await end(store, ends)

    for _ in range(60):
        wanted = ExecutionFilter(
            frozenset(draw.sample(list(WorkflowState), draw.randrange(6))),
            draw.choice([None, *names, "unknown"]),
            draw.choice([None, 0, START + draw.randrange(60)]),
            draw.choice([None, START + draw.randrange(60)]),
        )
        expected = sorted(
            (
                execution_id
                for execution_id, name, state, at in rows
                if (not wanted.states or state in wanted.states)
                and wanted.name in (None, name)
                and (wanted.created_from is None or at >= wanted.created_from)
                and (wanted.created_before is None or at < wanted.created_before)
            ),
            reverse=True,
        )
        size = draw.choice([1, 7, 50, 1_000])
        found: list[str] = []
        while page := await store.list_executions(wanted, found[-1] if found else None, size):
            assert len(page) <= size
            found += [summary.execution_id for summary in page]
        assert found == expected, wanted


async def test_times_beyond_what_identifiers_can_hold_are_no_fault(store: Store) -> None:
    await store.create_execution(definition("flow", "1"), new(START))
    for created_from, created_before, count in [(-(10**15), 10**17, 1), (10**17, None, 0), (None, -1, 0)]:
        wanted = ExecutionFilter(created_from=created_from, created_before=created_before)
        assert len(await store.list_executions(wanted, None, 10)) == count


# --- idempotency claims -----------------------------------------------------------------------------


async def test_a_claimed_creation_is_answered_the_same_again(opened: Any) -> None:
    first = await opened.store.create_execution(definition("flow", "1"), new(START, 1), claim())
    assert first == (new(START, 1).execution_id, "id of flow 1")

    store = await opened.reopen()
    assert await store.create_execution(definition("flow", "2"), new(START, 2), claim(created_at=START + 5)) == first
    assert await store.read_execution(new(START, 2).execution_id) is None
    assert await store.find_definition("flow", 2) is None


async def test_a_claim_with_another_fingerprint_is_refused_and_changes_nothing(store: Store) -> None:
    await store.create_execution(definition("flow", "1"), new(START, 1), claim())
    await store.create_execution("id of flow 1", new(START, 3))

    with pytest.raises(IdempotencyConflict):
        await store.create_execution("id of flow 1", new(START, 2), claim(fingerprint="other"))
    with pytest.raises(IdempotencyConflict):
        await store.trigger(new(START, 3).execution_id, b"{}", START, claim(fingerprint="other"))
    listed = await store.list_executions(ExecutionFilter(), None, 10)
    assert [(each.execution_id, each.state) for each in listed] == [
        (new(START, 3).execution_id, PENDING),
        (new(START, 1).execution_id, PENDING),
    ]


async def test_a_claimed_trigger_is_answered_the_same_again(store: Store) -> None:
    execution_id = new(START).execution_id
    await store.create_execution(definition("flow", "1"), new(START))

    assert await store.trigger(execution_id, b"1", START, claim()) == execution_id
    assert await store.trigger(execution_id, b"2", START, claim()) == execution_id
    assert await store.trigger(execution_id, b"3", START) is None
    record = await store.read_execution(execution_id)
    assert record is not None
    assert record.input_text == b"1"


async def test_a_trigger_that_does_nothing_makes_no_claim(store: Store) -> None:
    execution_id = new(START).execution_id
    assert await store.trigger(execution_id, b"1", START, claim()) is None
    await store.create_execution(definition("flow", "1"), new(START))

    assert await store.trigger(execution_id, b"2", START, claim(fingerprint="other")) == execution_id


async def test_a_trigger_that_starts_anew_keeps_its_claim_with_the_new_execution(store: Store) -> None:
    """As the engine does: the claim is made by the creation, and a repeated trigger finds it."""
    await store.create_execution(definition("flow", "1"), new(START))
    await store.cancel_pending(new(START).execution_id, START)
    assert await store.trigger(new(START).execution_id, b"1", START, claim()) is None
    again, _ = await store.create_execution("id of flow 1", new(START, 2, running=True), claim())

    assert await store.trigger(new(START).execution_id, b"1", START, claim()) == again


async def test_of_many_with_one_claim_at_the_same_time_one_happens(store: Store) -> None:
    answers = await asyncio.gather(
        *(store.create_execution(definition("flow", "1"), new(START, number), claim()) for number in range(30))
    )
    assert len(set(answers)) == 1
    assert len(await store.list_executions(ExecutionFilter(), None, 100)) == 1


async def test_of_two_different_requests_with_one_claim_at_the_same_time_one_is_refused(store: Store) -> None:
    answers = await asyncio.gather(
        store.create_execution(definition("flow", "1"), new(START, 1), claim()),
        store.create_execution(definition("flow", "1"), new(START, 2), claim(fingerprint="other")),
        store.create_execution(definition("flow", "1"), new(START, 3), claim("another key")),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [tuple, IdempotencyConflict, tuple]
    assert len(await store.list_executions(ExecutionFilter(), None, 100)) == 2


@pytest.mark.parametrize("size", [1, 5, 300])
async def test_many_claims_at_once_are_each_kept(store: Store, size: int) -> None:
    async def create(number: int) -> tuple[str, str]:
        return await store.create_execution(definition("flow", "1"), new(START, number), claim(f"key {number % size}"))

    first = await asyncio.gather(*map(create, range(size)))
    assert len(set(first)) == size
    again = await asyncio.gather(*map(create, range(size, 2 * size)))
    assert again == first


async def test_old_claims_are_deleted_oldest_first_and_no_others(store: Store) -> None:
    for number in range(6):
        await store.create_execution(
            definition("flow", "1"), new(START, number), claim(f"key {number}", created_at=START + number)
        )

    assert await store.delete_claims(START + 4, 3) == 3
    assert await store.delete_claims(START + 4, 3) == 1
    assert await store.delete_claims(START + 4, 3) == 0
    kept = await store.create_execution("id of flow 1", new(START, 7), claim("key 4"))
    assert kept[0] == new(START, 4).execution_id
    made_anew = await store.create_execution("id of flow 1", new(START, 8), claim("key 3", "other"))
    assert made_anew[0] == new(START, 8).execution_id


# --- retention --------------------------------------------------------------------------------------


async def test_ended_executions_are_deleted_with_everything_of_them_and_no_others(store: Store) -> None:
    executions = {
        name: new(START + at, running=running)
        for name, at, running in [
            ("old", 0, True),
            ("old too", 1, True),
            ("long", 2, True),
            ("running", 3, True),
            ("pending", 4, False),
            ("young", 500, True),
        ]
    }
    for execution in executions.values():
        await store.create_execution(definition("flow", "1"), execution)
        await store.add_cancel(execution.execution_id, START)
    ids = {name: execution.execution_id for name, execution in executions.items()}
    await end(
        store,
        [
            (ids["old"], COMPLETED, START + 100),
            (ids["old too"], WorkflowState.FAILED, START + 200),
            (ids["long"], WorkflowState.CANCELLED, START + 1_000),
            (ids["young"], COMPLETED, START + 900),
        ],
    )

    assert await store.delete_ended_executions(START + 600, 10) == 2
    assert await store.delete_ended_executions(START + 600, 10) == 0
    left = [ids[name] for name in ("young", "pending", "running", "long")]
    assert [each.execution_id for each in await store.list_executions(ExecutionFilter(), None, 10)] == left
    assert sorted(each.record.execution_id for each in await store.load(list(ids.values()))) == sorted(left)
    assert sorted(each.execution_id for each in await store.read_cancels(list(ids.values()))) == sorted(left)
    assert await store.read_outputs(ids["old"], ["a"]) == []
    assert await store.read_outputs(ids["young"], ["a"]) == [("a", b"1")]
    assert await store.find_definition("flow") is not None


async def test_a_deletion_is_bounded(store: Store) -> None:
    executions = [new(START, number, running=True) for number in range(10)]
    for execution in executions:
        await store.create_execution(definition("flow", "1"), execution)
    await end(store, [(execution.execution_id, COMPLETED, START + 1) for execution in executions])

    assert [await store.delete_ended_executions(START + 2, 4) for _ in range(4)] == [4, 4, 2, 0]


# --- API keys ---------------------------------------------------------------------------------------


def key(number: int, **fields: object) -> KeyRecord:
    record = KeyRecord(f"key-{number}", f"name {number}", f"digest {number}", ("read", "run"), START, None, None)
    return record._replace(**fields)


async def test_keys_are_found_by_digest_and_listed_oldest_first(opened: Any) -> None:
    second, first = key(2, created_at=START + 1), key(1, expires_at=START + 9, scopes=())
    for record in (second, first):
        await opened.store.add_key(record)
    store = await opened.reopen()

    assert await store.list_keys() == [first, second]
    assert await store.find_key("digest 2") == second
    assert await store.find_key("digest 3") is None


async def test_a_key_is_revoked_once_and_stays_listed(store: Store) -> None:
    await store.add_key(key(1))

    assert await store.revoke_key("key-1", START + 5) is True
    assert await store.revoke_key("key-1", START + 6) is False
    assert await store.revoke_key("key-2", START + 6) is False
    assert await store.revoke_key("key\x00", START + 6) is False
    assert await store.list_keys() == [key(1, revoked_at=START + 5)]
    assert await store.find_key("digest 1") == key(1, revoked_at=START + 5)


# --- handlers ---------------------------------------------------------------------------------------


def record(name: str, **values: Any) -> HandlerRecord:
    return HandlerRecord(name, "", None, None, None)._replace(**values)


async def test_handlers_are_listed_by_name_each_as_it_was_stored_last(opened: Any) -> None:
    await opened.store.save_handlers([], START)
    assert await opened.store.list_handlers(0) == []
    many = [record(f"h{number:03}", description=f"ö {number}", distribution="d", version="1") for number in range(40)]
    await opened.store.save_handlers(many[::-1], START)
    newer = record("h007", description='two\nlines "quoted"', config_schema='{"const":"\\u0000"}', declared="{}")
    newer = newer._replace(output_schema='{"type":"object"}')
    await opened.store.save_handlers([newer, record("another")], START + 10)
    store = await opened.reopen()

    assert await store.list_handlers(START + 11) == []
    assert await store.list_handlers(START + 10) == [record("another"), newer]
    assert await store.list_handlers(START) == [record("another"), *many[:7], newer, *many[8:]]


async def test_processes_that_start_together_store_their_handlers(store: Store) -> None:
    names = [f"h{number}" for number in range(30)]
    await asyncio.gather(
        *(store.save_handlers([record(each, version=str(n)) for each in names[:: -1 if n % 2 else 1]], START + n)
          for n in range(8))
    )  # fmt: skip
    found = await store.list_handlers(START)
    assert [each.name for each in found] == sorted(names)
    assert len({each.version for each in found}) == 1, "all of one process"
