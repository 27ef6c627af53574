"""Limits of handlers: how many run at once on all replicas, how often they begin, and what waiting for it costs.

In virtual time, so that every start is known to the microsecond; the last one on a real Redis.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis_server import RedisServer
from virtual import VirtualWorld, replica_here

from workflow_engine.plugins import Handler, NodeContext, RateLimit, RetryAfter, handler
from workflow_engine.runtime.core.permits import Limits, WaitsForBroker, WaitsForRate, WaitsForSlot
from workflow_engine.runtime.errors import BrokerUnavailable
from workflow_engine.runtime.store.memory import MemoryStore
from workflow_engine.runtime.transport.memory import MemoryBroker
from workflow_engine.runtime.transport.redis import RedisBroker

Make = Callable[..., Awaitable[Any]]

EMBEDDED = {"backend": "embedded"}
LIMITS = Limits(2, 0, 0)


class Work:
    """A handler that takes its time, and what is known of its attempts."""

    def __init__(self, world: VirtualWorld, seconds: float = 0.1, **declared: Any) -> None:
        self.starts: list[tuple[float, str, str]] = []
        """When, where, of which node."""
        self.running = self.most = 0
        self.failures: dict[str, Exception] = {}
        """By node id: what its next attempt raises."""

        @handler("limited", **declared)
        async def limited(_config: dict[str, Any], context: NodeContext) -> int:
            self.starts.append((world.loop.time(), replica_here(), context.node_id))
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.running -= 1
            if (failure := self.failures.pop(context.node_id, None)) is not None:
                raise failure
            return context.attempt

        self.handler: Handler = limited

    @property
    def times(self) -> list[float]:
        """When attempts began, in microseconds' precision."""
        return [round(at, 6) for at, _, _ in self.starts]

    def time_of(self, node_id: str) -> list[float]:
        """When those of a node began."""
        return [round(at, 6) for at, _, each in self.starts if each == node_id]


@handler("free")
async def free(_config: dict[str, Any], _context: NodeContext) -> str:
    """Run at once."""
    return "free"


def nodes(count: int, prefix: str = "n", **more: Any) -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{number}", "handler": "limited", **more} for number in range(count)]


def keyed(config: dict[str, Any]) -> str | None:
    return config.get("tenant")


@pytest.fixture
def world() -> VirtualWorld:
    """A world with nothing in it."""
    return VirtualWorld()


def test_so_many_run_at_once(world: VirtualWorld) -> None:
    work = Work(world, seconds=1.0, max_running=2)

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        assert (await world.results(await world.trigger("a", nodes(7)))).state == "COMPLETED"
        await world.stop()

    world.play(scene)
    assert work.times == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]


def test_they_begin_at_the_rate(world: VirtualWorld) -> None:
    work = Work(world, rate_limit=RateLimit(5, 1.0))

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        await world.results(await world.trigger("a", nodes(9)))
        await asyncio.sleep(60)
        await world.results(await world.trigger("a", nodes(6)))
        await world.stop()

    world.play(scene)
    assert work.times[:9] == [0.0] * 5 + [0.2, 0.4, 0.6, 0.8]
    later = work.times[9]
    assert [round(each - later, 6) for each in work.times[9:]] == [0.0] * 5 + [0.2]


def test_waiting_takes_no_slot_no_attempt_and_no_time(world: VirtualWorld) -> None:
    """A worker with one slot, and a limit that lets somebody begin every hour."""
    work = Work(world, rate_limit=RateLimit(1, 3600))

    async def scene() -> None:
        await world.start("a", [work.handler, free], worker_concurrency=1, **EMBEDDED)
        slow = await world.trigger("a", nodes(3, timeout_seconds=1, retry_config={"max_retries": 0}))
        quick = [await world.trigger("a", [{"id": "n", "handler": "free"}]) for _ in range(5)]
        assert [(await world.results(each)).state for each in quick] == ["COMPLETED"] * 5
        assert world.loop.time() < 1
        assert world.runtimes["a"].describe().free_slots == 1
        results = await world.results(slow)
        assert (results.state, results.output_text) == ("COMPLETED", b'{"n0":1,"n1":1,"n2":1}')
        await world.stop()

    world.play(scene)
    assert work.times == [0.0, 3600.0, 7200.0]


def test_executions_take_turns(world: VirtualWorld) -> None:
    work = Work(world, seconds=1.0, max_running=1)

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        wide = await world.trigger("a", nodes(50, "wide"))
        small = await world.trigger("a", nodes(2, "small"))
        await world.results(small)
        await world.runtimes["a"].engine.cancel(wide)
        await world.stop()

    world.play(scene)
    assert work.times == [float(second) for second in range(len(work.times))]
    assert max(work.time_of("small0") + work.time_of("small1")) <= 5.0


def test_each_key_has_its_own_limit(world: VirtualWorld) -> None:
    work = Work(world, rate_limit=RateLimit(1, 60, key=keyed))
    tenants = [{"tenant": "a"}, {"tenant": "a"}, {"tenant": "a"}, {"tenant": "b"}, {}, {"tenant": None}]

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        document = [
            {"id": f"n{number}", "handler": "limited", "config": config} for number, config in enumerate(tenants)
        ]
        await world.results(await world.trigger("a", document))
        await world.stop()

    world.play(scene)
    assert sorted(work.times) == [0.0, 0.0, 0.0, 60.0, 60.0, 120.0]
    assert work.time_of("n3") == [0.0]
    assert sorted(work.time_of("n4") + work.time_of("n5")) == [0.0, 60.0]


def test_the_key_is_made_of_the_resolved_configuration(world: VirtualWorld) -> None:
    work = Work(world, rate_limit=RateLimit(1, 60, key=keyed))
    document: Sequence[dict[str, Any]] = [
        {"id": "input", "handler": "input"},
        *(
            {
                "id": f"n{number}",
                "handler": "limited",
                "dependencies": ["input"],
                "config": {"tenant": f"{{{{ input.tenant{number} }}}}"},
            }
            for number in range(3)
        ),
    ]

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        engine = world.runtimes["a"].engine
        submitted = await engine.submit({"name": "a test", "dag": {"nodes": document}})
        started = await engine.trigger(submitted.execution_id, {"tenant0": "x", "tenant1": "y", "tenant2": "x"})
        assert (await world.results(started)).state == "COMPLETED"
        await world.stop()

    world.play(scene)
    assert work.time_of("n1") == [0.0]
    assert sorted(work.time_of("n0") + work.time_of("n2")) == [0.0, 60.0]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (lambda config: config["tenant"], "the rate limit's key raised KeyError: 'tenant'"),
        (lambda config: 7, "the rate limit's key must be a text or None, not int"),
        (lambda config: "x" * 600, "the rate limit's key must be printable and have at most 512 characters, not 'xxx"),
        (lambda config: "a\ud800", "the rate limit's key must be printable and have at most 512 characters, not 'a\\"),
    ],
)
def test_a_key_that_is_none_fails_the_attempt_for_good(world: VirtualWorld, key: Any, message: str) -> None:
    work = Work(world, rate_limit=RateLimit(1, 60, key=key))

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        results = await world.results(await world.trigger("a", nodes(1)))
        assert (results.state, results.error["type"], results.error["attempt"]) == (
            "FAILED",
            "rate_limit_key_invalid",
            1,
        )
        assert results.error["message"].startswith(message)
        await world.stop()

    world.play(scene)
    assert work.starts == []


def test_a_configuration_that_does_not_fit_fails_as_without_a_limit(world: VirtualWorld) -> None:
    work = Work(world, rate_limit=RateLimit(1, 60, key=keyed))
    document = [
        {"id": "input", "handler": "input"},
        {"id": "n", "handler": "limited", "dependencies": ["input"], "config": {"tenant": "{{ input.a.b.c }}"}},
    ]

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        results = await world.results(await world.trigger("a", document))
        assert results.error["type"] == "template_failed"
        await world.stop()

    world.play(scene)


def test_the_two_limits_and_that_of_the_process_hold_together(world: VirtualWorld) -> None:
    work = Work(world, seconds=0.5, max_running=3, max_running_per_process=2, rate_limit=RateLimit(4, 10))

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        await world.results(await world.trigger("a", nodes(6)))
        await world.stop()

    world.play(scene)
    assert work.times == [0.0, 0.0, 0.5, 0.5, 2.5, 5.0]


def test_what_is_cancelled_waits_no_longer_and_leaves_its_permit(world: VirtualWorld) -> None:
    work = Work(world, seconds=20.0, max_running=1)

    async def scene() -> None:
        runtime = await world.start("a", [work.handler], **EMBEDDED)
        first = await world.trigger("a", nodes(3, "first"))
        await asyncio.sleep(1)
        second = await world.trigger("a", nodes(1, "second"))
        await runtime.engine.cancel(first)
        assert (await world.results(second)).state == "COMPLETED"
        assert runtime.limited.waits(first) == {}
        await world.stop()

    world.play(scene)
    assert [(round(at), node) for at, _, node in work.starts] == [(0, work.starts[0][2]), (1, "second0")]


def test_what_takes_too_long_leaves_its_permit(world: VirtualWorld) -> None:
    work = Work(world, seconds=3600.0, max_running=1)

    async def scene() -> None:
        await world.start("a", [work.handler], **EMBEDDED)
        results = await world.results(
            await world.trigger("a", nodes(1, timeout_seconds=5, retry_config={"max_retries": 1, "initial_delay": 0}))
        )
        assert results.error["type"] == "timeout"
        await world.stop()

    world.play(scene)
    assert work.times == [0.0, 5.0]


def test_why_something_waits_can_be_told(world: VirtualWorld) -> None:
    work = Work(world, seconds=3.0, max_running=2, rate_limit=RateLimit(3, 3600))

    async def scene() -> None:
        runtime = await world.start("a", [work.handler], **EMBEDDED)
        execution_id = await world.trigger("a", nodes(4))
        await asyncio.sleep(1)
        slot = WaitsForSlot("limited", 2, 2)
        assert runtime.limited.waits(execution_id) == {(2, 1): slot, (3, 1): slot}
        assert runtime.limited.waits("another") == {}
        await asyncio.sleep(3)
        [wait] = runtime.limited.waits(execution_id).values()
        assert wait == WaitsForRate("limited", "", world.clock.now() + 1_196_000)
        await world.stop()

    world.play(scene)


# --- replicas -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_replicas_together_run_no_more_at_once(seed: int) -> None:
    world = VirtualWorld(seed)
    work = Work(world, seconds=0.5, max_running=2)

    async def scene() -> None:
        await asyncio.gather(world.start("a", [work.handler]), world.start("b", [work.handler]))
        ids = [await world.trigger(name, nodes(3)) for name in "abababab"]
        assert [(await world.results(each)).state for each in ids] == ["COMPLETED"] * 8
        await world.stop()
        assert (await world.broker.take_permits("limited", LIMITS, (), None)).running == 0

    world.play(scene)
    assert work.most == 2
    assert {replica for _, replica, _ in work.starts} == {"a", "b"}
    assert len(work.starts) == 24
    assert work.times[-1] - work.times[0] < 24 * 0.5 / 2 + 1


def test_replicas_together_begin_at_the_rate(world: VirtualWorld) -> None:
    work = Work(world, rate_limit=RateLimit(5, 1.0))

    async def scene() -> None:
        await asyncio.gather(world.start("a", [work.handler]), world.start("b", [work.handler]))
        ids = [await world.trigger(name, nodes(6)) for name in "abab"]
        assert [(await world.results(each)).state for each in ids] == ["COMPLETED"] * 4
        await world.stop()

    world.play(scene)
    assert len(work.starts) == 24
    for number, at in enumerate(work.times):
        assert number < 5 + 5 * (at - work.times[0]) + 0.001
    assert work.times[-1] - work.times[0] < 19 / 5 + 0.5


def test_who_is_told_to_come_later_closes_the_key_for_every_replica(world: VirtualWorld) -> None:
    work = Work(world, rate_limit=RateLimit(100, 1.0, key=keyed))
    work.failures["first0"] = RetryAfter("too many", seconds=600)

    async def scene() -> None:
        await asyncio.gather(world.start("a", [work.handler]), world.start("b", [work.handler]))
        mine, others = {"tenant": "mine"}, {"tenant": "another's"}
        first = await world.trigger("a", nodes(1, "first", config=mine))
        await asyncio.sleep(5)
        ids = [await world.trigger(name, nodes(2, f"{name}-", config=mine)) for name in "aabb"]
        free_ids = [await world.trigger(name, nodes(2, f"other-{name}-", config=others)) for name in "ab"]
        for each in [first, *ids, *free_ids]:
            assert (await world.results(each)).state == "COMPLETED"
        await world.stop()

    world.play(scene)
    [began, again] = work.time_of("first0")
    assert again >= began + 600
    for node in ("a-0", "a-1", "b-0", "b-1"):
        assert min(work.time_of(node)) >= began + 600
        assert max(work.time_of(node)) < began + 605
        assert max(work.time_of(f"other-{node}")) < began + 10


def test_a_dead_worker_leaves_its_permits_after_the_heartbeat_timeout(world: VirtualWorld) -> None:
    work = Work(world, seconds=30.0, max_running=2)

    async def scene() -> None:
        await asyncio.gather(world.start("a", [work.handler]), world.start("b", [work.handler]))
        ids = [await world.trigger(name, nodes(2)) for name in "abab"]
        while "b" not in {replica for _, replica, _ in work.starts}:
            await asyncio.sleep(0.01)
        await asyncio.sleep(10)
        world.kill("b")
        killed_at.append(world.loop.time())
        running = await world.broker.take_permits("limited", LIMITS, (), None)
        assert running.running == 2
        assert [(await world.results(each)).state for each in ids] == ["COMPLETED"] * 4
        await world.stop()

    killed_at: list[float] = []
    world.play(scene)
    after = [at - killed_at[0] for at, _, _ in work.starts if at > killed_at[0]]
    assert 2.0 <= min(after) < 20.5
    for at, _, _ in work.starts:
        alive = [
            begun
            for begun, replica, _ in work.starts
            if begun <= at < begun + 30.0 and not (replica == "b" and at >= killed_at[0] + 2.0)
        ]
        assert len(alive) <= 2


def test_what_waits_is_taken_over_as_anything_that_is_queued(world: VirtualWorld) -> None:
    work = Work(world, rate_limit=RateLimit(1, 100))

    async def scene() -> None:
        await world.start("a", [work.handler])
        execution_id = await world.trigger("a", nodes(3))
        await asyncio.sleep(1)
        world.kill("a")
        await world.start("b", [work.handler])
        assert (await world.results(execution_id)).state == "COMPLETED"
        await world.stop()

    world.play(scene)
    assert [(round(at, 1), replica) for at, replica, _ in work.starts] == [(0.0, "a"), (100.0, "b"), (200.0, "b")]


def test_after_everything_was_lost_limits_hold_again(world: VirtualWorld) -> None:
    """Until the permits are renewed, as many again may begin; then no more than the limit until they have ended."""
    work = Work(world, seconds=20.0, max_running=3)

    async def scene() -> None:
        await asyncio.gather(world.start("a", [work.handler]), world.start("b", [work.handler]))
        ids = [await world.trigger(name, nodes(4)) for name in "abab"]
        await asyncio.sleep(10)
        world.broker.wipe()
        assert [(await world.results(each)).state for each in ids] == ["COMPLETED"] * 4
        await world.stop()

    world.play(scene)
    assert 3 <= work.most <= 6
    late = [at for at in work.times if at > 50]
    assert late
    for at in late:
        assert sum(begun <= at < begun + 20.0 for begun in work.times) <= 3


class SilentBroker(MemoryBroker):
    """One that answers no question about permits for a while, and tells nobody of those that come back."""

    is_away = is_silent = False

    async def take_permits(self, *arguments: Any) -> Any:
        if self.is_away:
            raise BrokerUnavailable("is away")
        return await super().take_permits(*arguments)

    def _tell(self, news: Any) -> None:
        if not (self.is_silent and news.permits):
            super()._tell(news)


def test_while_redis_is_away_what_needs_permits_waits(world: VirtualWorld) -> None:
    work = Work(world, max_running=2)
    world.broker = broker = SilentBroker(world.clock.now)

    async def scene() -> None:
        runtime = await world.start("a", [work.handler, free])
        broker.is_away = True
        execution_id = await world.trigger("a", nodes(3))
        quick = await world.trigger("a", [{"id": "n", "handler": "free"}])
        assert (await world.results(quick)).state == "COMPLETED"
        await asyncio.sleep(100)
        assert work.starts == []
        assert runtime.limited.away == {"limited": 3}
        assert set(runtime.limited.waits(execution_id).values()) == {WaitsForBroker("limited")}
        broker.is_away = False
        assert (await world.results(execution_id)).state == "COMPLETED"
        assert runtime.limited.away == {}
        await world.stop()

    world.play(scene)
    assert work.most == 2


def test_who_misses_the_news_asks_again_by_himself(world: VirtualWorld) -> None:
    work = Work(world, seconds=1.0, max_running=1)
    world.broker = broker = SilentBroker(world.clock.now)

    async def scene() -> None:
        await world.start("a", [work.handler])
        broker.is_silent = True
        assert (await world.results(await world.trigger("a", nodes(4)))).state == "COMPLETED"
        await world.stop()

    world.play(scene)
    assert work.most == 1
    assert work.times[-1] <= 3 * 4.0


def test_a_worker_does_not_hoard_what_it_may_not_start(world: VirtualWorld) -> None:
    """Behind a limited handler others are still taken, and those of the limited one stay in their queue."""
    work = Work(world, seconds=50.0, max_running=1)

    async def scene() -> None:
        await world.start("a", [work.handler, free], runtime_roles="api,orchestrator")
        worker = await world.start("b", [work.handler, free], runtime_roles="worker", worker_concurrency=4)
        slow = await world.trigger("a", nodes(100))
        await asyncio.sleep(5)
        quick = [await world.trigger("a", [{"id": "n", "handler": "free"}]) for _ in range(10)]
        for each in quick:
            assert (await world.results(each)).state == "COMPLETED"
        assert world.loop.time() < 20
        assert len(worker.limited.waits(slow)) <= 8
        await world.runtimes["a"].engine.cancel(slow)
        await world.stop()

    world.play(scene)


# --- a real Redis -------------------------------------------------------------------------------------


async def test_two_replicas_on_a_real_redis(start_runtime: Make, redis_server: RedisServer) -> None:
    redis_server.ask("FLUSHALL")
    running, most, begun = 0, 0, list[float]()

    @handler("limited", max_running=2, rate_limit=RateLimit(10, 0.5))
    async def limited(_config: dict[str, Any], _context: NodeContext) -> None:
        nonlocal running, most
        begun.append(time.monotonic())
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running -= 1

    store = MemoryStore(4, time.monotonic, shared=True)
    replicas = [
        await start_runtime(
            handlers=[limited],
            store=store,
            broker=RedisBroker(redis_server.address, max_connections=10, timeout_seconds=20.0),
            backend="distributed",
            replica_id=name,
        )
        for name in "ab"
    ]
    ids = []
    for number in range(8):
        engine = replicas[number % 2].engine
        ids.append(await engine.trigger((await engine.submit({"name": "x", "dag": {"nodes": nodes(5)}})).execution_id))
    for number, each in enumerate(ids):
        assert (await replicas[(number + 1) % 2].engine.results(each, 60)).state == "COMPLETED"
    assert (most, len(begun)) == (2, 40)
    # By the bucket's own time; what the process notes comes later, by as much as it is busy.
    assert begun[-1] - begun[0] >= (40 - 10) * 0.05 - 0.25
