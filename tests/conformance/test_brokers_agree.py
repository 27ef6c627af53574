"""Redis does exactly what memory does: the same verbs, in any order, have the same answers.

Simulation runs on the broker in memory, so whatever it shows is worth as much as this likeness. Entry ids and times
differ, so ids are replaced by the order in which they were first seen, and times by whether there is one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from brokers import heartbeat, outcome, task
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_server import RedisServer

from workflow_engine.runtime.broker import Broker, HandIn
from workflow_engine.runtime.core.deliveries import Replicas, Taken
from workflow_engine.runtime.core.permits import Ask, Limits
from workflow_engine.runtime.transport.memory import MemoryBroker
from workflow_engine.runtime.transport.redis import RedisBroker

# A token takes a day: none comes back while the two are compared.
LIMITS = Limits(4, 3, 3 * 86_400_000_000)
LEASE = 3_600_000
RATE_KEYS = st.sampled_from(["", "x", "y"])
NUMBERS = st.integers(0, 4)
HANDLERS = st.one_of(st.just("cab"), st.lists(st.sampled_from("abc"), max_size=4))
TASKS = st.lists(
    st.builds(lambda number, attempt: task(number, "abc"[number % 3], attempt), NUMBERS, st.integers(1, 2))
)
# Which of the entries that were seen so far; some were never there.
SOME = st.lists(st.integers(0, 5), max_size=4)
OPERATIONS = st.one_of(
    st.tuples(st.just("spill"), TASKS),
    st.tuples(st.just("spill"), TASKS),
    st.tuples(st.just("take"), HANDLERS, st.integers(-1, 5), st.sampled_from(["r1", "r2"])),
    st.tuples(st.just("take"), HANDLERS, st.integers(-1, 5), st.sampled_from(["r1", "r2"])),
    st.tuples(st.just("give_back"), SOME),
    st.tuples(st.just("hand_in"), SOME, st.booleans()),
    st.tuples(st.just("forget"), TASKS),
    st.tuples(st.just("wake"), st.lists(st.sampled_from(["e1", "e2"]), max_size=2)),
    st.tuples(st.just("read"), st.integers(1, 4), st.one_of(st.none(), st.integers(0, 12))),
    st.tuples(st.just("delete"), SOME),
    st.tuples(st.just("beat"), st.sampled_from(["r1", "r2"])),
    st.tuples(st.just("retire"), st.sampled_from(["r1", "r2"])),
    st.tuples(st.just("permit"), st.lists(RATE_KEYS, max_size=4)),
    st.tuples(st.just("release"), SOME),
    st.tuples(st.just("renew"), SOME),
    st.tuples(st.just("close"), RATE_KEYS),
    st.tuples(st.just("wipe")),
)
# So that there is something to give back, to hand in and to delete.
BEGINNING = (
    ("spill", [task(number, "abc"[number % 3]) for number in range(5)]),
    ("take", "abc", 4, "r1"),
    ("hand_in", [0, 3], True),
    ("read", 4, None),
)


class Told:
    """One broker, and what it has told: the ids of entries by the order in which they were seen."""

    def __init__(self, broker: Broker, wipe: Callable[[], Awaitable[None]]) -> None:
        self._broker = broker
        self._wipe = wipe
        self._ids: dict[str, int] = {}
        self._posted: dict[str, int] = {}
        self._taken: list[Taken] = []
        self._inbox_ids: list[str] = []
        self._permits: list[str] = []

    async def do(self, name: str, *arguments: Any) -> Any:
        """The answer to one operation, without ids and times."""
        answer: Any = await getattr(self, f"_{name}")(*arguments)
        return answer

    async def look(self) -> Any:
        """Everything that is known of the partition."""
        sight = await self._broker.look(3)
        assert sight.whole_since <= sight.now
        deliveries = [
            (key, self._number(sighting.entry_id), sighting.taken_at is None, sighting.replica)
            for key, sighting in sorted(sight.deliveries.items())
        ]
        return deliveries, set(sight.handed_in)

    async def _spill(self, tasks: Sequence[Any]) -> None:
        await self._broker.spill(3, tasks)

    async def _take(self, handlers: Sequence[str], count: int, replica: str) -> Any:
        taken = await self._broker.take(3, handlers, count, replica)
        self._taken += taken
        return [(self._number(each.entry_id), each.task) for each in taken]

    async def _give_back(self, some: Sequence[int]) -> None:
        await self._broker.give_back(3, self._some_taken(some))

    async def _hand_in(self, some: Sequence[int], with_entry: bool) -> None:
        taken = self._some_taken(some)
        await self._broker.post(
            3, (), [HandIn(outcome(each.task), each.entry_id if with_entry else None) for each in taken]
        )

    async def _forget(self, tasks: Sequence[Any]) -> None:
        await self._broker.forget(3, [each.key for each in tasks])

    async def _wake(self, execution_ids: Sequence[str]) -> None:
        await self._broker.post(3, execution_ids, ())

    async def _read(self, limit: int, after: int | None) -> Any:
        known = self._inbox_ids[after] if after is not None and after < len(self._inbox_ids) else ""
        entries = await self._broker.read_inbox(3, known, limit)
        self._inbox_ids += [each.entry_id for each in entries]
        numbers = [self._posted.setdefault(each.entry_id, len(self._posted)) for each in entries]
        return [(number, list(each.wake_ups), each.outcome) for number, each in zip(numbers, entries, strict=True)]

    async def _delete(self, some: Sequence[int]) -> None:
        await self._broker.delete_from_inbox(3, [self._inbox_ids[each] for each in some if each < len(self._inbox_ids)])

    async def _beat(self, replica: str) -> Any:
        return self._replicas(await self._broker.beat(heartbeat(replica)))

    async def _retire(self, replica: str) -> Any:
        await self._broker.retire(replica)
        return self._replicas(await self._broker.read_replicas())

    async def _permit(self, rate_keys: Sequence[str]) -> Any:
        names = [f"p{len(self._permits) + number}" for number in range(len(rate_keys))]
        self._permits += names
        answer = await self._broker.take_permits("h", LIMITS, list(map(Ask, names, rate_keys)), LEASE)
        return [refusal and refusal.lacks for refusal in answer.refusals], answer.running

    async def _release(self, some: Sequence[int]) -> None:
        await self._broker.release_permits("h", self._some_permits(some))

    async def _renew(self, some: Sequence[int]) -> None:
        await self._broker.renew_permits("h", self._some_permits(some), LEASE)

    async def _close(self, rate_key: str) -> None:
        await self._broker.close_key("h", LIMITS, rate_key, 3_600)

    def _some_permits(self, some: Sequence[int]) -> list[str]:
        return [self._permits[each] for each in some if each < len(self._permits)]

    def _replicas(self, replicas: Replicas) -> Any:
        assert replicas.whole_since <= replicas.now
        return [each.heartbeat for each in replicas.seen]

    def _some_taken(self, some: Sequence[int]) -> list[Taken]:
        return [self._taken[each] for each in some if each < len(self._taken)]

    def _number(self, entry_id: str) -> int:
        return self._ids.setdefault(entry_id, len(self._ids))


async def compare(server: RedisServer, operations: Sequence[tuple[Any, ...]]) -> None:
    """Do the same to both."""

    async def wipe_redis() -> None:
        wiped_at = (await redis.look(3)).now
        server.ask("FLUSHALL")
        # An inbox that was wiped gives the same ids again within the same millisecond.
        while (await redis.read_replicas()).now <= wiped_at:
            pass

    async def wipe_memory() -> None:
        memory.wipe()

    ticks = itertools.count()
    memory = MemoryBroker(lambda: next(ticks))
    redis = RedisBroker(server.address, max_connections=2, timeout_seconds=60.0)
    await redis.open()
    try:
        await wipe_redis()
        expected, actual = Told(memory, wipe_memory), Told(redis, wipe_redis)
        for operation in operations:
            assert await actual.do(*operation) == await expected.do(*operation), operation
            assert await actual.look() == await expected.look(), operation
    finally:
        await redis.close()


@pytest.mark.parametrize("fixture", ["redis_server", "system_redis_server"])
def test_redis_and_memory_have_the_same_answers(request: pytest.FixtureRequest, fixture: str) -> None:
    server: RedisServer = request.getfixturevalue(fixture)

    @settings(max_examples=100)
    @given(st.lists(OPERATIONS, min_size=10, max_size=40))
    def agree(operations: Sequence[tuple[Any, ...]]) -> None:
        asyncio.run(compare(server, [*BEGINNING, *operations]))

    agree()
