"""What this replica owns: it looks, takes, renews, hands over, and knows until when it may start something.

Expiry only lets others take: what keeps a former owner from doing harm is the version. The deadline here is
reckoned from before the store was asked, so it passes before the store's own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from ..clock import Clock
from ..core.shares import NOBODY, PartitionRecord, plan
from ..errors import BackendError, PartitionLost
from ..failpoints import failpoint
from ..ports import Store

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 1.0
DRAIN_SECONDS = 30.0
"""How long a partition that is handed over waits for what runs of it: after that, its next owner runs it again."""


class Attended(NamedTuple):
    """What a look has changed: partitions taken, partitions lost, partitions to hand over."""

    taken: Sequence[int]
    lost: Sequence[int]
    surplus: Sequence[int]


class Leases:
    """The partitions of one replica, with their versions and deadlines."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        replica: str,
        lease_seconds: float,
        interval_seconds: float,
        tell: Callable[[], None],
    ) -> None:
        """`lease_seconds`: how long a silent owner keeps what it owns; `interval_seconds`: longest between looks.

        `tell` lets the others look at once: there is one more with a share, or something to take.
        """
        self.replica = replica
        self.lease_seconds = lease_seconds
        self.versions: dict[int, int] = {}
        self.next_look = 0.0
        """When to look again, on the monotonic clock."""
        self._store = store
        self._clock = clock
        # Whoever does not look for as long as a lease counts as dead when the shares are reckoned.
        self._interval_seconds = min(interval_seconds, lease_seconds / 2)
        self._is_called = False
        self._tell = tell
        self._is_known = False
        self._deadlines: dict[int, float] = {}
        self._latest_deadline = 0.0
        self._renew_at: dict[int, float] = {}
        self._draining: dict[int, float] = {}
        self._had: set[int] = set()
        self._to_list: dict[int, bool] = {}
        """By partition that was taken and whose executions are not listed since: whether a crash has left it."""
        self._listed: dict[int, frozenset[str]] = {}
        self._left: dict[int, frozenset[str]] = {}

    def was_there(self, partition: int, execution_id: str) -> bool:
        """Whether an execution ran before its partition was taken here. By what the store had then, not by clocks:
        those of two replicas differ."""
        return execution_id in self._listed.get(partition, ())

    def is_left_by_a_crash(self, partition: int, execution_id: str) -> bool:
        """Whether an execution had an owner that went without handing over."""
        return execution_id in self._left.get(partition, ())

    def note_running(self, execution_ids: Collection[str], partition_of: Callable[[str], int]) -> None:
        """These run, by the store: to be told before anything is loaded of partitions that were taken."""
        if not self._to_list:
            return
        found: dict[int, set[str]] = {partition: set() for partition in self._to_list}
        for execution_id in execution_ids:
            partition = partition_of(execution_id)
            if partition in found:
                found[partition].add(execution_id)
        for partition, by_a_crash in self._to_list.items():
            self._listed[partition] = frozenset(found[partition])
            if by_a_crash:
                self._left[partition] = self._listed[partition]
        self._to_list.clear()

    def may_start(self, partition: int) -> bool:
        """Whether something of a partition may be started now: it is owned, and its lease has not run out."""
        deadline = self._deadlines.get(partition)
        return deadline is not None and partition not in self._draining and self._clock.monotonic() < deadline

    @property
    def have_run_out(self) -> bool:
        """Whether whatever was owned here may be somebody else's by now."""
        return self._clock.monotonic() >= self._latest_deadline

    def drain(self, partitions: Collection[int]) -> None:
        """Start nothing more of these: they are to be handed over when nothing of them runs."""
        for partition in partitions:
            self._draining.setdefault(partition, self._clock.monotonic() + DRAIN_SECONDS)

    def drained(self, busy: Collection[int]) -> Sequence[int]:
        """What can be handed over: what is not `busy`, of which something runs, or has been for too long."""
        now = self._clock.monotonic()
        return [each for each, give_up_at in self._draining.items() if each not in busy or give_up_at <= now]

    @property
    def is_draining(self) -> bool:
        """Whether anything is to be handed over."""
        return bool(self._draining)

    def to_renew(self) -> Sequence[int]:
        """The partitions whose lease is used up by a third or more."""
        now = self._clock.monotonic()
        return [partition for partition, renew_at in self._renew_at.items() if renew_at <= now]

    def next_renewal(self) -> float:
        """When the next renewal is due, or a drain has taken too long, on the monotonic clock."""
        return min((*self._renew_at.values(), *self._draining.values()), default=math.inf)

    def renewed(self, partition: int, version: int, asked_at: float) -> None:
        """A commit that was asked for then has made this the partition's version."""
        self.versions[partition] = version
        self._deadlines[partition] = self._latest_deadline = asked_at + self.lease_seconds
        self._renew_at[partition] = asked_at + self.lease_seconds / 3

    def look_now(self) -> None:
        """Somebody has come, or has handed something over: the next look is due."""
        self.next_look = 0.0
        self._is_called = True

    def forget(self, partition: int) -> None:
        """Believe no longer to own a partition; the next look, which is due, says whether it is still so."""
        self.versions.pop(partition, None)
        self._deadlines.pop(partition, None)
        self._renew_at.pop(partition, None)
        self._draining.pop(partition, None)
        self.next_look = 0.0

    async def attend(self) -> Attended:
        """Look, and take what is this replica's to take. Raises what the store raises."""
        self._is_called = False
        asked_at = self._clock.monotonic()
        look = await self._store.look(self.replica, self.lease_seconds)
        if not self._is_known:
            self._is_known = True
            self._tell()
        decided = plan(look, self.replica, self.versions.keys(), self._interval_seconds)
        for partition in decided.lost:
            self.forget(partition)
        taken = []
        wait_seconds = decided.next_look_seconds
        for record in decided.take:
            failpoint("leases.take")
            try:
                version = await self._store.take_partition(
                    record.partition, self.replica, record.version, self.lease_seconds
                )
            except PartitionLost:
                # Somebody was faster, or a write of a dead process has landed: what is so now is seen soon.
                wait_seconds = min(wait_seconds, LOOK_AGAIN_SECONDS)
                continue
            self.renewed(record.partition, version, asked_at)
            self._note_taking(record)
            taken.append(record.partition)
        if (taken or decided.lost) and len(look.partitions) > 1:
            log.info("owning %d of %d partitions", len(self.versions), len(look.partitions))
        # A call that came while this looked may be of what it has not seen.
        self.next_look = 0.0 if self._is_called else self._clock.monotonic() + wait_seconds
        return Attended(taken, decided.lost, decided.release)

    def _note_taking(self, record: PartitionRecord) -> None:
        """Whether its former owner has handed it over, or left it. What this process has had itself is no news."""
        partition = record.partition
        if record.owner == self.replica and partition in self._had:
            self._to_list.setdefault(partition, False)
            return
        self._had.add(partition)
        self._left.pop(partition, None)
        self._to_list[partition] = record.owner != NOBODY

    async def release(self, partition: int) -> None:
        """Hand a partition over: nothing of it may be started, or be under way to the store."""
        version = self.versions[partition]
        self.forget(partition)
        failpoint("leases.release")
        await self._store.release_partition(partition, version)
        self._tell()

    async def leave(self) -> None:
        """Hand everything over, as far as the store answers: others take the rest when it has expired."""
        try:
            for partition in list(self.versions):
                await self.release(partition)
            await self._store.leave(self.replica)
            self._tell()
        except BackendError as error:
            log.warning("partitions are left to expire: %s", error)
