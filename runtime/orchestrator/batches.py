"""What one turn has decided, sorted by partition for its commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from ..core.machine import AttemptRow, ConsumedCommand, Effects, Suspicion
from ..core.shares import partition_of
from ..ports import CommitBatch, ExecutionUpdate


class _Rows:
    __slots__ = ("attempts", "commands", "suspicions", "updates")

    def __init__(self) -> None:
        self.attempts: list[AttemptRow] = []
        self.updates: list[ExecutionUpdate] = []
        self.commands: list[ConsumedCommand] = []
        self.suspicions: list[Suspicion] = []


def batches_of(
    effects: Effects,
    updates: Sequence[ExecutionUpdate],
    versions: Mapping[int, int],
    to_renew: Collection[int],
    partitions: int,
) -> list[CommitBatch]:
    """A batch for each partition that has rows or wants its lease renewed, and is owned: has a version."""
    if partitions == 1:
        if not (effects.rows or updates or effects.commands or effects.suspicions or to_renew) or 0 not in versions:
            return []
        return [CommitBatch(0, versions[0], effects.rows, updates, effects.commands, effects.suspicions)]
    sorted_rows = _by_partition(effects, updates, partitions)
    for partition in to_renew:
        sorted_rows.setdefault(partition, _Rows())
    return [
        CommitBatch(partition, versions[partition], rows.attempts, rows.updates, rows.commands, rows.suspicions)
        for partition, rows in sorted(sorted_rows.items())
        if partition in versions
    ]


def _by_partition(effects: Effects, updates: Iterable[ExecutionUpdate], partitions: int) -> dict[int, _Rows]:
    found: dict[int, _Rows] = {}

    def of(execution_id: str) -> _Rows:
        partition = partition_of(execution_id, partitions)
        rows = found.get(partition)
        if rows is None:
            rows = found[partition] = _Rows()
        return rows

    for row in effects.rows:
        of(row.execution_id).attempts.append(row)
    for update in updates:
        of(update.execution_id).updates.append(update)
    for command in effects.commands:
        of(command.execution_id).commands.append(command)
    for suspicion in effects.suspicions:
        of(suspicion.execution_id).suspicions.append(suspicion)
    return found
