"""What every keeper of permits does: slots over all replicas, buckets that fill with time, keys that are closed.

Times are the broker's own. Where a bucket must not fill while a test looks, a token takes a day.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from brokers import BrokerUnderTest, listening

from workflow_engine.runtime.broker import Broker
from workflow_engine.runtime.core.permits import Answer, Ask, Limits

DAY_MICROSECONDS = 86_400 * 1_000_000
LEASE = 3_600_000
TWO_AT_ONCE = Limits(2, 0, 0)
THREE_A_DAY = Limits(0, 3, DAY_MICROSECONDS)
FIVE_IN_A_MOMENT = Limits(0, 5, 2_000)


async def take(broker: Broker, limits: Limits, *permits: str, key: str = "", lease: int = LEASE) -> Answer:
    return await broker.take_permits("h", limits, [Ask(permit, key) for permit in permits], lease)


def lacking(answer: Answer) -> Sequence[str | None]:
    return [None if refusal is None else refusal.lacks for refusal in answer.refusals]


async def test_so_many_run_at_once_and_no_more(broker: Broker) -> None:
    first = await take(broker, TWO_AT_ONCE, "a", "b", "c")
    assert (lacking(first), first.running) == ([None, None, "slot"], 2)
    assert first.refusals[2] is not None
    assert LEASE / 1000 - 60 < first.refusals[2].seconds <= LEASE / 1000
    await broker.release_permits("h", ["a", "never taken"])
    await broker.release_permits("h", ["a"])
    second = await take(broker, TWO_AT_ONCE, "c", "d")
    assert (lacking(second), second.running) == ([None, "slot"], 2)
    await broker.release_permits("h", ["b", "c"])
    assert (await take(broker, TWO_AT_ONCE)).running == 0


async def test_who_asks_at_the_same_time_gets_no_more_than_there_are(broker: Broker) -> None:
    limits = Limits(7, 0, 0)
    answers = await asyncio.gather(*(take(broker, limits, f"a{each}", f"b{each}") for each in range(20)))
    given = [lacks for answer in answers for lacks in lacking(answer)]
    assert (given.count(None), given.count("slot")) == (7, 33)


async def test_handlers_are_apart(broker: Broker) -> None:
    for handler in ("h", "H", "h.i", "h-i_"):
        answer = await broker.take_permits(
            handler, Limits(1, 1, DAY_MICROSECONDS), [Ask("a", "k"), Ask("b", "k")], LEASE
        )
        assert lacking(answer) == [None, "slot"]


async def test_a_permit_that_is_not_renewed_ends(broker: Broker) -> None:
    await take(broker, TWO_AT_ONCE, "a", "b", lease=1)
    while lacking(answer := await take(broker, TWO_AT_ONCE, "c", lease=LEASE)) != [None]:
        assert answer.refusals[0] is not None
        assert answer.refusals[0].seconds <= 0.001
    assert (await take(broker, TWO_AT_ONCE, "d")).running == 2


async def test_a_renewed_permit_holds(broker: Broker) -> None:
    await take(broker, TWO_AT_ONCE, "a", "b", lease=60_000)
    await broker.renew_permits("h", ["a", "b"], LEASE)
    [refusal] = (await take(broker, TWO_AT_ONCE, "c")).refusals
    assert refusal is not None
    assert refusal.seconds > 60


async def test_a_bucket_gives_what_it_holds(broker: Broker) -> None:
    answer = await take(broker, THREE_A_DAY, "a", "b", "c", "d")
    assert (lacking(answer), answer.running) == ([None, None, None, "token"], 0)
    assert answer.refusals[3] is not None
    assert 86_400 / 3 - 60 < answer.refusals[3].seconds <= 86_400 / 3
    assert lacking(await take(broker, THREE_A_DAY, "e")) == ["token"]


async def test_a_bucket_fills_with_time(broker: Broker) -> None:
    """Five tokens in two milliseconds: whoever looks a few times has seen all of them come back."""
    given = 0
    while given < 50:
        some = lacking(await take(broker, FIVE_IN_A_MOMENT, *map(str, range(10)))).count(None)
        assert some <= 5
        given += some


async def test_each_key_has_its_bucket(broker: Broker) -> None:
    keys = ["", "a", "b", "{x} \r\n*", "größe 😀", "k" * 500]
    for key in keys:
        assert lacking(await take(broker, THREE_A_DAY, "1", "2", "3", "4", key=key)) == [None, None, None, "token"], key
    asks = [Ask("1", "new"), Ask("2", "a"), Ask("3", "new"), Ask("4", "newer"), Ask("5", "new"), Ask("6", "new")]
    answer = await broker.take_permits("h", THREE_A_DAY, asks, LEASE)
    assert lacking(answer) == [None, "token", None, None, None, "token"]


async def test_who_gets_no_slot_uses_no_token_and_the_other_way_round(broker: Broker) -> None:
    limits = Limits(1, 2, DAY_MICROSECONDS)
    assert lacking(await take(broker, limits, "a", "b", "c")) == [None, "slot", "slot"]
    await broker.release_permits("h", ["a"])
    assert lacking(await take(broker, limits, "b")) == [None]
    await broker.release_permits("h", ["b"])
    asks = [Ask("c", ""), Ask("d", "other")]
    answer = await broker.take_permits("h", limits, asks, LEASE)
    assert (lacking(answer), answer.running) == (["token", None], 1)


async def test_a_closed_key_gives_nothing_and_others_do(broker: Broker) -> None:
    await broker.close_key("h", THREE_A_DAY, "a", 3_600)
    await broker.close_key("h", THREE_A_DAY, "a", 60)
    [refusal] = (await take(broker, THREE_A_DAY, "1", key="a")).refusals
    assert refusal is not None
    assert refusal.lacks == "token"
    assert 3_540 < refusal.seconds <= 3_600
    assert lacking(await take(broker, THREE_A_DAY, "1", key="b")) == [None]


async def test_a_key_opens_again_with_what_it_had(broker: Broker) -> None:
    assert lacking(await take(broker, THREE_A_DAY, "1")) == [None]
    await broker.close_key("h", THREE_A_DAY, "", 0.002)
    while (answer := await take(broker, THREE_A_DAY, "2")).refusals[0] is not None:
        assert answer.refusals[0].seconds <= 0.002
    assert lacking(await take(broker, THREE_A_DAY, "3", "4")) == [None, "token"]


async def test_who_was_refused_a_slot_hears_of_the_next_one_once(broker: Broker) -> None:
    async with listening(broker) as news:
        await take(broker, TWO_AT_ONCE, "a", "b")
        await broker.release_permits("h", ["a"])
        await take(broker, TWO_AT_ONCE, "c", "d")
        await broker.release_permits("h", ["unknown"])
        await broker.release_permits("h", ["b"])
        await broker.release_permits("h", ["c"])
        await broker.publish((), (), ["the end"])
        heard = [await anext(news) for _ in range(2)]
        assert [(list(each.permits), list(each.owners)) for each in heard] == [(["h"], []), ([], ["the end"])]


async def test_after_a_wipe_all_is_free_until_it_is_renewed(broker: Broker, broker_under_test: BrokerUnderTest) -> None:
    await take(broker, Limits(2, 3, DAY_MICROSECONDS), "a", "b")
    await broker_under_test.wipe()
    await broker.renew_permits("h", ["a"], LEASE)
    answer = await take(broker, Limits(2, 3, DAY_MICROSECONDS), "c", "d")
    assert (lacking(answer), answer.running) == ([None, "slot"], 2)


async def test_many_permits_at_once(broker: Broker) -> None:
    """More than Lua takes as arguments of one call."""
    names = [f"p{each}" for each in range(10_000)]
    answer = await take(broker, Limits(9_999, 0, 0), *names)
    assert lacking(answer).count("slot") == 1
    await broker.renew_permits("h", names, LEASE)
    await broker.release_permits("h", names)
    assert (await take(broker, TWO_AT_ONCE)).running == 0
