"""The Broker on Redis or Valkey, one server or a cluster: each verb is one script, and so one atomic step.

| key | type | holds |
| --- | --- | --- |
| `{wf:p}:inbox` | stream | wake-ups and outcomes; the owner reads from the beginning and deletes |
| `{wf:p}:outcomes` | hash | entry ids of the inbox to the attempts that their outcomes are of |
| `{wf:p}:tasks:<handler>` | stream | queued deliveries. No group: what is taken is deleted, and noted in `out` |
| `{wf:p}:out` | hash | attempts to entry id, when and by whom it was taken, handler |
| `{wf:p}:whole`, `{wf}:whole` | hash | since when what lies beside it is whole; the next entry id of the queues |
| `{wf}:replicas` | hash | replicas to their last heartbeat |
| `{wf:limits:<handler>}:slots` | sorted set | permits that are out, by when they end |
| `{wf:limits:<handler>}:rate:<key>` | string | a bucket: how full, when, until when it is closed; gone when full |

Everything of a partition has one hash tag, and so has everything of a handler's limits. All times are Redis' own.
`wanted` in a handler's `whole`: news are told of the next permit that comes back. Needs Redis 6.2 or Valkey.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from contextlib import aclosing
from functools import cache
from typing import Any, NamedTuple, TypeVar

from ..broker import BrokerHealth, HandIn, InboxEntry, News
from ..core.deliveries import DeliveryKey, Heartbeat, PartitionSight, Replicas, Taken, Task
from ..core.permits import Answer, Ask, Limits
from ..errors import BrokerUnavailable, SetupError
from ..failpoints import failpoint
from .limits import FORGET_HEARTBEATS_AFTER, LONGEST_INBOX_FOR_WAKE_UPS
from .redis_connections import RedisAddress, RedisConnections, Server
from .redis_listener import subscribe
from .redis_values import (
    Unreadable,
    heartbeat_text,
    key_text,
    news_text,
    outcome_header,
    outcome_key,
    read_entry,
    read_heartbeat,
    read_key,
    read_news,
    read_refusal,
    read_sighting,
    read_taken,
    wake_ups_text,
)

OLDEST_VERSION = (6, 2)
MOST_IDS_IN_A_MESSAGE = 1_000
NEWS = "wf:news"
_WHOLE, _REPLICAS = "{wf}:whole", "{wf}:replicas"
_log = logging.getLogger(__name__)

Part = TypeVar("Part")


class _Names(NamedTuple):
    """The keys of a partition, what its queues' names begin with, and its news."""

    whole: str
    inbox: str
    outcomes: str
    out: str
    queues: str
    inbox_news: str
    tasks_news: str


@cache
def _names(partition: int) -> _Names:
    tag = f"{{wf:{partition}}}"
    return _Names(
        whole=f"{tag}:whole",
        inbox=f"{tag}:inbox",
        outcomes=f"{tag}:outcomes",
        out=f"{tag}:out",
        queues=f"{tag}:tasks:",
        inbox_news=news_text(News(inbox=[partition])),
        tasks_news=news_text(News(tasks=[partition])),
    )


class _LimitNames(NamedTuple):
    """The keys of a handler's limits, what its buckets' names begin with, and its news."""

    whole: str
    slots: str
    buckets: str
    news: str


@cache
def _limit_names(handler: str) -> _LimitNames:
    tag = f"{{wf:limits:{handler}}}"
    return _LimitNames(f"{tag}:whole", f"{tag}:slots", f"{tag}:rate:", news_text(News(permits=[handler])))


class RedisBroker:
    """What replicas talk through. Safe to use concurrently. An outage heals by itself, with a line in the log."""

    def __init__(
        self,
        address: RedisAddress,
        *,
        cluster: bool = False,
        max_connections: int = 50,
        timeout_seconds: float = 10.0,
        strict: bool = False,
    ) -> None:
        """`cluster`: the address is that of any node of a cluster. `timeout_seconds` bounds each call altogether.

        `strict`: refuse to open with a Redis that may evict what it holds, rather than warn.
        """
        self._connections = RedisConnections(
            address, cluster=cluster, max_connections=max_connections, timeout_seconds=timeout_seconds
        )
        self._strict = strict
        self._is_checked = False

    async def open(self) -> None:
        self._connections.open()
        try:
            servers = await self._connections.servers()
        except BrokerUnavailable:
            return  # it is in the log; what would be said now is said at the first contact
        self._is_checked = True
        refused, risky = list(refusals(servers)), list(risks(servers))
        if refused or (self._strict and risky):
            await self._connections.close()
            raise SetupError((refused or risky)[0])
        for text in risky:
            _log.warning("%s", text)

    async def close(self) -> None:
        await self._connections.close()

    # --- inboxes ------------------------------------------------------------------------------------------

    async def post(self, partition: int, wake_ups: Collection[str], outcomes: Sequence[HandIn]) -> None:
        """One entry for all wake-ups, then one for each outcome.

        Whatever is known under an outcome's entry id is forgotten, be it taken or queued: a Redis that was rolled back
        has queued it again.
        """
        if not wake_ups and not outcomes:
            return
        names = _names(partition)
        woken = wake_ups_text(list(wake_ups)) if wake_ups else ""
        arguments: list[str | bytes | int] = [names.queues, NEWS, names.inbox_news, LONGEST_INBOX_FOR_WAKE_UPS, woken]
        for outcome, entry_id in outcomes:
            arguments += (outcome_key(outcome), entry_id or "", outcome_header(outcome), outcome.output or b"")
        await self._run("post", (names.whole, names.out, names.inbox, names.outcomes), arguments)

    async def read_inbox(self, partition: int, after: str, limit: int) -> Sequence[InboxEntry]:
        await self._check()
        inbox = _names(partition).inbox
        while True:
            start = f"({after}" if after else "-"
            found = await self._connections.command("XRANGE", inbox, start, "+", "COUNT", limit)
            entries, unreadable = [], []
            for entry_id, fields in found:
                try:
                    entries.append(read_entry(entry_id, fields))
                except Unreadable as error:
                    unreadable.append(entry_id.decode())
                    self._complain(f"an entry of the inbox of partition {partition}", error)
            await self.delete_from_inbox(partition, unreadable)
            if entries or not unreadable:
                return entries
            after = unreadable[-1]

    async def delete_from_inbox(self, partition: int, entry_ids: Collection[str]) -> None:
        if entry_ids:
            names = _names(partition)
            await self._run("delete_from_inbox", (names.whole, names.inbox, names.outcomes), entry_ids)

    # --- deliveries ---------------------------------------------------------------------------------------

    async def spill(self, partition: int, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        names = _names(partition)
        arguments = [names.queues, NEWS, names.tasks_news]
        for key, handler, definition_id in tasks:
            arguments += (key_text(key), handler, definition_id)
        await self._run("spill", (names.whole, names.out), arguments)

    async def take(self, partition: int, handlers: Sequence[str], count: int, replica: str) -> Sequence[Taken]:
        if not handlers or count <= 0:
            return []
        names = _names(partition)
        wanted = dict.fromkeys(handlers)
        queues = (f"{names.queues}{handler}" for handler in wanted)
        unreadable, *parts = await self._run("take", (names.whole, names.out, *queues), (count, replica, *wanted))
        if unreadable:
            self._complain(
                f"a delivery of partition {partition}", Unreadable("its version or its fields are not known")
            )
        taken = []
        for entry_id, handler, key, definition_id in zip(*(iter(parts),) * 4, strict=True):
            try:
                taken.append(read_taken(entry_id, handler, key, definition_id))
            except Unreadable as error:
                # It is noted as taken, and in the end its owner counts it as lost.
                self._complain(f"a delivery of partition {partition}", error)
        return taken

    async def give_back(self, partition: int, taken: Sequence[Taken]) -> None:
        if not taken:
            return
        names = _names(partition)
        arguments = [names.queues, NEWS, names.tasks_news]
        for entry_id, (key, handler, definition_id) in taken:
            arguments += (entry_id, key_text(key), handler, definition_id)
        await self._run("give_back", (names.whole, names.out), arguments)

    async def forget(self, partition: int, keys: Collection[DeliveryKey]) -> None:
        await self._forget(partition, [key_text(key) for key in keys])

    async def look(self, partition: int) -> PartitionSight:
        names = _names(partition)
        keys = (names.whole, names.out, names.outcomes, names.inbox)
        now, whole_since, out, outcomes = await self._run("look", keys, (names.queues,))
        deliveries, handed_in = {}, set()
        damaged, damaged_entries = [], []
        for key, sighting in _pairs(out):
            try:
                deliveries[read_key(key)] = read_sighting(sighting)
            except Unreadable as error:
                damaged.append(key)
                self._complain(f"what is known of a delivery of partition {partition}", error)
        for entry_id, key in _pairs(outcomes):
            try:
                handed_in.add(read_key(key))
            except Unreadable as error:
                damaged_entries.append(entry_id)
                self._complain(f"what is known of an outcome of partition {partition}", error)
        await self._forget(partition, damaged)
        if damaged_entries:
            await self._connections.command("HDEL", names.outcomes, *damaged_entries)
        return PartitionSight(int(now), int(whole_since), deliveries, handed_in)

    # --- permits ------------------------------------------------------------------------------------------

    async def take_permits(
        self, handler: str, limits: Limits, asks: Sequence[Ask], lease_milliseconds: int | None
    ) -> Answer:
        assert lease_milliseconds is not None, "whoever takes them may die"
        names = _limit_names(handler)
        rate_keys = dict.fromkeys(ask.rate_key for ask in asks)
        positions = {rate_key: position for position, rate_key in enumerate(rate_keys, 3)}
        arguments: list[str | int] = [limits.max_running, lease_milliseconds, limits.tokens, limits.period]
        for permit, rate_key in asks:
            arguments += (permit, positions[rate_key])
        keys = (names.whole, names.slots, *(names.buckets + rate_key for rate_key in rate_keys))
        running, *refusals = await self._run("take_permits", keys, arguments)
        return Answer([read_refusal(*each) for each in _pairs(refusals)], running)

    async def renew_permits(self, handler: str, permits: Collection[str], lease_milliseconds: int | None) -> None:
        assert lease_milliseconds is not None, "whoever has them may die"
        if permits:
            names = _limit_names(handler)
            await self._run("renew_permits", (names.whole, names.slots), (lease_milliseconds, *permits))

    async def release_permits(self, handler: str, permits: Collection[str]) -> None:
        if permits:
            names = _limit_names(handler)
            await self._run("release_permits", (names.whole, names.slots), (NEWS, names.news, *permits))

    async def close_key(self, handler: str, limits: Limits, rate_key: str, seconds: float) -> None:
        names = _limit_names(handler)
        arguments = (limits.tokens, limits.period, round(seconds * 1_000_000))
        await self._run("close_key", (names.whole, names.buckets + rate_key), arguments)

    # --- heartbeats and news ------------------------------------------------------------------------------

    async def beat(self, heartbeat: Heartbeat) -> Replicas:
        return await self._replicas((heartbeat.replica, heartbeat_text(heartbeat), FORGET_HEARTBEATS_AFTER))

    async def read_replicas(self) -> Replicas:
        return await self._replicas(())

    async def retire(self, replica: str) -> None:
        await self._check()
        await self._connections.command("HDEL", _REPLICAS, replica)

    async def publish(self, changed: Collection[str], ended: Collection[str], owners: Collection[str] = ()) -> None:
        """In messages of a thousand ids; those of what changed go first."""
        if owners:
            await self._connections.command("PUBLISH", NEWS, news_text(News(owners=owners)))
        ids = [*((each, False) for each in changed), *((each, True) for each in ended)]
        for start in range(0, len(ids), MOST_IDS_IN_A_MESSAGE):
            some = ids[start : start + MOST_IDS_IN_A_MESSAGE]
            news = News(changed=[each for each, end in some if not end], ended=[each for each, end in some if end])
            await self._connections.command("PUBLISH", NEWS, news_text(news))

    async def listen(self) -> AsyncIterator[News]:
        async with aclosing(subscribe(self._connections, NEWS)) as messages:
            async for message in messages:
                try:
                    yield News() if message is None else read_news(message)
                except Unreadable as error:
                    self._complain("news", error)

    async def health(self) -> BrokerHealth:
        try:
            servers = await self._connections.servers()
        except BrokerUnavailable as error:
            return BrokerHealth(ok=False, detail=str(error))
        notes = [", ".join(dict.fromkeys(map(str, servers))), *refusals(servers), *risks(servers)]
        return BrokerHealth(ok=True, detail="; ".join(note for note in notes if note) or "answers")

    # --- inside -------------------------------------------------------------------------------------------

    async def _run(self, script: str, keys: Sequence[str], arguments: Iterable[str | bytes | int] = ()) -> Any:
        await self._check()
        failpoint("redis.call.before")
        answer = await self._connections.run(script, keys, arguments)
        failpoint("redis.call.after")
        return answer

    async def _check(self) -> None:
        """At the first contact with a Redis that was away when it was opened, say what is wrong with it."""
        if self._is_checked:
            return
        servers = await self._connections.servers()
        if not self._is_checked:
            self._is_checked = True
            for text in (*refusals(servers), *risks(servers)):
                _log.error("%s", text)

    async def _forget(self, partition: int, keys: Sequence[str | bytes]) -> None:
        if keys:
            names = _names(partition)
            await self._run("forget", (names.whole, names.out), (names.queues, *keys))

    async def _replicas(self, arguments: Sequence[str | bytes | int]) -> Replicas:
        now, whole_since, heartbeats = await self._run("beat", (_WHOLE, _REPLICAS), arguments)
        seen = []
        for heartbeat in heartbeats:
            try:
                seen.append(read_heartbeat(heartbeat))
            except Unreadable as error:
                self._complain("a heartbeat", error)
        return Replicas(int(now), int(whole_since), sorted(seen, key=lambda each: each.heartbeat.replica))

    def _complain(self, what: str, error: Unreadable) -> None:
        self._connections.log.write(
            logging.WARNING, what, f"Redis holds {what} that cannot be read, and counts for nothing: {error}"
        )


def _pairs(parts: Sequence[Part]) -> Iterator[tuple[Part, Part]]:
    return zip(parts[::2], parts[1::2], strict=True)


def refusals(servers: Sequence[Server]) -> Iterator[str]:
    """Why servers cannot be used."""
    for server in servers:
        if server.version and server.version < OLDEST_VERSION:
            yield f"{server} is too old: Redis 6.2 or newer is needed, or Valkey"


def risks(servers: Sequence[Server]) -> Iterator[str]:
    """What servers may do to what they hold."""
    for policy in dict.fromkeys(server.policy for server in servers):
        if policy not in ("", "noeviction"):
            yield (
                f"Redis may evict what the engine needs: its maxmemory-policy is {policy}. Set it to noeviction, in "
                "the server's configuration or by CONFIG SET maxmemory-policy noeviction"
            )
