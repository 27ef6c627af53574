"""What others write into Redis, damaged, of another version, or hostile, counts for nothing and stops nobody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from brokers import heartbeat, inbox, listening, outcome, sightings, take_all, taken_tasks, task
from redis_server import RedisServer

from workflow_engine.runtime.broker import HandIn
from workflow_engine.runtime.core.deliveries import DeliveryKey
from workflow_engine.runtime.errors import BrokerUnavailable
from workflow_engine.runtime.transport.redis import RedisBroker
from workflow_engine.runtime.transport.redis_values import heartbeat_text, outcome_header

HEADER = json.loads(outcome_header(outcome(task(1))))
DEEP = "[" * 100_000


def header(**changed: Any) -> str:
    """A good header with other parts in it."""
    names = ("execution_id", "node", "attempt", "started_at", "finished_at", "jitter", "error")
    return json.dumps([changed.get(name, part) for name, part in zip(names, HEADER, strict=True)])


BAD_ENTRIES: dict[str, dict[str, str | bytes]] = {
    "no fields of ours": {"x": "y"},
    "no version": {"h": header(), "o": "1"},
    "another version": {"v": "2", "h": header(), "o": "1"},
    "no output": {"v": "1", "h": header()},
    "no header": {"v": "1", "o": "1"},
    "a field more": {"v": "1", "h": header(), "o": "1", "x": "y"},
    "both kinds": {"v": "1", "w": "[]", "h": header(), "o": "1"},
    "no JSON": {"v": "1", "h": header()[:-1], "o": "1"},
    "no text": {"v": "1", "h": b"\xff\xfe", "o": "1"},
    "deep": {"v": "1", "h": DEEP, "o": "1"},
    "an object": {"v": "1", "h": "{}", "o": "1"},
    "a part less": {"v": "1", "h": json.dumps(HEADER[:-1]), "o": "1"},
    "a part more": {"v": "1", "h": json.dumps([*HEADER, 1]), "o": "1"},
    "no execution": {"v": "1", "h": header(execution_id=""), "o": "1"},
    "a NUL": {"v": "1", "h": header(execution_id="e\0"), "o": "1"},
    "half a character": {"v": "1", "h": header(execution_id="e\ud800"), "o": "1"},
    "a long execution": {"v": "1", "h": header(execution_id="e" * 10_000), "o": "1"},
    "a number for an execution": {"v": "1", "h": header(execution_id=1), "o": "1"},
    "a negative node": {"v": "1", "h": header(node=-1), "o": "1"},
    "a large node": {"v": "1", "h": header(node=2**31), "o": "1"},
    "a true node": {"v": "1", "h": header(node=True), "o": "1"},
    "a broken node": {"v": "1", "h": header(node=1.0), "o": "1"},
    "a text for an attempt": {"v": "1", "h": header(attempt="1"), "o": "1"},
    "an endless attempt": {"v": "1", "h": header(attempt=7).replace("7", "7" * 5_000), "o": "1"},
    "a moment before time": {"v": "1", "h": header(started_at=-1), "o": "1"},
    "no moment": {"v": "1", "h": header(finished_at=None), "o": "1"},
    "a draw of one": {"v": "1", "h": header(jitter=1.0), "o": "1"},
    "a draw that is none": {"v": "1", "h": header(jitter=float("nan")), "o": "1"},
    "an output and an error": {"v": "1", "h": header(error=["x", "y", True, None]), "o": "1"},
    "a short error": {"v": "1", "h": header(error=["x", "y", True]), "o": ""},
    "an error with numbers": {"v": "1", "h": header(error=[1, 2, True, None]), "o": ""},
    "an error that may be retried a bit": {"v": "1", "h": header(error=["x", "y", 1, None]), "o": ""},
    "a retry before now": {"v": "1", "h": header(error=["x", "y", True, -1]), "o": ""},
    "a retry at the end of time": {"v": "1", "h": header(error=["x", "y", True, float("inf")]), "o": ""},
    "a retry that is true": {"v": "1", "h": header(error=["x", "y", True, True]), "o": ""},
    "wake-ups that are none": {"v": "1", "w": '"e1"'},
    "a wake-up that is none": {"v": "1", "w": '["e1", 2]'},
}


@pytest.fixture
async def broker(redis_server: RedisServer) -> AsyncIterator[RedisBroker]:
    """An open broker on an empty server."""
    redis_server.ask("FLUSHALL")
    broker = RedisBroker(redis_server.address, max_connections=5, timeout_seconds=60.0)
    await broker.open()
    yield broker
    await broker.close()


def add(server: RedisServer, stream: str, fields: dict[str, str | bytes]) -> None:
    server.ask("XADD", stream, "*", *(part for pair in fields.items() for part in pair))


@pytest.mark.parametrize("name", BAD_ENTRIES)
async def test_a_bad_entry_of_an_inbox_is_deleted_and_said(
    redis_server: RedisServer, broker: RedisBroker, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    await broker.post(3, ["e1"], [])
    add(redis_server, "{wf:3}:inbox", BAD_ENTRIES[name])
    await broker.post(3, (), [HandIn(outcome(task(1)), None)])
    assert await inbox(broker) == [(["e1"], None), ([], outcome(task(1)))]
    assert "an entry of the inbox of partition 3 that cannot be read" in caplog.text
    assert redis_server.ask("XLEN", "{wf:3}:inbox") == 2


async def test_good_entries_behind_bad_ones_are_found_whatever_the_limit(
    redis_server: RedisServer, broker: RedisBroker, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(50):
        add(redis_server, "{wf:3}:inbox", {"x": "y"})
    await broker.post(3, ["e1"], [])
    [entry] = await broker.read_inbox(3, "", 5)
    assert entry.wake_ups == ["e1"]
    assert len(caplog.records) < 5  # a line a second


async def test_a_bad_entry_of_a_queue_is_deleted_and_said(
    redis_server: RedisServer, broker: RedisBroker, caplog: pytest.LogCaptureFixture
) -> None:
    queue = "{wf:3}:tasks:http_request"
    redis_server.ask("XADD", queue, "1-1", "x", "y")
    redis_server.ask("XADD", queue, "1-2", "v", "2", "k", "1 1 e1", "d", "sha256:abc")
    redis_server.ask("XADD", queue, "1-3", "v", "1", "k", "-1 1 e1", "d", "sha256:abc")
    redis_server.ask("XADD", queue, "1-4", "v", "1", "k", "1 1 ", "d", "sha256:abc")
    await broker.spill(3, [task(1)])
    assert await taken_tasks(broker) == [task(1)]
    assert set(await sightings(broker)) == {task(1).key}
    assert "a delivery of partition 3 that cannot be read" in caplog.text
    assert redis_server.ask("XLEN", queue) == 0


async def test_a_delivery_that_only_looks_like_one_is_not_handed_out(
    redis_server: RedisServer, broker: RedisBroker
) -> None:
    queue = "{wf:3}:tasks:http_request"
    redis_server.ask("XADD", queue, "1-1", "v", "1", "k", "1 99999999999999999999 e1", "d", "sha256:abc")
    redis_server.ask("XADD", queue, "1-2", "v", "1", "k", "1 1 e\x00", "d", "sha256:abc")
    redis_server.ask("XADD", queue, "1-3", "v", "1", "k", "1 1 e1", "d", b"\xff")
    assert await take_all(broker) == []
    # That there was one is known only of the last, so that its owner will count it as lost.
    assert list(await sightings(broker)) == [DeliveryKey("e1", 1, 1)]
    assert redis_server.ask("HKEYS", "{wf:3}:out") == [b"1 1 e1"]


async def test_what_is_known_and_cannot_be_read_is_forgotten(
    redis_server: RedisServer, broker: RedisBroker, caplog: pytest.LogCaptureFixture
) -> None:
    await broker.spill(3, [task(1), task(2)])
    known = redis_server.ask("HGET", "{wf:3}:out", "1 1 e1")
    for key, value in {
        "x": known,
        "1 1": known,
        "-1 1 e1": known,
        b"\xff": known,
        "2 1 e2": "x",
        "9 1 e9": "\n\n",
    }.items():
        redis_server.ask("HSET", "{wf:3}:out", key, value)
    for entry_id in ("1-1", "2-1"):
        redis_server.ask("XADD", "{wf:3}:inbox", entry_id, "v", "1")
    redis_server.ask("HSET", "{wf:3}:outcomes", "1-1", "x", "2-1", "7 1 e7")
    sight = await broker.look(3)
    assert set(sight.deliveries) == {task(1).key}
    assert {key.execution_id for key in sight.handed_in} == {"e7"}
    assert redis_server.ask("HKEYS", "{wf:3}:out") == [b"1 1 e1"]
    assert redis_server.ask("HKEYS", "{wf:3}:outcomes") == [b"2-1"]
    assert "what is known of a delivery of partition 3 that cannot be read" in caplog.text


async def test_what_was_trimmed_from_its_stream_is_known_no_more(
    redis_server: RedisServer, broker: RedisBroker
) -> None:
    await broker.spill(3, [task(1), task(2)])
    await broker.post(3, (), [HandIn(outcome(task(3)), None), HandIn(outcome(task(4)), None)])
    for stream in ("{wf:3}:tasks:http_request", "{wf:3}:inbox"):
        redis_server.ask("XTRIM", stream, "MAXLEN", 1)
    sight = await broker.look(3)
    assert set(sight.deliveries) == {task(2).key}
    assert set(sight.handed_in) == {task(4).key}
    redis_server.ask("DEL", "{wf:3}:tasks:http_request", "{wf:3}:inbox")
    sight = await broker.look(3)
    assert (set(sight.deliveries), set(sight.handed_in)) == (set(), set())


@pytest.mark.parametrize("known", ["x", "99999999999999999999-1\n\n\nhttp_request", "1-1\n\n\n", "\n\n\n"])
async def test_what_is_known_and_wrong_is_in_the_way_of_nothing(
    redis_server: RedisServer, broker: RedisBroker, known: str
) -> None:
    for call in (
        lambda: broker.spill(3, [task(1)]),
        lambda: broker.forget(3, [task(1).key]),
        lambda: broker.post(3, (), [HandIn(outcome(task(1)), "1-1")]),
    ):
        redis_server.ask("HSET", "{wf:3}:out", "1 1 e1", known)
        await call()
    await broker.spill(3, [task(1)])
    assert task(1) in await taken_tasks(broker)


async def test_wrong_ids_of_a_partition_are_made_anew(redis_server: RedisServer, broker: RedisBroker) -> None:
    await broker.spill(3, [task(1)])
    for name, value in (("number", "x"), ("milliseconds", ""), ("milliseconds", "1e2x")):
        redis_server.ask("HSET", "{wf:3}:whole", name, value)
        await broker.spill(3, [task(2)])
    assert await taken_tasks(broker) == [task(1), task(2)]


GOOD = heartbeat_text(heartbeat("r1"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        GOOD,
        f"x {GOOD}",
        "9999999999999 {}",
        "9999999999999 []",
        "9999999999999 " + DEEP,
        "9999999999999 " + GOOD.replace('"v":1', '"v":2'),
        "9999999999999 " + GOOD.replace('"slots":16', '"slots":-1'),
        "9999999999999 " + GOOD.replace('"slots":16', '"slots":"16"'),
        "9999999999999 " + GOOD.replace('"slots":16', '"slots":16,"more":1'),
        "9999999999999 " + GOOD.replace('"replica":"r1"', '"replica":""'),
        "9999999999999 " + GOOD.replace('"attempts":[]', '"attempts":[["e1",1]]'),
        "9999999999999 " + GOOD.replace('"attempts":[]', '"attempts":[["e1",-1,1]]'),
        "9999999999999 " + GOOD.replace('"attempts":[]', '"attempts":{}'),
        "9999999999999 " + GOOD.replace('"worker"', "7"),
    ],
    ids=range(16),
)
async def test_a_bad_heartbeat_is_nobodys(
    redis_server: RedisServer, broker: RedisBroker, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    redis_server.ask("HSET", "{wf}:replicas", "r9", text)
    assert (await broker.read_replicas()).seen == []
    assert "a heartbeat that cannot be read" in caplog.text
    assert [each.heartbeat for each in (await broker.beat(heartbeat("r2"))).seen] == [heartbeat("r2")]


async def test_heartbeats_that_are_ten_minutes_old_are_forgotten(
    redis_server: RedisServer, broker: RedisBroker
) -> None:
    now = (await broker.read_replicas()).now
    for name, at in (("old", now - 600_000), ("young", now - 500_000)):
        redis_server.ask("HSET", "{wf}:replicas", name, f"{at} {heartbeat_text(heartbeat(name))}")
    assert [each.heartbeat.replica for each in (await broker.read_replicas()).seen] == ["old", "young"]
    assert [each.heartbeat.replica for each in (await broker.beat(heartbeat("r1"))).seen] == ["r1", "young"]
    assert sorted(redis_server.ask("HKEYS", "{wf}:replicas")) == [b"r1", b"young"]


async def test_bad_news_are_none(
    redis_server: RedisServer, broker: RedisBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(broker) as news:
        for text in ("", "x", "[]", '{"i":["x"]}', '{"t":[-1]}', '{"c":"e1"}', '{"e":[null]}', DEEP, b"\xff"):
            redis_server.ask("PUBLISH", "wf:news", text)
        redis_server.ask("PUBLISH", "wf:news", '{"of another version":[1],"i":[7]}')
        assert list((await anext(news)).inbox) == [7]
    assert "news that cannot be read" in caplog.text


async def test_a_key_of_another_type_is_unavailability_until_it_is_gone(
    redis_server: RedisServer, broker: RedisBroker
) -> None:
    redis_server.ask("SET", "{wf:3}:out", "x")
    with pytest.raises(BrokerUnavailable, match=r"refuses: .*WRONGTYPE"):
        await broker.spill(3, [task(1)])
    with pytest.raises(BrokerUnavailable, match=r"refuses: .*WRONGTYPE"):
        await broker.look(3)
    redis_server.ask("DEL", "{wf:3}:out")
    await broker.spill(3, [task(1)])
    assert await taken_tasks(broker) == [task(1)]
