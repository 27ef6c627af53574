"""What every Broker does: each verb is one step, what is known of a delivery goes by its entry, news reach who listens.

Times are the broker's own, so no test says which they are; it compares them.
"""

from __future__ import annotations

import asyncio

import pytest
from brokers import (
    HTTP,
    MANY,
    BrokerUnderTest,
    heartbeat,
    inbox,
    listening,
    outcome,
    sightings,
    take_all,
    taken_tasks,
    task,
)

from workflow_engine.runtime.broker import Broker, HandIn
from workflow_engine.runtime.core.deliveries import DeliveryKey
from workflow_engine.runtime.core.machine import AttemptError, Outcome

# --- inboxes ------------------------------------------------------------------------------------------


async def test_an_empty_inbox_is_empty(broker: Broker) -> None:
    assert await inbox(broker) == []


async def test_outcomes_come_out_as_they_were_put_in_and_in_order(broker: Broker) -> None:
    outcomes = [
        outcome(task(1), b""),
        outcome(task(2), b"\x00\xff not even JSON \r\n"),
        outcome(task(3), '{"grüße": "😀"}'.encode()),
        outcome(task(4), b"[" + b"1," * 100_000 + b"1]"),
        Outcome("e5", 0, 3, None, AttemptError("http_error", 'went "wrong"\n\0ü', retryable=True), 1, 2, 0.999),
        Outcome("e6", 0, 3, None, AttemptError("x", "", False, retry_after_seconds=1.5), 1_700_000_000_123, 2),
    ]
    await broker.post(3, (), [HandIn(each, None) for each in outcomes])
    assert await inbox(broker) == [([], each) for each in outcomes]


async def test_wake_ups_and_outcomes_can_be_posted_together(broker: Broker) -> None:
    await broker.post(3, ["e1", "e2"], [HandIn(outcome(task(1)), None)])
    await broker.post(3, ["e1"], [])
    assert await inbox(broker) == [(["e1", "e2"], None), ([], outcome(task(1))), (["e1"], None)]


async def test_an_inbox_is_read_from_the_beginning_until_it_is_deleted(broker: Broker) -> None:
    await broker.post(3, (), [HandIn(outcome(task(number)), None) for number in range(5)])
    entries = await broker.read_inbox(3, "", 2)
    assert [entry.outcome for entry in entries] == [outcome(task(0)), outcome(task(1))]
    assert await broker.read_inbox(3, "", 2) == entries
    more = await broker.read_inbox(3, entries[-1].entry_id, MANY)
    assert [entry.outcome for entry in more] == [outcome(task(number)) for number in (2, 3, 4)]
    await broker.delete_from_inbox(3, [entries[1].entry_id, more[0].entry_id, more[0].entry_id])
    await broker.delete_from_inbox(3, [entries[1].entry_id])
    assert [each for _, each in await inbox(broker)] == [outcome(task(number)) for number in (0, 3, 4)]
    assert await broker.read_inbox(3, more[-1].entry_id, MANY) == []


async def test_partitions_are_apart(broker: Broker) -> None:
    await broker.post(3, ["e1"], [HandIn(outcome(task(1)), None)])
    await broker.spill(3, [task(2)])
    assert await inbox(broker, 4) == []
    assert await take_all(broker, partition=4) == []
    assert await sightings(broker, 4) == {}
    assert len(await inbox(broker, 3)) == 2


async def test_the_same_outcome_may_be_posted_twice(broker: Broker) -> None:
    """The state machine says which counts; and the second is told as long as one of them is there."""
    for _ in range(2):
        await broker.post(3, (), [HandIn(outcome(task(1)), None)])
    [first, second] = await broker.read_inbox(3, "", MANY)
    await broker.delete_from_inbox(3, [first.entry_id])
    assert (await broker.look(3)).handed_in == {task(1).key}
    await broker.delete_from_inbox(3, [second.entry_id])
    assert (await broker.look(3)).handed_in == set()


async def test_a_long_inbox_takes_outcomes_and_no_wake_ups(broker: Broker) -> None:
    for start in range(0, 10_000, MANY):
        await broker.post(3, (), [HandIn(outcome(task(number)), None) for number in range(start, start + MANY)])
    await broker.post(3, ["e1"], [HandIn(outcome(task(10_000)), None)])
    await broker.post(3, ["e1"], [])
    entries = await broker.read_inbox(3, "", 20_000)
    assert len(entries) == 10_001
    assert entries[-1].outcome == outcome(task(10_000))


# --- deliveries ---------------------------------------------------------------------------------------


async def test_deliveries_are_taken_once_and_in_order(broker: Broker) -> None:
    await broker.spill(3, [task(number) for number in range(5)])
    first = await broker.take(3, [HTTP], 2, "r1")
    second = await broker.take(3, [HTTP], 2, "r2")
    third = await broker.take(3, [HTTP], 2, "r1")
    assert [taken.task for taken in (*first, *second, *third)] == [task(number) for number in range(5)]
    assert await broker.take(3, [HTTP], 2, "r1") == []


async def test_the_oldest_is_taken_whatever_its_handler(broker: Broker) -> None:
    handlers = ["a", "b", "c d"]
    tasks = [task(number, handlers[number * number % 3]) for number in range(30)]
    for each in tasks[:15]:
        await broker.spill(3, [each])
    await broker.spill(3, tasks[15:])
    assert await taken_tasks(broker, "c d", "b", "a", "a") == tasks


async def test_only_the_handlers_asked_for_are_taken(broker: Broker) -> None:
    await broker.spill(3, [task(1, "a"), task(2, "b"), task(3, "a")])
    assert await take_all(broker, "c") == []
    assert await broker.take(3, [], 10, "r1") == []
    assert await broker.take(3, ["a"], 0, "r1") == []
    assert await taken_tasks(broker, "a") == [task(1, "a"), task(3, "a")]
    assert await taken_tasks(broker, "a", "b") == [task(2, "b")]


async def test_what_is_queued_and_what_is_taken_is_seen(broker: Broker) -> None:
    await broker.spill(3, [task(1), task(2)])
    before = await broker.look(3)
    assert before.whole_since <= before.now
    assert {key: each[1:] for key, each in before.deliveries.items()} == dict.fromkeys(
        [task(1).key, task(2).key], (None, "")
    )
    [taken] = await broker.take(3, [HTTP], 1, "the replica")
    after = await broker.look(3)
    assert after.whole_since == before.whole_since
    assert after.deliveries[task(2).key] == before.deliveries[task(2).key]
    sighting = after.deliveries[task(1).key]
    assert sighting.entry_id == taken.entry_id == before.deliveries[task(1).key].entry_id
    assert sighting.replica == "the replica"
    assert sighting.taken_at is not None
    assert before.now <= sighting.taken_at <= after.now


async def test_a_hand_in_is_seen_and_its_delivery_no_more(broker: Broker) -> None:
    await broker.spill(3, [task(1), task(2)])
    [taken, _] = await take_all(broker)
    await broker.post(3, (), [HandIn(outcome(task(1)), taken.entry_id)])
    sight = await broker.look(3)
    assert sight.handed_in == {task(1).key}
    assert set(sight.deliveries) == {task(2).key}


async def test_a_hand_in_of_another_entry_clears_nothing(broker: Broker) -> None:
    await broker.spill(3, [task(1), task(2)])
    [old, other] = await take_all(broker)
    await broker.spill(3, [task(1)])
    await broker.post(3, (), [HandIn(outcome(task(1)), old.entry_id), HandIn(outcome(task(2)), None)])
    sight = await broker.look(3)
    assert sight.handed_in == {task(1).key, task(2).key}
    assert set(sight.deliveries) == {task(1).key, task(2).key}
    assert sight.deliveries[task(2).key].entry_id == other.entry_id
    assert await taken_tasks(broker) == [task(1)]


async def test_an_attempt_is_known_apart_from_the_next(broker: Broker) -> None:
    await broker.spill(3, [task(1, attempt=1), task(1, attempt=2)])
    [first, _] = await take_all(broker)
    await broker.post(3, (), [HandIn(outcome(task(1, attempt=1)), first.entry_id)])
    assert set(await sightings(broker)) == {task(1, attempt=2).key}


async def test_a_delivery_spilled_again_replaces_the_earlier_entry(broker: Broker) -> None:
    await broker.spill(3, [task(1), task(2)])
    before = await sightings(broker)
    await broker.spill(3, [task(1), task(3), task(3)])
    after = await sightings(broker)
    assert after[task(1).key].entry_id != before[task(1).key].entry_id
    assert await taken_tasks(broker) == [task(2), task(1), task(3)]


async def test_a_delivery_may_be_spilled_again_after_it_was_taken(broker: Broker) -> None:
    await broker.spill(3, [task(1)])
    [old] = await take_all(broker)
    await broker.spill(3, [task(1)])
    assert (await sightings(broker))[task(1).key].taken_at is None
    [new] = await take_all(broker, replica="r2")
    assert new.task == old.task
    assert new.entry_id != old.entry_id
    assert (await sightings(broker))[task(1).key].replica == "r2"


async def test_what_is_given_back_is_queued_behind_the_others(broker: Broker) -> None:
    await broker.spill(3, [task(1), task(2), task(3)])
    taken = await broker.take(3, [HTTP], 2, "r1")
    await broker.give_back(3, taken)
    assert {each.taken_at for each in (await sightings(broker)).values()} == {None}
    again = await take_all(broker, replica="r2")
    assert [each.task for each in again] == [task(3), task(1), task(2)]
    assert not {each.entry_id for each in again} & {taken[0].entry_id, taken[1].entry_id}


async def test_what_is_no_longer_its_own_cannot_be_given_back(broker: Broker) -> None:
    await broker.spill(3, [task(number) for number in range(4)])
    taken = await take_all(broker)
    await broker.spill(3, [task(0)])
    await broker.forget(3, [task(1).key])
    await broker.post(3, (), [HandIn(outcome(task(2)), taken[2].entry_id)])
    await broker.give_back(3, taken)
    assert await taken_tasks(broker) == [task(0), task(3)]
    await broker.give_back(3, taken)
    assert await taken_tasks(broker) == []


async def test_what_is_forgotten_is_neither_taken_nor_known(broker: Broker) -> None:
    await broker.spill(3, [task(number) for number in range(4)])
    await broker.take(3, [HTTP], 2, "r1")
    await broker.forget(3, [task(1).key, task(2).key, task(9).key])
    assert set(await sightings(broker)) == {task(0).key, task(3).key}
    assert await taken_tasks(broker) == [task(3)]


async def test_nothing_to_do_is_done(broker: Broker) -> None:
    async with listening(broker) as news:
        await broker.post(3, (), ())
        await broker.spill(3, ())
        await broker.give_back(3, ())
        await broker.forget(3, ())
        await broker.delete_from_inbox(3, ())
        await broker.publish((), ())
        await broker.spill(3, [task(1)])
        assert list((await anext(news)).tasks) == [3]
    assert await inbox(broker) == []


async def test_many_at_once(broker: Broker) -> None:
    """More than Lua takes as arguments of one call."""
    tasks = [task(number) for number in range(20_000)]
    await broker.spill(3, tasks)
    taken = await broker.take(3, [HTTP], 20_000, "r1")
    assert [each.task for each in taken] == tasks
    await broker.give_back(3, taken[:10_000])
    await broker.post(3, (), [HandIn(outcome(each.task), each.entry_id) for each in taken[10_000:]])
    sight = await broker.look(3)
    assert set(sight.deliveries) == {each.key for each in tasks[:10_000]}
    assert sight.handed_in == {each.key for each in tasks[10_000:]}
    entries = await broker.read_inbox(3, "", 20_000)
    await broker.delete_from_inbox(3, [entry.entry_id for entry in entries])
    await broker.forget(3, sight.deliveries.keys())
    last = await broker.look(3)
    assert last.deliveries == {}
    assert last.handed_in == set()


async def test_several_take_at_the_same_time_and_none_takes_what_another_has(broker: Broker) -> None:
    tasks = [task(number) for number in range(200)]
    await broker.spill(3, tasks)
    taken = await asyncio.gather(*(broker.take(3, [HTTP], 10, f"r{number}") for number in range(20)))
    assert sorted(each.task for some in taken for each in some) == sorted(tasks)
    seen = await sightings(broker)
    for number, some in enumerate(taken):
        assert {seen[each.task.key].replica for each in some} == {f"r{number}"}


# --- what a wipe leaves -------------------------------------------------------------------------------


async def test_after_a_wipe_all_is_empty_and_whole_since_then(
    broker: Broker, broker_under_test: BrokerUnderTest
) -> None:
    await broker.spill(3, [task(1), task(2)])
    taken = await broker.take(3, [HTTP], 1, "r1")
    await broker.post(3, ["e1"], [HandIn(outcome(task(9)), None)])
    before, seen_before = await broker.look(3), await broker.beat(heartbeat("r1"))
    await broker_under_test.wipe()
    after, seen = await broker.look(3), await broker.read_replicas()
    assert before.now <= after.whole_since <= after.now
    assert seen_before.now <= seen.whole_since <= seen.now
    assert (after.deliveries, after.handed_in, seen.seen) == ({}, set(), [])
    assert await take_all(broker) == []
    assert await inbox(broker) == []
    await broker.give_back(3, taken)
    assert await sightings(broker) == {}
    await broker.spill(3, [task(1)])
    assert (await sightings(broker))[task(1).key].entry_id != taken[0].entry_id


# --- heartbeats ---------------------------------------------------------------------------------------


async def test_heartbeats_are_seen_as_they_were_sent(broker: Broker) -> None:
    assert (await broker.read_replicas()).seen == []
    first = heartbeat("r2", DeliveryKey("e1", 0, 1), DeliveryKey("e2", 3, 2))
    alone = await broker.beat(first)
    both = await broker.beat(heartbeat("r1"))
    assert [each.heartbeat for each in alone.seen] == [first]
    assert [each.heartbeat for each in both.seen] == [heartbeat("r1"), first]
    assert alone.whole_since == both.whole_since <= alone.seen[0].at <= both.seen[0].at <= both.now
    assert (await broker.read_replicas()).seen == both.seen


async def test_a_heartbeat_replaces_the_one_before(broker: Broker) -> None:
    await broker.beat(heartbeat("r1", DeliveryKey("e1", 0, 1)))
    assert [each.heartbeat for each in (await broker.beat(heartbeat("r1"))).seen] == [heartbeat("r1")]


async def test_who_retires_is_not_seen_any_more(broker: Broker) -> None:
    await broker.beat(heartbeat("r1"))
    await broker.beat(heartbeat("r2"))
    await broker.retire("r1")
    await broker.retire("never there")
    assert [each.heartbeat.replica for each in (await broker.read_replicas()).seen] == ["r2"]


# --- news ---------------------------------------------------------------------------------------------


async def test_who_listens_hears_what_happens(broker: Broker) -> None:
    async with listening(broker) as news, listening(broker) as others_news:
        await broker.post(3, ["e1"], [])
        await broker.post(4, (), [HandIn(outcome(task(1)), None)])
        await broker.spill(5, [task(1)])
        await broker.give_back(5, await take_all(broker, partition=5))
        await broker.publish(["e1", "e2"], ["e2"])
        await broker.publish((), (), ["r1"])
        # Not always in this order: those of several nodes go several ways.
        for stream in (news, others_news):
            heard = [await anext(stream) for _ in range(6)]
            assert sorted(tuple(map(list, each)) for each in heard) == [
                ([], [], [], [], ["r1"], []),
                ([], [], ["e1", "e2"], ["e2"], [], []),
                ([], [5], [], [], [], []),
                ([], [5], [], [], [], []),
                ([3], [], [], [], [], []),
                ([4], [], [], [], [], []),
            ]


async def test_what_changes_nothing_is_no_news(broker: Broker) -> None:
    await broker.spill(3, [task(1)])
    taken = await take_all(broker)
    await broker.forget(3, [task(1).key])
    async with listening(broker) as news:
        await broker.give_back(3, taken)
        await broker.publish(["e1"], ())
        assert list((await anext(news)).changed) == ["e1"]


@pytest.mark.parametrize("count", [1, 999, 25_000])
async def test_all_of_a_long_list_is_told(broker: Broker, count: int) -> None:
    changed = [f"01890a5d-ac96-774b-bcce-{number:012}" for number in range(count)]
    async with listening(broker) as news:
        await broker.publish(changed, changed[-1:])
        heard: list[str] = []
        ended: list[str] = []
        while len(heard) < count or not ended:
            each = await anext(news)
            heard += each.changed
            ended += each.ended
    assert sorted(heard) == changed
    assert ended == changed[-1:]


async def test_who_stops_listening_costs_nothing_more(broker: Broker) -> None:
    async with listening(broker):
        pass
    async with listening(broker) as news:
        await broker.publish(["e1"], ())
        assert list((await anext(news)).changed) == ["e1"]


# --- the broker itself --------------------------------------------------------------------------------


async def test_a_broker_that_answers_is_well(broker: Broker) -> None:
    health = await broker.health()
    assert health.ok
    assert health.detail


async def test_a_broker_may_be_closed_twice_and_without_having_been_opened(
    broker: Broker, broker_under_test: BrokerUnderTest
) -> None:
    await broker.close()
    await broker.close()
    await broker_under_test.make().close()
