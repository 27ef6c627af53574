"""What one replica sees of all: who owns which partition and what waits there, who is alive and what he runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from ..core.deliveries import Heartbeat, Replicas
from ..core.shares import NOBODY, PartitionRecord
from ..errors import BrokerUnavailable
from ..ports import OwnerStore
from .options import HealthSources

ANSWER_SECONDS = 2.0
"""Who does not answer for that long is not waited for: whoever asks wants to know now."""


class PartitionsSeen(NamedTuple):
    """Every partition as the store has it.

    `unserved_seconds`: for each partition without an owner, where an execution is ready to run: how long the oldest has
    waited. `executions_wait`: whether one is ready to run anywhere, or runs.
    """

    records: Sequence[PartitionRecord]
    unserved_seconds: Mapping[int, float]
    executions_wait: bool

    @property
    def oldest_unserved_seconds(self) -> float | None:
        """How long the oldest execution has waited that nobody serves; None when there is none."""
        return max(self.unserved_seconds.values(), default=None)


class ReplicaSeen(NamedTuple):
    """A replica by what it said of itself `age_seconds` ago. `is_alive`: that is not too long."""

    heartbeat: Heartbeat
    age_seconds: float
    is_alive: bool


class ReplicasSeen(NamedTuple):
    """The replicas by their ids. `source`: where what they say of themselves was read."""

    source: Literal["heartbeats", "checkpoints"]
    items: Sequence[ReplicaSeen]


async def see_partitions(store: OwnerStore, now: int) -> PartitionsSeen:
    """Who owns what, and what waits, at a moment in epoch milliseconds. Raises what the store raises."""
    records = await store.read_partitions()
    ready = await store.oldest_ready([record.partition for record in records], now)
    unserved = {
        record.partition: _unserved_seconds(record, ready[record.partition], now)
        for record in records
        if record.partition in ready and not record.is_owned
    }
    return PartitionsSeen(records, unserved, bool(ready))


def _unserved_seconds(record: PartitionRecord, ready_since: int, now: int) -> float:
    """What is ready for longer than the lease has run out was in somebody's hands before."""
    ready_seconds = max(0, now - ready_since) / 1000
    return ready_seconds if record.owner == NOBODY else min(ready_seconds, -record.expires_in_seconds)


async def see_replicas(sources: HealthSources) -> ReplicasSeen:
    """The replicas by their heartbeats; where those cannot be read, by their checkpoints. Raises `StoreUnavailable`."""
    if sources.read_heartbeats is not None:
        with suppress(BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                replicas = await sources.read_heartbeats()
            return ReplicasSeen("heartbeats", _judged(replicas, sources.heartbeat_timeout_seconds))
    replicas = await sources.read_checkpoints()
    return ReplicasSeen("checkpoints", _judged(replicas, sources.checkpoint_timeout_seconds))


def _judged(replicas: Replicas, timeout_seconds: float) -> Sequence[ReplicaSeen]:
    seen = []
    for at, heartbeat in replicas.seen:
        age_seconds = max(0, replicas.now - at) / 1000
        seen.append(ReplicaSeen(heartbeat, age_seconds, age_seconds < timeout_seconds))
    return sorted(seen, key=lambda each: each.heartbeat.replica)
