"""What one replica sees of all: who owns which partition and what waits there, who is alive and what he runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..core.deliveries import Heartbeat, Replicas
from ..core.shares import NOBODY, PartitionRecord
from ..ports import OwnerStore


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
    """A replica by its heartbeat. `is_alive`: it is not too old."""

    heartbeat: Heartbeat
    silent_seconds: float
    is_alive: bool


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


def see_replicas(replicas: Replicas, timeout_seconds: float) -> Sequence[ReplicaSeen]:
    """The replicas by their ids. A heartbeat that is older than `timeout_seconds` is a dead one's."""
    seen = []
    for at, heartbeat in replicas.seen:
        silent_seconds = max(0, replicas.now - at) / 1000
        seen.append(ReplicaSeen(heartbeat, silent_seconds, silent_seconds < timeout_seconds))
    return sorted(seen, key=lambda each: each.heartbeat.replica)
