"""One batch of one partition, committed: what most tests of a store want."""

from __future__ import annotations

from workflow_engine.runtime.errors import PartitionLost
from workflow_engine.runtime.ports import CommitBatch, Store

LEASE_SECONDS = 600.0


async def commit_one(store: Store, batch: CommitBatch) -> int:
    """Commit one batch; returns the next version. Raises `PartitionLost` when it missed."""
    [version] = await store.commit([batch], LEASE_SECONDS)
    if version is None:
        raise PartitionLost("missed")
    return version


async def version_of(store: Store, partition: int) -> int:
    """The version of a partition; 0 when nobody has ever owned it."""
    look = await store.look("observer", LEASE_SECONDS)
    return {each.partition: each.version for each in look.partitions}.get(partition, 0)
