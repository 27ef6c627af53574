"""Which replica owns which partition: shares, and what one replica does about its own.

A share is `floor(P / n)`, and one more for the first `P mod n` live replicas by id. (Rounding up starves some:
16 partitions over 5 replicas gave 4, 4, 4, 4 and 0.) Nobody decides for others: each takes what nobody owns, up to
its share, and hands over one partition at a time when it has more.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from typing import NamedTuple

NOBODY = ""
LEFT_OVER_SECONDS = 0.5
"""What is free and not taken by those whose share it would be is looked at again after that time."""


class PartitionRecord(NamedTuple):
    """A partition as the store has it. `owner` may be `NOBODY`; `expires_in_seconds` by the store's clock, negative
    when the lease has run out, infinite where it never does."""

    partition: int
    version: int
    owner: str
    expires_in_seconds: float

    @property
    def is_owned(self) -> bool:
        """Whether somebody owns it whose lease has not run out."""
        return self.owner != NOBODY and self.expires_in_seconds > 0


class Look(NamedTuple):
    """What a replica sees when it looks: every partition, and the ids of the live replicas, its own among them."""

    partitions: Sequence[PartitionRecord]
    replicas: Sequence[str]


class Plan(NamedTuple):
    """What a replica does after a look. `next_look_seconds`: when something expires, or the interval has passed."""

    take: Sequence[PartitionRecord]
    release: Sequence[int]
    lost: Sequence[int]
    next_look_seconds: float


def partition_of(execution_id: str, partitions: int) -> int:
    """The partition of an execution: what it is made with, and never changes."""
    return zlib.crc32(execution_id.encode()) % partitions if partitions > 1 else 0


def share_of(replica: str, replicas: Collection[str], partitions: int) -> int:
    """How many partitions a live replica is meant to own."""
    least, rest = divmod(partitions, len(replicas))
    return least + (sorted(replicas).index(replica) < rest)


def plan(look: Look, replica: str, owned: Collection[int], interval_seconds: float) -> Plan:
    """What `replica`, which believes to own `owned`, does about what it sees.

    Its own former partitions are taken back at once, whether they have expired or not: nobody else can be their
    owner. More than its share is handed over one at a time, the highest first. Whoever has its share looks when a lease
    runs out, too: its owner may have died, and everybody's share be larger.
    """
    share = share_of(replica, look.replicas, len(look.partitions))
    kept = [each.partition for each in look.partitions if each.owner == replica and each.partition in owned]
    lost = sorted(set(owned).difference(kept))
    mine = [each for each in look.partitions if each.owner == replica and each.partition not in owned]
    free = [each for each in look.partitions if each.owner != replica and not each.is_owned]
    room = share - len(kept) - len(mine)
    take = mine + free[: max(0, room)]
    release = [max(kept)] if len(kept) > share else []
    waits = [each.expires_in_seconds for each in look.partitions if each.owner != replica and each.is_owned]
    if len(take) < len(mine) + len(free):
        waits.append(LEFT_OVER_SECONDS)
    return Plan(take, release, lost, min([interval_seconds, *waits]))
