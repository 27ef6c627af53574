"""The port between replicas: streams of events, queues of deliveries, heartbeats, news. Redis, or memory in tests.

Nothing here is durable, and nothing needs to be: everything in it may be lost at any moment and costs time only. Each
verb is one atomic step on one partition. It has happened when its call returns; when it raises `BrokerUnavailable` it
may have happened or not. Every verb may be repeated: what is there twice changes nothing that is committed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple, Protocol

from .core.deliveries import DeliveryKey, Heartbeat, PartitionSight, Replicas, Taken, Task
from .core.machine import Outcome
from .core.permits import Answer, Ask, Limits


class HandIn(NamedTuple):
    """An outcome for another replica's owner. `entry_id` is that of the delivery it belongs to, if it was taken."""

    outcome: Outcome
    entry_id: str | None


class InboxEntry(NamedTuple):
    """What waits for a partition's owner: executions to look at, or an outcome."""

    entry_id: str
    wake_ups: Sequence[str]
    outcome: Outcome | None


class News(NamedTuple):
    """Something has happened, for whoever it concerns. May be lost: everybody looks by himself now and then.

    `inbox`: partitions whose inbox has something; `tasks`: partitions with queued deliveries; `changed` and `ended`:
    executions; `owners`: replicas that have come to own partitions, or have handed one over; `permits`: handlers of
    which a slot is free that somebody was refused.
    """

    inbox: Collection[int] = ()
    tasks: Collection[int] = ()
    changed: Collection[str] = ()
    ended: Collection[str] = ()
    owners: Collection[str] = ()
    permits: Collection[str] = ()


class BrokerHealth(NamedTuple):
    """How the broker is: `ok`, and a line for people."""

    ok: bool
    detail: str


class Inboxes(Protocol):
    """What owners are sent. Read from the beginning by whoever owns the partition: no group, no claim."""

    async def post(self, partition: int, wake_ups: Collection[str], outcomes: Sequence[HandIn]) -> None:
        """Put into the inbox; tell the news.

        For an outcome with an entry id: the delivery is no longer known as taken, if it still is that entry's. Wake-ups
        are dropped when the inbox is long; outcomes are never refused.
        """

    async def read_inbox(self, partition: int, after: str, limit: int) -> Sequence[InboxEntry]:
        """The entries behind the one with the id `after`, oldest first; from the beginning with `after` empty.

        What cannot be read (it was damaged, or another version wrote it) is deleted, with a line in the log.
        """

    async def delete_from_inbox(self, partition: int, entry_ids: Collection[str]) -> None:
        """Delete entries: what they said is committed."""


class TaskQueues(Protocol):
    """Deliveries for other replicas, in a queue for each partition and handler."""

    async def spill(self, partition: int, tasks: Sequence[Task]) -> None:
        """Queue deliveries, in this order; tell the news. One that is known already is queued anew: the earlier
        entry is gone, and whoever has taken it hands in under an entry id that clears nothing."""

    async def take(self, partition: int, handlers: Sequence[str], count: int, replica: str) -> Sequence[Taken]:
        """Take at most `count` of the queued deliveries of these handlers, the oldest first, and note who has them."""

    async def give_back(self, partition: int, taken: Sequence[Taken]) -> None:
        """Queue again what was taken and not started, under a new entry id, if it still is that entry's; tell the
        news."""

    async def forget(self, partition: int, keys: Collection[DeliveryKey]) -> None:
        """Nobody shall take these any more, and nothing is known of them."""

    async def look(self, partition: int) -> PartitionSight:
        """Everything that is known of a partition's deliveries, and of the outcomes in its inbox, as of one moment."""


class Heartbeats(Protocol):
    """Who is alive, by the broker's clock."""

    async def beat(self, heartbeat: Heartbeat) -> Replicas:
        """Store a heartbeat, forget those that are ten minutes old, and see all, this one among them."""

    async def read_replicas(self) -> Replicas:
        """See all."""

    async def retire(self, replica: str) -> None:
        """A replica has ended in good order: it has nothing in hand."""


class PermitKeeper(Protocol):
    """Who keeps the permits of handlers that have limits; what each verb does is in `core.permits.Permits`.

    A verb is one step on everything that is kept of one handler.
    """

    async def take_permits(
        self, handler: str, limits: Limits, asks: Sequence[Ask], lease_milliseconds: int | None
    ) -> Answer:
        """Take as many of these permits as there are. They end after the lease, unless they are renewed."""

    async def renew_permits(self, handler: str, permits: Collection[str], lease_milliseconds: int | None) -> None:
        """These are in use, from now on for another lease."""

    async def release_permits(self, handler: str, permits: Collection[str]) -> None:
        """These are in use no more; tell the news if somebody was refused a slot. Unknown ones are nothing."""

    async def close_key(self, handler: str, limits: Limits, rate_key: str, seconds: float) -> None:
        """Nothing of this rate key begins for that long, whoever asks."""


class Broker(Inboxes, TaskQueues, Heartbeats, PermitKeeper, Protocol):
    """How replicas talk."""

    async def open(self) -> None:
        """Make ready. Raises `SetupError` for what will never work; a server that is away is none of that."""

    async def close(self) -> None:
        """Release everything. Safe to call twice, and without `open`."""

    async def publish(self, changed: Collection[str], ended: Collection[str], owners: Collection[str] = ()) -> None:
        """Tell the news of executions and of owners."""

    def listen(self) -> AsyncIterator[News]:
        """The news from now on, this replica's own too. The first item is empty news: from then on all is heard.
        Raises `BrokerUnavailable` when some may have been missed: listen again, and look at everything."""

    async def health(self) -> BrokerHealth:
        """Whether the broker answers. Never raises."""
