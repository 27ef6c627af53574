"""The Broker in memory: several replicas of one process share it, in simulation and in tests.

What a verb does is said in the port; here it is done in a few lines, exactly as Redis does it. Nothing fails and
nothing waits: whoever simulates a broker that is away wraps this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from heapq import merge
from itertools import islice

from ..broker import BrokerHealth, HandIn, InboxEntry, News
from ..core.deliveries import (
    DeliveryKey,
    Heartbeat,
    PartitionSight,
    Replicas,
    SeenHeartbeat,
    Sighting,
    Taken,
    Task,
    key_of,
)
from ..core.machine import Outcome
from ..errors import BrokerUnavailable
from .kept_permits import MemoryPermits
from .limits import FORGET_HEARTBEATS_AFTER, LONGEST_INBOX_FOR_WAKE_UPS


class MemoryBroker(MemoryPermits):
    """Everything that is in a broker, for all replicas. Ids of entries increase, over all partitions and wipes."""

    def __init__(self, now: Callable[[], int], announce: Callable[[News], None] | None = None) -> None:
        """`now`: the broker's clock, in epoch milliseconds. `announce` is told all news, before any listener is."""
        super().__init__(lambda: now() * 1000, lambda handler: self._tell(News(permits=(handler,))))
        self._now = now
        self._announce = announce
        self._entries = 0
        self._partitions: dict[int, _Partition] = {}
        self._heartbeats: dict[str, SeenHeartbeat] = {}
        self._whole_since = now()
        self._listeners: dict[asyncio.Queue[News | None], None] = {}

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def wipe(self) -> None:
        """Lose everything, as FLUSHALL does. Who listens goes on to listen."""
        self._partitions.clear()
        self._heartbeats.clear()
        self._permits.clear()
        self._whole_since = self._now()

    def cut(self) -> None:
        """Break every connection that listens, as a restart does."""
        for queue in self._listeners:
            queue.put_nowait(None)

    # --- inboxes ------------------------------------------------------------------------------------------

    async def post(self, partition: int, wake_ups: Collection[str], outcomes: Sequence[HandIn]) -> None:
        """One entry for all wake-ups, then one for each outcome.

        Whatever is known under an outcome's entry id is forgotten, be it taken or queued: a broker that was rolled
        back has queued it again.
        """
        here = self._partition(partition)
        if wake_ups and len(here.inbox) >= LONGEST_INBOX_FOR_WAKE_UPS:
            wake_ups = ()
        if wake_ups:
            self._put(here, tuple(wake_ups), None)
        for outcome, entry_id in outcomes:
            self._put(here, (), outcome)
            key = key_of(outcome)
            if entry_id is not None and here.is_entry_of(key, entry_id):
                here.forget(key)
        if wake_ups or outcomes:
            self._tell(News(inbox=(partition,)))

    async def read_inbox(self, partition: int, after: str, limit: int) -> Sequence[InboxEntry]:
        entries = self._partition(partition).inbox.values()
        return list(islice((entry for entry in entries if entry.entry_id > after), limit))

    async def delete_from_inbox(self, partition: int, entry_ids: Collection[str]) -> None:
        here = self._partition(partition)
        for entry_id in entry_ids:
            here.inbox.pop(entry_id, None)

    # --- deliveries ---------------------------------------------------------------------------------------

    async def spill(self, partition: int, tasks: Sequence[Task]) -> None:
        here = self._partition(partition)
        for task in tasks:
            here.forget(task.key)
            here.queue(self._new_id(), task)
        if tasks:
            self._tell(News(tasks=(partition,)))

    async def take(self, partition: int, handlers: Sequence[str], count: int, replica: str) -> Sequence[Taken]:
        here = self._partition(partition)
        queues = (here.queues.get(handler, {}) for handler in dict.fromkeys(handlers))
        oldest = [Taken(*item) for item in islice(merge(*(queue.items() for queue in queues)), max(0, count))]
        for entry_id, task in oldest:
            del here.queues[task.handler][entry_id]
            here.known[task.key] = Sighting(entry_id, self._now(), replica), task
        return oldest

    async def give_back(self, partition: int, taken: Sequence[Taken]) -> None:
        here = self._partition(partition)
        still_its = [task for entry_id, task in taken if here.is_entry_of(task.key, entry_id)]
        await self.spill(partition, still_its)

    async def forget(self, partition: int, keys: Collection[DeliveryKey]) -> None:
        here = self._partition(partition)
        for key in keys:
            here.forget(key)

    async def look(self, partition: int) -> PartitionSight:
        here = self._partition(partition)
        here.forget_trimmed()
        return PartitionSight(
            now=self._now(),
            whole_since=self._whole_since,
            deliveries={key: sighting for key, (sighting, _) in here.known.items()},
            handed_in={key_of(entry.outcome) for entry in here.inbox.values() if entry.outcome is not None},
        )

    # --- heartbeats and news ------------------------------------------------------------------------------

    async def beat(self, heartbeat: Heartbeat) -> Replicas:
        now = self._now()
        self._heartbeats[heartbeat.replica] = SeenHeartbeat(now, heartbeat)
        for seen in list(self._heartbeats.values()):
            if now - seen.at >= FORGET_HEARTBEATS_AFTER:
                del self._heartbeats[seen.heartbeat.replica]
        return await self.read_replicas()

    async def read_replicas(self) -> Replicas:
        seen = [self._heartbeats[replica] for replica in sorted(self._heartbeats)]
        return Replicas(self._now(), self._whole_since, seen)

    async def retire(self, replica: str) -> None:
        self._heartbeats.pop(replica, None)

    async def publish(self, changed: Collection[str], ended: Collection[str], owners: Collection[str] = ()) -> None:
        if owners:
            self._tell(News(owners=tuple(owners)))
        if changed or ended:
            self._tell(News(changed=tuple(changed), ended=tuple(ended)))

    async def listen(self) -> AsyncIterator[News]:
        with self._listener() as queue:
            yield News()
            while (news := await queue.get()) is not None:
                yield news
        raise BrokerUnavailable("the connection that listens was cut")

    async def health(self) -> BrokerHealth:
        return BrokerHealth(ok=True, detail="memory")

    # --- inside -------------------------------------------------------------------------------------------

    def _partition(self, partition: int) -> _Partition:
        return self._partitions.setdefault(partition, _Partition())

    def _new_id(self) -> str:
        # As many digits as it takes for texts to sort as the numbers do.
        self._entries += 1
        return f"{self._entries:015}"

    def _put(self, here: _Partition, wake_ups: Sequence[str], outcome: Outcome | None) -> None:
        entry = InboxEntry(self._new_id(), wake_ups, outcome)
        here.inbox[entry.entry_id] = entry

    def _tell(self, news: News) -> None:
        if self._announce is not None:
            self._announce(news)
        for queue in self._listeners:
            queue.put_nowait(news)

    @contextmanager
    def _listener(self) -> Iterator[asyncio.Queue[News | None]]:
        queue: asyncio.Queue[News | None] = asyncio.Queue()
        self._listeners[queue] = None
        try:
            yield queue
        finally:
            del self._listeners[queue]


class _Partition:
    """One partition. `known`: what was queued and not handed in, given back or forgotten; by the attempt."""

    def __init__(self) -> None:
        self.inbox: dict[str, InboxEntry] = {}
        self.queues: dict[str, dict[str, Task]] = {}
        self.known: dict[DeliveryKey, tuple[Sighting, Task]] = {}

    def is_entry_of(self, key: DeliveryKey, entry_id: str) -> bool:
        return key in self.known and self.known[key][0].entry_id == entry_id

    def queue(self, entry_id: str, task: Task) -> None:
        self.queues.setdefault(task.handler, {})[entry_id] = task
        self.known[task.key] = Sighting(entry_id, None, ""), task

    def forget_trimmed(self) -> None:
        """What is said to wait in its queue, and is not there, was lost by itself."""
        for key, (sighting, task) in list(self.known.items()):
            if sighting.taken_at is None and sighting.entry_id not in self.queues.get(task.handler, {}):
                del self.known[key]

    def forget(self, key: DeliveryKey) -> None:
        if key in self.known:
            sighting, task = self.known.pop(key)
            self.queues[task.handler].pop(sighting.entry_id, None)
