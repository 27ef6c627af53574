"""The broker on a real Redis that fails: what is lost costs time only, and every outage heals by itself."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from brokers import heartbeat, inbox, listening, outcome, sightings, take_all, taken_tasks, task
from redis_server import SLOTS, RedisCluster, RedisServer

from workflow_engine.runtime.broker import Broker, HandIn, News
from workflow_engine.runtime.errors import BrokerUnavailable, SetupError
from workflow_engine.runtime.transport.redis import RedisBroker
from workflow_engine.runtime.transport.redis_connections import RedisAddress

LONG_SECONDS = 60.0
SHORT_SECONDS = 0.05
SECRET = "the-secret-password"

Make = Callable[..., Awaitable[RedisBroker]]
MakeServer = Callable[..., RedisServer]

ON_EACH_SERVER = pytest.mark.parametrize("shared_server", ["redis_server", "system_redis_server"])


@pytest.fixture
async def make_broker() -> AsyncIterator[Make]:
    """`await make_broker(address)`: an open broker. Keywords are its options."""
    async with AsyncExitStack() as stack:

        async def make(address: RedisAddress, **options: Any) -> RedisBroker:
            broker = RedisBroker(address, **{"timeout_seconds": LONG_SECONDS, "max_connections": 10, **options})
            stack.push_async_callback(broker.close)
            await broker.open()
            return broker

        yield make


@pytest.fixture
def make_server() -> Iterator[MakeServer]:
    """`make_server(requirepass="x")`: a server of the test's own, started. Keywords are its settings."""
    servers: list[RedisServer] = []

    def make(**settings: str) -> RedisServer:
        server = RedisServer({name.replace("_", "-"): value for name, value in settings.items()})
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(shared_server: str, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """The tests' Valkey and the system's Redis, empty; as they were when the test is over."""
    server: RedisServer = request.getfixturevalue(shared_server)
    server.ask("FLUSHALL")
    yield server
    server.ask("CONFIG", "SET", "maxmemory", 0)
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("REPLICAOF", "NO", "ONE")


@pytest.fixture
async def answer_with() -> AsyncIterator[Callable[[bytes], Awaitable[RedisAddress]]]:
    """`await answer_with(b"-LOADING ...")`: the address of a server that says this to everything, or nothing at all."""
    async with AsyncExitStack() as servers:

        async def make(answer: bytes) -> RedisAddress:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                while await reader.read(65_536):
                    writer.write(answer)
                writer.close()

            server = await servers.enter_async_context(await asyncio.start_server(serve, "127.0.0.1"))
            return RedisAddress("127.0.0.1", server.sockets[0].getsockname()[1])

        yield make


def bulk(text: str) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text.encode())


async def eventually(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call returns as soon as the broker answers again."""
    async with asyncio.timeout(LONG_SECONDS):
        while True:
            with suppress(BrokerUnavailable):
                return await call()


async def use_all(broker: Broker) -> None:
    """Everything that a partition goes through, with an answer to each."""
    await broker.spill(3, [task(1), task(2), task(3)])
    taken = await take_all(broker)
    assert [each.task for each in taken] == [task(1), task(2), task(3)]
    await broker.give_back(3, taken[:1])
    await broker.post(3, ["e1"], [HandIn(outcome(task(2)), taken[1].entry_id)])
    sight = await broker.look(3)
    assert set(sight.deliveries) == {task(1).key, task(3).key}
    assert sight.handed_in == {task(2).key}
    assert await inbox(broker) == [(["e1"], None), ([], outcome(task(2)))]
    await broker.delete_from_inbox(3, [entry.entry_id for entry in await broker.read_inbox(3, "", 10)])
    await broker.forget(3, sight.deliveries.keys())
    assert await taken_tasks(broker) == []
    assert [each.heartbeat for each in (await broker.beat(heartbeat("r1"))).seen] == [heartbeat("r1")]
    await broker.retire("r1")
    await broker.publish(["e1"], [])


# --- what a server loses ------------------------------------------------------------------------------


async def test_scripts_that_the_server_has_forgotten_are_sent_again(
    redis_server: RedisServer, make_broker: Make
) -> None:
    redis_server.ask("FLUSHALL")
    broker = await make_broker(redis_server.address)
    for _ in range(2):
        await use_all(broker)
        redis_server.ask("SCRIPT", "FLUSH")
    await use_all(broker)


async def test_a_wipe_in_the_middle_is_seen_by_its_time_and_work_goes_on(
    redis_server: RedisServer, make_broker: Make
) -> None:
    redis_server.ask("FLUSHALL")
    broker = await make_broker(redis_server.address)
    async with listening(broker) as news:
        await broker.spill(3, [task(1), task(2)])
        [taken, _] = await take_all(broker)
        before = await broker.look(3)
        redis_server.ask("FLUSHALL")
        # The outcome gets through, though nothing is known of its delivery any more.
        await broker.post(3, (), [HandIn(outcome(task(1)), taken.entry_id)])
        after = await broker.look(3)
        assert after.whole_since >= before.now
        assert after.handed_in == {task(1).key}
        assert after.deliveries == {}
        redis_server.ask("FLUSHALL")
        await use_all(broker)
        assert list((await anext(news)).tasks) == [3]
        assert list((await anext(news)).inbox) == [3]


async def test_a_killed_server_is_away_at_once_and_comes_back_with_what_it_had(
    make_server: MakeServer, make_broker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(appendonly="yes", appendfsync="always")
    broker = await make_broker(server.address)
    await broker.spill(3, [task(1), task(2)])
    [taken] = await broker.take(3, ["http_request"], 1, "r1")
    before = await broker.look(3)
    server.kill()
    for call in (broker.look(3), broker.spill(3, [task(3)]), broker.read_replicas(), broker.publish(["e1"], ())):
        with pytest.raises(BrokerUnavailable, match=f"no connection to Redis at 127.0.0.1:{server.port}/0"):
            await call
    assert not (await broker.health()).ok
    with caplog.at_level(logging.INFO):
        server.start()
        after = await eventually(lambda: broker.look(3))
    assert "answers again" in caplog.text
    assert after.deliveries == before.deliveries
    assert after.whole_since == before.whole_since
    await broker.post(3, (), [HandIn(outcome(task(1)), taken.entry_id)])
    assert set(await sightings(broker)) == {task(2).key}
    assert (await broker.health()).ok


async def test_a_killed_server_that_kept_nothing_says_since_when_it_is_whole(
    make_server: MakeServer, make_broker: Make
) -> None:
    server = make_server()
    broker = await make_broker(server.address)
    await broker.spill(3, [task(1)])
    before, seen_before = await broker.look(3), await broker.beat(heartbeat("r1"))
    server.kill()
    server.start()
    after, seen_after = await eventually(lambda: broker.look(3)), await broker.read_replicas()
    assert (after.deliveries, seen_after.seen) == ({}, [])
    assert after.whole_since >= before.now
    assert seen_after.whole_since >= seen_before.now


async def test_a_hand_in_takes_a_delivery_out_of_the_queue_that_a_rollback_has_put_back(
    make_server: MakeServer, make_broker: Make
) -> None:
    server = make_server()
    broker = await make_broker(server.address)
    await broker.spill(3, [task(1), task(2), task(3)])
    server.ask("SAVE")
    taken = await broker.take(3, ["http_request"], 2, "r1")
    server.kill()
    server.start()
    await eventually(lambda: broker.post(3, (), [HandIn(outcome(task(1)), taken[0].entry_id)]))
    await broker.give_back(3, taken[1:])
    assert set(await sightings(broker)) == {task(2).key, task(3).key}
    assert await taken_tasks(broker) == [task(3), task(2)]


# --- what a server refuses ----------------------------------------------------------------------------


@ON_EACH_SERVER
async def test_without_memory_nothing_is_queued_but_everything_that_ends_work_goes_on(
    server: RedisServer, make_broker: Make
) -> None:
    broker = await make_broker(server.address)
    await broker.spill(3, [task(1), task(2), task(3)])
    await broker.post(3, ["e1"], [])
    server.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(BrokerUnavailable, match=r"refuses: .*maxmemory"):
        await broker.spill(3, [task(4)])
    with pytest.raises(BrokerUnavailable, match=r"refuses: .*maxmemory"):
        await broker.post(3, ["e2"], [])
    taken = await take_all(broker)
    await broker.give_back(3, taken[:1])
    await broker.post(3, (), [HandIn(outcome(task(2), b"1" * 100_000), taken[1].entry_id)])
    assert (await broker.look(3)).handed_in == {task(2).key}
    assert len((await broker.beat(heartbeat("r1"))).seen) == 1
    entries = await broker.read_inbox(3, "", 10)
    await broker.delete_from_inbox(3, [entry.entry_id for entry in entries])
    await broker.forget(3, [task(1).key, task(3).key])
    assert await sightings(broker) == {}
    assert await inbox(broker) == []
    # A partition that nothing was ever told of, too.
    await broker.post(4, (), [HandIn(outcome(task(5)), None)])
    assert (await broker.look(4)).handed_in == {task(5).key}


@ON_EACH_SERVER
async def test_a_server_that_only_follows_is_neither_written_to_nor_believed(
    server: RedisServer, make_broker: Make, unused_tcp_port: int
) -> None:
    broker = await make_broker(server.address)
    await broker.spill(3, [task(1)])
    await broker.beat(heartbeat("r1"))
    server.ask("REPLICAOF", "127.0.0.1", unused_tcp_port)
    for call in (
        broker.look(3),
        broker.read_replicas(),
        broker.take(3, ["http_request"], 1, "r1"),
        broker.spill(3, [task(2)]),
        broker.post(3, (), [HandIn(outcome(task(1)), None)]),
        broker.forget(3, [task(1).key]),
        broker.beat(heartbeat("r1")),
        broker.retire("r1"),
    ):
        with pytest.raises(BrokerUnavailable, match=r"refuses: .*read only replica"):
            await call
    server.ask("REPLICAOF", "NO", "ONE")
    assert await taken_tasks(broker) == [task(1)]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"-LOADING Redis is loading the dataset in memory\r\n", "refuses: .*loading the dataset"),
        (b"-BUSY Redis is busy running a script.\r\n", "refuses: .*busy running a script"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "refuses: .*MASTER is down"),
        (b"-MISCONF Redis is configured to save RDB snapshots\r\n", "refuses: .*save RDB snapshots"),
        (b"-NOREPLICAS Not enough good replicas to write.\r\n", "refuses: .*good replicas"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "refuses: .*cluster is down"),
        (b"-NOAUTH Authentication required.\r\n", "does not take the user or the password: .*required"),
        (b"-ERR max number of clients reached\r\n", "max number of clients"),
        (b"-ERR something new\r\n", "refuses: .*something new"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no connection to Redis"),
        (b"\x00\xff\r\n", "no connection to Redis"),
    ],
    ids=lambda value: value.split()[0].decode("latin-1") if isinstance(value, bytes) else "",
)
async def test_whatever_a_server_says_is_unavailability_and_never_more(
    answer_with: Callable[[bytes], Awaitable[RedisAddress]], make_broker: Make, answer: bytes, said: str
) -> None:
    broker = await make_broker(await answer_with(answer))
    for call in (broker.look(3), broker.read_inbox(3, "", 10), anext(broker.listen())):
        with pytest.raises(BrokerUnavailable, match=said):
            await call
    health = await broker.health()
    assert not health.ok
    assert re.search(said, health.detail)


async def test_a_server_that_does_not_answer_fails_a_call_when_its_time_is_over(
    answer_with: Callable[[bytes], Awaitable[RedisAddress]], make_broker: Make
) -> None:
    broker = await make_broker(await answer_with(b""), timeout_seconds=SHORT_SECONDS)
    for call in (broker.look(3), broker.spill(3, [task(1)]), anext(broker.listen())):
        with pytest.raises(BrokerUnavailable, match=r"did not answer within 0\.05 seconds"):
            await call


async def test_a_server_that_stands_still_is_given_up_and_taken_up_again(
    make_server: MakeServer, make_broker: Make
) -> None:
    server = make_server()
    broker = await make_broker(server.address, timeout_seconds=0.5)
    await broker.spill(3, [task(1)])
    server.pause()
    with pytest.raises(BrokerUnavailable, match="did not answer"):
        await asyncio.gather(*(broker.look(3) for _ in range(20)))
    server.resume()
    assert await eventually(lambda: sightings(broker)) != {}


async def test_a_wrong_password_is_said_and_never_shown(
    make_server: MakeServer, make_broker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(requirepass="another")
    broker = await make_broker(server.address._replace(password=SECRET))
    with pytest.raises(BrokerUnavailable, match="does not take the user or the password") as raised:
        await broker.look(3)
    assert "does not take the user or the password" in (await broker.health()).detail
    assert SECRET not in str(raised.value) + caplog.text
    server.ask("CONFIG", "SET", "requirepass", SECRET)
    assert (await broker.look(3)).deliveries == {}


async def test_a_password_that_a_server_quotes_is_not_shown(
    answer_with: Callable[[bytes], Awaitable[RedisAddress]], make_broker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    address = await answer_with(f"-ERR unknown command 'AUTH', with args beginning with: '{SECRET}'\r\n".encode())
    broker = await make_broker(address._replace(password=SECRET))
    with pytest.raises(BrokerUnavailable, match=re.escape("unknown command 'AUTH', with args beginning with: '...'")):
        await broker.look(3)
    assert SECRET not in caplog.text + (await broker.health()).detail


async def test_an_url_stands_for_the_parts(make_server: MakeServer, make_broker: Make) -> None:
    server = make_server(requirepass=SECRET)
    address = RedisAddress("never-asked", 1, 0, None, f"redis://:{SECRET}@127.0.0.1:{server.port}/5")
    broker = await make_broker(address)
    await use_all(broker)
    assert str(address) == f"127.0.0.1:{server.port}/5"
    assert list(server.ask("INFO", "keyspace")) == ["db5"]


@pytest.mark.parametrize("url", [f"http://:{SECRET}@x/", f"redis://:x@y:{SECRET}/0"])
async def test_an_url_that_is_none_is_refused_and_not_quoted(make_broker: Make, url: str) -> None:
    with pytest.raises(SetupError, match="the address of Redis cannot be used") as raised:
        await make_broker(RedisAddress("x", 1, url=url))
    assert SECRET not in str(raised.value)


# --- what a server must be ----------------------------------------------------------------------------


@ON_EACH_SERVER
async def test_a_server_that_may_evict_is_refused_or_complained_of(
    server: RedisServer, make_broker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    said = "its maxmemory-policy is allkeys-lru. Set it to noeviction"
    with pytest.raises(SetupError, match=said):
        await make_broker(server.address, strict=True)
    assert caplog.text == ""
    broker = await make_broker(server.address)
    assert said in caplog.text
    health = await broker.health()
    assert health.ok
    assert said in health.detail
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert said not in (await broker.health()).detail
    await make_broker(server.address, strict=True)


async def test_the_policy_of_every_node_of_a_cluster_counts(redis_cluster: RedisCluster, make_broker: Make) -> None:
    redis_cluster.servers[2].ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(SetupError, match="allkeys-lru"):
            await make_broker(redis_cluster.address, cluster=True, strict=True)
    finally:
        redis_cluster.servers[2].ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_a_server_that_is_away_at_first_is_waited_for_and_judged_when_it_comes(
    make_server: MakeServer, make_broker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server(maxmemory_policy="allkeys-lru")
    server.stop()
    broker = await make_broker(server.address, strict=True)
    assert f"no connection to Redis at 127.0.0.1:{server.port}/0" in caplog.text
    with pytest.raises(BrokerUnavailable):
        await broker.look(3)
    server.start()
    caplog.clear()
    await asyncio.gather(*(broker.look(3) for _ in range(5)))
    assert [record.levelname for record in caplog.records if "allkeys-lru" in record.message] == ["ERROR"]


async def test_a_server_that_is_too_old_is_refused(
    answer_with: Callable[[bytes], Awaitable[RedisAddress]], make_broker: Make
) -> None:
    address = await answer_with(bulk("redis_version:6.0.16\r\nmaxmemory_policy:noeviction\r\n"))
    with pytest.raises(SetupError, match=r"Redis 6\.0\.16 is too old: Redis 6\.2 or newer is needed"):
        await make_broker(address)


@ON_EACH_SERVER
async def test_a_user_that_may_not_ask_for_everything_can_still_work(
    server: RedisServer, make_broker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    rights = ("~{wf*", "resetchannels", "&wf:*", "+@all", "-@dangerous", "-info")
    server.ask("ACL", "SETUSER", "limited", "on", f">{SECRET}", *rights)
    broker = await make_broker(RedisAddress("x", 1, url=f"redis://limited:{SECRET}@127.0.0.1:{server.port}"))
    assert "may not be asked for INFO" in caplog.text
    await use_all(broker)
    health = await broker.health()
    assert health.ok
    assert health.detail == "answers"


@pytest.mark.parametrize(
    ("shared_server", "said"),
    [("redis_server", r"Valkey \d+\.\d+\.\d+"), ("system_redis_server", r"(Redis|Valkey) \d+\.\d+\.\d+")],
)
async def test_health_says_what_answers(server: RedisServer, make_broker: Make, said: str) -> None:
    assert re.fullmatch(said, (await (await make_broker(server.address)).health()).detail)


async def test_a_cluster_has_one_database_only(redis_cluster: RedisCluster, make_broker: Make) -> None:
    with pytest.raises(SetupError, match="set REDIS_DB to 0"):
        await make_broker(redis_cluster.address._replace(db=1), cluster=True)


async def test_calls_wait_for_a_free_connection_to_a_cluster(redis_cluster: RedisCluster, make_broker: Make) -> None:
    redis_cluster.ask_all("FLUSHALL")
    connections = [server.ask("INFO", "stats")["total_connections_received"] for server in redis_cluster.servers]
    broker = await make_broker(redis_cluster.address, cluster=True, max_connections=3)
    await asyncio.gather(*(broker.spill(3, [task(number)]) for number in range(200)))
    assert len(await sightings(broker)) == 200
    for server, before in zip(redis_cluster.servers, connections, strict=True):
        # One more for this question.
        assert server.ask("INFO", "stats")["total_connections_received"] <= before + 3 + 1


async def test_what_is_asked_at_the_same_time_goes_out_together(redis_server: RedisServer, make_broker: Make) -> None:
    redis_server.ask("FLUSHALL")
    broker = await make_broker(redis_server.address)
    await broker.spill(3, [task(0)])  # from here on the server knows the script
    before = redis_server.ask("INFO", "stats")
    await asyncio.gather(*(broker.spill(3, [task(number)]) for number in range(200)))
    after = redis_server.ask("INFO", "stats")
    assert len(await sightings(broker)) == 200
    assert after["total_connections_received"] == before["total_connections_received"] + 1  # this question's
    assert after["total_reads_processed"] < before["total_reads_processed"] + 50


async def test_what_one_call_is_refused_does_not_concern_those_that_went_with_it(
    redis_server: RedisServer, make_broker: Make
) -> None:
    redis_server.ask("FLUSHALL")
    redis_server.ask("SET", "{wf:4}:out", "of another type")
    broker = await make_broker(redis_server.address)
    refused, done = await asyncio.gather(broker.spill(4, [task(1)]), broker.spill(3, [task(2)]), return_exceptions=True)
    assert isinstance(refused, BrokerUnavailable)
    assert done is None
    assert [each.task for each in await take_all(broker)] == [task(2)]


async def test_a_call_that_is_cancelled_leaves_nothing_behind_for_the_next(
    redis_server: RedisServer, make_broker: Make
) -> None:
    """An answer that nobody read must not be taken for that of the next call."""
    redis_server.ask("FLUSHALL")
    broker = await make_broker(redis_server.address, max_connections=1)
    await broker.spill(3, [task(number) for number in range(100)])
    for turns in range(20):
        call = asyncio.create_task(broker.take(3, ["http_request"], 1, "r1"))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        assert len(await sightings(broker)) == 100


# --- listening ----------------------------------------------------------------------------------------


async def test_who_listens_is_told_when_the_connection_is_lost(redis_server: RedisServer, make_broker: Make) -> None:
    broker = await make_broker(redis_server.address)
    async with listening(broker) as news:
        redis_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        with pytest.raises(BrokerUnavailable, match="no connection to Redis"):
            await anext(news)
    async with listening(broker) as news:
        await broker.publish(["e1"], ())
        assert list((await anext(news)).changed) == ["e1"]


async def test_who_listens_to_a_killed_server_is_told_and_may_listen_again(
    make_server: MakeServer, make_broker: Make
) -> None:
    server = make_server()
    broker = await make_broker(server.address)
    async with listening(broker) as news:
        server.kill()
        with pytest.raises(BrokerUnavailable):
            await anext(news)
    with pytest.raises(BrokerUnavailable):
        await anext(broker.listen())
    server.start()
    async with listening(broker) as news:
        await broker.post(3, ["e1"], [])
        assert await anext(news) == News(inbox=[3], tasks=[], changed=[], ended=[], owners=[], permits=[])


async def test_who_listens_to_a_server_that_stands_still_is_told(make_server: MakeServer, make_broker: Make) -> None:
    server = make_server()
    broker = await make_broker(server.address, timeout_seconds=0.2)
    async with listening(broker) as news:
        server.pause()
        with pytest.raises(BrokerUnavailable, match="the connection that listens is dead"):
            await anext(news)
        server.resume()


async def test_silence_is_no_loss(make_server: MakeServer, make_broker: Make) -> None:
    server = make_server()
    broker = await make_broker(server.address, timeout_seconds=0.5)
    async with listening(broker) as news:
        heard = asyncio.ensure_future(anext(news))

        def signs_of_life() -> int:
            calls = server.ask("INFO", "commandstats").get("cmdstat_ping", {"calls": 0})["calls"]
            return int(calls)

        before = signs_of_life()
        while signs_of_life() < before + 3:
            await asyncio.sleep(0)
        await broker.publish((), ["e1"])
        assert list((await heard).ended) == ["e1"]


async def test_closing_ends_what_listens_and_what_is_closed_is_unavailable(
    redis_server: RedisServer, make_broker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await make_broker(redis_server.address)
    async with listening(broker) as news:
        heard = asyncio.ensure_future(anext(news))
        await asyncio.sleep(0)
        await broker.close()
        with pytest.raises(BrokerUnavailable, match="the broker is closed"):
            await heard
    with pytest.raises(BrokerUnavailable, match="the broker is closed"):
        await broker.look(3)
    with pytest.raises(BrokerUnavailable, match="the broker is closed"):
        await anext(broker.listen())
    assert not (await broker.health()).ok
    assert caplog.text == ""


# --- a cluster ----------------------------------------------------------------------------------------


def slot_of(partition: int, cluster: RedisCluster) -> int:
    slot: int = cluster.servers[0].ask("CLUSTER", "KEYSLOT", f"{{wf:{partition}}}:whole")
    return slot


async def test_a_partition_that_moves_to_another_node_is_followed(
    redis_cluster: RedisCluster, make_broker: Make
) -> None:
    redis_cluster.ask_all("FLUSHALL")
    broker = await make_broker(redis_cluster.address, cluster=True)
    await use_all(broker)
    slot = slot_of(4, redis_cluster)
    home = slot * 3 // SLOTS
    names = [server.ask("CLUSTER", "MYID").decode() for server in redis_cluster.servers]
    for target in ((home + 1) % 3, (home + 2) % 3, home):
        for server in (redis_cluster.servers[target], *redis_cluster.servers):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", names[target])
        await broker.spill(4, [task(1)])
        assert await taken_tasks_of(broker, 4) == [task(1)]
        redis_cluster.servers[target].ask("FLUSHALL")


async def taken_tasks_of(broker: Broker, partition: int) -> list[Any]:
    return [each.task for each in await take_all(broker, partition=partition)]


async def test_a_cluster_that_loses_a_node_heals_when_it_is_back(make_broker: Make) -> None:
    cluster = RedisCluster()
    try:
        cluster.start()
        broker = await make_broker(cluster.address, cluster=True, timeout_seconds=5.0)
        partitions = {slot_of(partition, cluster) * 3 // SLOTS: partition for partition in range(16)}
        async with listening(broker) as news:
            assert set(partitions) == {0, 1, 2}
            for partition in partitions.values():
                await broker.spill(partition, [task(1)])
            # The node whose address is the one that is known.
            cluster.servers[0].kill()
            with pytest.raises(BrokerUnavailable):
                while True:
                    await broker.spill(partitions[0], [task(1)])
            cluster.servers[0].start()
            for partition in partitions.values():
                await eventually(lambda partition=partition: broker.spill(partition, [task(2)]))
                assert task(2) in await eventually(lambda partition=partition: taken_tasks_of(broker, partition))
            with suppress(BrokerUnavailable):
                await anext(news)
        async with listening(broker) as news:
            await broker.publish(["e1"], ())
            assert list((await anext(news)).changed) == ["e1"]
    finally:
        cluster.close()


async def test_who_takes_the_place_of_a_primary_that_stands_still_is_found(make_broker: Make) -> None:
    """Connections to it are made still, and nothing is said on them."""
    cluster = RedisCluster()
    try:
        cluster.start()
        partition = next(each for each in range(16) if slot_of(each, cluster) * 3 // SLOTS == 0)
        cluster.add_follower(0)
        broker = await make_broker(cluster.address, cluster=True, timeout_seconds=3.0)
        await asyncio.gather(*(broker.spill(partition, [task(number)]) for number in range(20)))
        cluster.servers[0].pause()
        await eventually(lambda: broker.spill(partition, [task(20)]))
        assert task(20) in await eventually(lambda: taken_tasks_of(broker, partition))
        assert (await broker.health()).ok
    finally:
        cluster.close()
