"""Deliveries that other replicas have: what is known of each, and when it counts as lost.

Only the owner decides that a delivery is lost; workers never claim one from another. A delivery exists while it waits
in a queue, or was taken less than the heartbeat timeout ago, or a heartbeat younger than that names it, or its outcome
is on the way. What Redis cannot tell, because it was wiped or away, is not held against anyone: judgement waits until
it has been whole for as long as a heartbeat may take.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from .machine import Outcome


class DeliveryKey(NamedTuple):
    """An attempt of a node, by the node's index: what deliveries and outcomes are known by."""

    execution_id: str
    node: int
    attempt: int


def key_of(outcome: Outcome) -> DeliveryKey:
    """The attempt that an outcome is of."""
    return DeliveryKey(outcome.execution_id, outcome.node, outcome.attempt)


class Task(NamedTuple):
    """A delivery as it is handed to another replica: a reference, no payload."""

    key: DeliveryKey
    handler: str
    definition_id: str


class Taken(NamedTuple):
    """A task that a worker has taken. `entry_id` tells this delivery from a later one of the same attempt."""

    entry_id: str
    task: Task


class Sighting(NamedTuple):
    """A delivery that was handed out and not handed in. `taken_at` is None while it waits in its queue.

    Times in epoch milliseconds by the broker's clock. `replica` is who took it.
    """

    entry_id: str
    taken_at: int | None
    replica: str


class PartitionSight(NamedTuple):
    """What the broker knows of one partition, as of one moment.

    `now` and `whole_since`: by the broker's clock, in epoch milliseconds; since when nothing of the partition can have
    been wiped. `handed_in`: what has an outcome in the inbox.
    """

    now: int
    whole_since: int
    deliveries: Mapping[DeliveryKey, Sighting]
    handed_in: Collection[DeliveryKey]


class Heartbeat(NamedTuple):
    """What a replica says of itself. `attempts`: every one that it runs, has taken, or still has to hand in.

    `handlers`: what its worker serves; `slots` and `free_slots` of that worker (0 without one); `partitions`: how many
    it owns; `started_at` in epoch milliseconds.
    """

    replica: str
    roles: Sequence[str]
    handlers: Sequence[str]
    slots: int
    free_slots: int
    partitions: int
    host: str
    version: str
    started_at: int
    attempts: Sequence[DeliveryKey]


class SeenHeartbeat(NamedTuple):
    """A heartbeat as it was stored; `at` by the broker's clock, in epoch milliseconds."""

    at: int
    heartbeat: Heartbeat


class Replicas(NamedTuple):
    """Every heartbeat that is not long gone. Times by the broker's clock, in epoch milliseconds.

    `whole_since`: since when none of them can have been wiped.
    """

    now: int
    whole_since: int
    seen: Sequence[SeenHeartbeat]


def milliseconds_left(
    key: DeliveryKey, sight: PartitionSight, named_at: int | None, replicas: Replicas, timeout: int
) -> float:
    """How long a delivery exists from now on, at least; 0 or less: it is lost.

    `named_at`: when the latest heartbeat was that named it. `replicas` were read before `sight`: what was handed in
    between the two is in the inbox. Times in milliseconds.
    """
    sighting = sight.deliveries.get(key)
    if key in sight.handed_in or (sighting is not None and sighting.taken_at is None):
        return math.inf
    whole_since = max(sight.whole_since - sight.now, replicas.whole_since - replicas.now)
    ages = [whole_since]
    if sighting is not None and sighting.taken_at is not None:
        ages.append(sighting.taken_at - sight.now)
    if named_at is not None:
        ages.append(named_at - replicas.now)
    return max(ages) + timeout


def named_by(replicas: Replicas) -> dict[DeliveryKey, int]:
    """By attempt, when the latest heartbeat was that names it."""
    named: dict[DeliveryKey, int] = {}
    for at, heartbeat in replicas.seen:
        for key in heartbeat.attempts:
            named[key] = max(at, named.get(key, at))
    return named


def alive(replicas: Replicas, timeout: int) -> list[Heartbeat]:
    """The heartbeats of those that are not silent for `timeout` milliseconds."""
    return [heartbeat for at, heartbeat in replicas.seen if replicas.now - at < timeout]
