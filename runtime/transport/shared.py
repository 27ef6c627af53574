"""The Transport of a replica among others: what concerns this replica goes through memory, the rest through the broker.

Outcomes for other owners are kept until the broker has them; wake-ups and news are sent once. What comes in for the
partitions that are owned here is read from the beginning whenever one is taken, and deleted when its commit is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from ..broker import Broker, HandIn, News
from ..core.backoff import Backoff
from ..core.deliveries import DeliveryKey, key_of
from ..core.machine import Outcome
from ..errors import BrokerUnavailable
from .local import LocalTransport

log = logging.getLogger(__name__)

READ_AT_ONCE = 500
REREAD_SECONDS = 5.0
REREAD_UNHEARD_SECONDS = 1.0
"""How often inboxes are read although nothing was heard; the latter while the news cannot be heard."""
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 2.0


class _Outgoing:
    """What is to be told the broker about one partition."""

    __slots__ = ("outcomes", "settled", "wake_ups")

    def __init__(self) -> None:
        self.wake_ups: dict[str, None] = {}
        self.outcomes: list[HandIn] = []
        self.settled: list[str] = []


class SharedTransport(LocalTransport):
    """Queues in this process, and the way to the others'."""

    def __init__(self, broker: Broker, partition_of: Callable[[str], int]) -> None:
        super().__init__()
        self.on_tasks: Callable[[Collection[int] | None], None] = lambda partitions: None
        """Called when deliveries were queued in these partitions; in any, for None."""
        self.on_ended: Callable[[Collection[str]], None] = lambda execution_ids: None
        """Called when executions have ended, here or elsewhere."""
        self.on_owners: Callable[[Collection[str]], None] = lambda replicas: None
        """Called when replicas have come to own partitions, or have handed one over; this one's own ways too."""
        self.on_permits: Callable[[Collection[str] | None], None] = lambda handlers: None
        """Called when permits of these handlers have become free that somebody was refused; of any, for None."""
        self.alone = False
        """Whether no other replica wants to hear the news."""
        self._broker = broker
        self._partition_of = partition_of
        self._served: frozenset[int] = frozenset()
        self._positions: dict[int, list[str]] = {}
        self._unread: set[int] = set()
        self._readable = asyncio.Event()
        self._heard = False
        self._outgoing: dict[int, _Outgoing] = {}
        self._changed: dict[str, None] = {}
        self._ended: dict[str, None] = {}
        self._owners: dict[str, None] = {}
        self._to_send = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._taken: dict[DeliveryKey, str] = {}
        self._unsent: dict[DeliveryKey, None] = {}

    @property
    def reaches_others(self) -> bool:
        return True

    @property
    def in_hand(self) -> list[DeliveryKey]:
        """What was taken here and not handed in yet, and what ended here and is not with its owner yet."""
        return [*self._taken, *self._unsent, *map(key_of, self._outcomes)]

    def expect(self, key: DeliveryKey, entry_id: str) -> None:
        """A delivery was taken here: its outcome is handed in under this entry id."""
        self._taken[key] = entry_id

    def is_expected(self, key: DeliveryKey) -> bool:
        """Whether a taken delivery is still to be handed in."""
        return key in self._taken

    def abandon(self, key: DeliveryKey) -> str | None:
        """A taken delivery will not be handed in; returns its entry id, if it was expected."""
        return self._taken.pop(key, None)

    @property
    def is_cut_off(self) -> bool:
        return not self._heard

    def wake(self, execution_id: str) -> None:
        partition = self._partition_of(execution_id)
        if partition in self._served:
            super().wake(execution_id)
        else:
            self._out(partition).wake_ups[execution_id] = None

    def hand_in(self, outcome: Outcome) -> None:
        key = key_of(outcome)
        entry_id = self._taken.pop(key, None)
        partition = self._partition_of(outcome.execution_id)
        if entry_id is None and partition in self._served:
            super().hand_in(outcome)
        else:
            self._unsent[key] = None
            self._out(partition).outcomes.append(HandIn(outcome, entry_id))

    def settle(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if outcome.entry_id is not None:
                self._out(self._partition_of(outcome.execution_id)).settled.append(outcome.entry_id)

    def pass_on(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            # What came from the inbox is still there, for whoever owns the partition now.
            if outcome.entry_id is None:
                self.hand_in(outcome)

    def serve(self, partitions: Collection[int]) -> None:
        if partitions == self._served:
            return
        now = frozenset(partitions)
        for partition in self._served - now:
            del self._positions[partition]
        for partition in now - self._served:
            self._positions[partition] = [""]
            self._unread.add(partition)
        self._served = now
        self._readable.set()

    def publish(self, changed: Collection[str], ended: Collection[str] = ()) -> None:
        super().publish(changed, ended)
        if ended:
            self.on_ended(ended)
        if not self.alone and (changed or ended):
            self._changed.update(dict.fromkeys(changed))
            self._ended.update(dict.fromkeys(ended))
            self._sending()

    def tell_of_owner(self, replica: str) -> None:
        """Tell the others that this replica has come to own partitions, or has handed one over."""
        self._owners[replica] = None
        self._sending()

    async def run(self) -> None:
        """Send, hear and read, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send(), name="transport-send")
            tasks.create_task(self._listen(), name="transport-listen")
            tasks.create_task(self._read(), name="transport-read")

    async def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything that was to be sent is sent; False when it took too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._idle.wait()
        return self._idle.is_set()

    def _out(self, partition: int) -> _Outgoing:
        self._sending()
        outgoing = self._outgoing.get(partition)
        if outgoing is None:
            outgoing = self._outgoing[partition] = _Outgoing()
        return outgoing

    def _sending(self) -> None:
        self._idle.clear()
        self._to_send.set()

    async def _send(self) -> None:
        backoff = Backoff(FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            outgoing, self._outgoing = self._outgoing, {}
            changed, self._changed = self._changed, {}
            ended, self._ended = self._ended, {}
            owners, self._owners = self._owners, {}
            sends = [self._send_one(partition, each) for partition, each in outgoing.items()]
            if changed or ended or owners:
                sends.append(self._publish(changed, ended, owners))
            all_sent = all(await asyncio.gather(*sends))
            if not self._to_send.is_set():
                self._idle.set()  # news that could not be told are not told again
            if all_sent:
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next_seconds())

    async def _send_one(self, partition: int, outgoing: _Outgoing) -> bool:
        try:
            if outgoing.wake_ups or outgoing.outcomes:
                await self._broker.post(partition, outgoing.wake_ups, outgoing.outcomes)
                for outcome, _ in outgoing.outcomes:
                    self._unsent.pop(key_of(outcome), None)
                outgoing.outcomes = []
            if outgoing.settled:
                await self._broker.delete_from_inbox(partition, outgoing.settled)
                outgoing.settled = []
        except BrokerUnavailable:
            return False
        finally:
            # Whatever has gone wrong: what was not sent is sent later. It counts as in hand, so nobody else misses it.
            if outgoing.outcomes or outgoing.settled:
                waiting = self._out(partition)
                waiting.outcomes[:0] = outgoing.outcomes
                waiting.settled[:0] = outgoing.settled
        return True

    async def _publish(self, changed: Collection[str], ended: Collection[str], owners: Collection[str]) -> bool:
        try:
            await self._broker.publish(changed, ended, owners)
        except BrokerUnavailable:
            # Nobody depends on it: who waits for news looks by himself now and then.
            return False
        return True

    async def _listen(self) -> None:
        backoff = Backoff(FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
        while True:
            with suppress(BrokerUnavailable):
                async for news in self._broker.listen():
                    backoff.reset()
                    self._hear(news)
            self._heard = False
            await asyncio.sleep(backoff.next_seconds())

    def _hear(self, news: News) -> None:
        if not self._heard:
            self._heard = True
            self._unread.update(self._served)
            self._readable.set()
            self.on_tasks(None)
            self.on_permits(None)
        if wanted := self._served.intersection(news.inbox):
            self._unread |= wanted
            self._readable.set()
        if news.tasks:
            self.on_tasks(news.tasks)
        if news.changed or news.ended:
            super().publish(news.changed, news.ended)
        if news.ended:
            self.on_ended(news.ended)
        if news.permits:
            self.on_permits(news.permits)
        if news.owners:
            self.on_owners(news.owners)

    async def _read(self) -> None:
        while True:
            interval = REREAD_SECONDS if self._heard else REREAD_UNHEARD_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._readable.wait()
            self._readable.clear()
            unread = self._unread or self._served
            self._unread = set()
            await asyncio.gather(*(self._read_one(partition) for partition in unread))

    async def _read_one(self, partition: int) -> None:
        position = self._positions.get(partition)
        while position is not None:
            try:
                entries = await self._broker.read_inbox(partition, position[0], READ_AT_ONCE)
            except BrokerUnavailable:
                return
            if self._positions.get(partition) is not position:
                return  # no longer owned, or owned anew and to be read from the beginning
            settled = []
            for entry_id, wake_ups, outcome in entries:
                position[0] = entry_id
                for execution_id in wake_ups:
                    super().wake(execution_id)
                if outcome is None:
                    settled.append(entry_id)
                else:
                    super().hand_in(outcome._replace(entry_id=entry_id))
            if settled:
                self._out(partition).settled += settled
            if len(entries) < READ_AT_ONCE:
                return
