"""Judges everything that is stored, a page at a time: the rules of `core/audit.py` over a whole database.

Each execution is judged from one consistent read, and nothing is written or locked: an engine may run on it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .clock import Clock, uuid7_floor, uuid7_milliseconds
from .core.audit import Finding, judge, judge_claim, judge_place, judge_resolution, judge_retry, overdue, unsettled
from .core.graph import NodeDefaults
from .core.retry import RetryPolicy
from .core.shares import PartitionRecord
from .errors import ExecutionNotFound
from .graphs import Graphs
from .ports import DefinitionRecord, ExecutionRecord, LoadedExecution

EXECUTIONS_AT_ONCE = 50
"""Of up to ten thousand nodes each, though without what they have put out."""
CLAIMS_AT_ONCE = 500
MOST_FINDINGS = 1_000
"""How many are kept; all are counted."""

# How often a node is tried whose definition does not say so depended on the settings of its time: that is not judged.
_DEFAULTS = NodeDefaults(RetryPolicy(max_retries=sys.maxsize), lambda _handler: 1.0)


class ClaimRecord(NamedTuple):
    """What was answered to a request under an idempotency key. `created_at` in epoch milliseconds.

    `definition_id`: empty where the answer did not say.
    """

    key: str
    execution_id: str
    definition_id: str
    created_at: int


class Histories(Protocol):
    """A store as the audit reads it. No verb changes anything, or waits for an engine that uses the same store."""

    async def open(self) -> None:
        """Make ready. Raises `StoreUnusable` when there is no store, or not of this version's schema."""

    async def close(self) -> None:
        """Release everything. Safe to call twice, and without `open`."""

    async def read_partitions(self) -> Sequence[PartitionRecord]:
        """Every partition with whoever is its owner."""

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        """One definition."""

    async def list_execution_ids(self, after: str, limit: int) -> Sequence[str]:
        """The first `limit` identifiers behind `after`, in their order, which is that of creation."""

    async def load(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        """The executions with everything of them, as of one moment. Unknown ids are left out."""

    async def load_outlines(self, execution_ids: Collection[str]) -> Sequence[LoadedExecution]:
        """As `load`, but each input and output there is is an empty text: they may be large."""

    async def find_retry(self, execution_id: str) -> str | None:
        """The id of the execution that a dead letter was requeued as; None when there is none."""

    async def list_claims(self, after: str, limit: int) -> Sequence[ClaimRecord]:
        """The first `limit` idempotency claims behind the key `after`, by key."""


@dataclass(slots=True)
class Report:
    """What was looked at, in how many seconds, and what was found. `findings` are the first `MOST_FINDINGS`."""

    executions: int = 0
    nodes: int = 0
    attempts: int = 0
    idempotency_keys: int = 0
    seconds: float = 0.0
    found: int = 0
    findings: list[Finding] = field(default_factory=list)

    def add(self, findings: Iterable[Finding]) -> None:
        """Count them, and keep what there is room for."""
        for finding in findings:
            self.found += 1
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(finding)


class Auditor:
    """Judges what `histories` hold."""

    def __init__(self, histories: Histories, clock: Clock, *, settled: bool = False, kept_from: int = 0) -> None:
        """`settled`: what has not ended is a finding too. `kept_from`: what ended then (epoch milliseconds) or later
        cannot have been deleted."""
        self._histories = histories
        self._clock = clock
        self._settled = settled
        self._kept_from = kept_from
        self._graphs = Graphs(histories, _DEFAULTS)
        self._report = Report()

    async def run(self, *, created_from: int = 0, execution_ids: Sequence[str] = ()) -> Report:
        """Judge what was created at that moment (epoch milliseconds) or later; of `execution_ids`, only these.

        Raises `ExecutionNotFound` for an id that there is not, and what the store raises.
        """
        began = self._clock.monotonic()
        async for ids in self._pages(created_from, execution_ids):
            owners = {each.partition: each for each in await self._histories.read_partitions()}
            loaded = await self._histories.load_outlines(ids)
            if execution_ids and len(loaded) < len(ids):
                raise ExecutionNotFound(min(set(ids) - {each.record.execution_id for each in loaded}))
            for history in sorted(loaded, key=lambda history: history.record.execution_id):
                if history.record.created_at >= created_from:
                    await self._judge(history, owners)
        if not execution_ids:
            await self._judge_claims(created_from)
        self._report.seconds = self._clock.monotonic() - began
        return self._report

    async def _pages(self, created_from: int, execution_ids: Sequence[str]) -> AsyncIterator[Sequence[str]]:
        wanted = sorted(set(execution_ids))
        for start in range(0, len(wanted), EXECUTIONS_AT_ONCE):
            yield wanted[start : start + EXECUTIONS_AT_ONCE]
        # From the millisecond before: what lies behind its first identifier is all of the next one.
        after = uuid7_floor(created_from - 1) if created_from else ""
        while not wanted:
            page = await self._histories.list_execution_ids(after, EXECUTIONS_AT_ONCE)
            if page:
                yield page
            if len(page) < EXECUTIONS_AT_ONCE:
                return
            after = page[-1]

    async def _judge(self, history: LoadedExecution, owners: dict[int, PartitionRecord]) -> None:
        record, report = history.record, self._report
        report.executions += 1
        report.attempts += len(history.attempts)
        report.add(judge_place(record, len(owners)))
        report.add(overdue(history, owners, self._clock.now()))
        if self._settled:
            report.add(unsettled(history))
        try:
            graph = await self._graphs.get(record.definition_id)
        except LookupError:
            report.add([_about(record, f"its definition {record.definition_id} is not there")])
        except (ValueError, TypeError) as error:
            report.add([_about(record, f"its definition {record.definition_id} cannot be read: {error}")])
        else:
            report.nodes += graph.size
            report.add(judge(history, graph))
        await self._judge_dead_letter(record)

    async def _judge_dead_letter(self, record: ExecutionRecord) -> None:
        """Both halves of a dead letter that was requeued, from whichever of them this is."""
        if record.retry_of is not None:
            loaded = {each.record.execution_id: each for each in await self._both(record)}
            if record.execution_id in loaded:
                is_kept = not self._kept_from or _is_later(record.retry_of, self._kept_from)
                letter = loaded.get(record.retry_of)
                self._report.add(judge_retry(loaded[record.execution_id], letter, is_kept=is_kept))
        if record.resolution is not None:
            retry_id = await self._histories.find_retry(record.execution_id)
            is_kept = record.completed_at is not None and record.completed_at >= self._kept_from
            self._report.add(judge_resolution(record, retry_id, is_kept=is_kept))

    async def _both(self, record: ExecutionRecord) -> Sequence[LoadedExecution]:
        assert record.retry_of is not None
        return await self._histories.load([record.execution_id, record.retry_of])

    async def _judge_claims(self, created_from: int) -> None:
        after = ""
        while True:
            page = await self._histories.list_claims(after, CLAIMS_AT_ONCE)
            claims = [claim for claim in page if claim.created_at >= created_from]
            records = await self._records([claim.execution_id for claim in claims])
            for claim in claims:
                is_kept = claim.created_at >= self._kept_from
                found = records.get(claim.execution_id)
                findings = judge_claim(claim.key, claim.execution_id, claim.definition_id, found, is_kept=is_kept)
                self._report.add(findings)
            self._report.idempotency_keys += len(claims)
            if len(page) < CLAIMS_AT_ONCE:
                return
            after = page[-1].key

    async def _records(self, execution_ids: Sequence[str]) -> dict[str, ExecutionRecord]:
        found: dict[str, ExecutionRecord] = {}
        for start in range(0, len(execution_ids), EXECUTIONS_AT_ONCE):
            loaded = await self._histories.load_outlines(execution_ids[start : start + EXECUTIONS_AT_ONCE])
            found |= {each.record.execution_id: each.record for each in loaded}
        return found


def _about(record: ExecutionRecord, message: str) -> Finding:
    return Finding("I2", record.execution_id, None, None, f"{record.execution_id}: {message}")


def _is_later(execution_id: str, moment: int) -> bool:
    """Whether an execution was created at or after a moment, by its identifier."""
    try:
        return uuid7_milliseconds(execution_id) >= moment
    except ValueError:
        return False
