"""Dead letters as the engine's door has them: executions that FAILED and that nobody has dealt with.

A dead letter is no thing of its own. To requeue it starts another execution, which goes on from what this one has
completed; to discard it says that it wants nothing more. Its state stays what it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from .core.machine import AttemptRow
from .core.state import WorkflowState
from .errors import DeadLetterNotFound, ExecutionConflict, ExecutionNotFound
from .failpoints import failpoint
from .ports import (
    DeadLetterFilter,
    ExecutionRecord,
    ExecutionSummary,
    IdempotencyClaim,
    NewExecution,
    Resolution,
    Store,
    Transport,
)

REQUEUE_BATCH = 20
"""In one breath: each may have ten thousand attempts to copy, and others want to write too."""
DISCARD_BATCH = 200


class DeadLetter(NamedTuple):
    """A dead letter, and the last attempts of its history, the last one first."""

    execution: ExecutionSummary
    attempts: Sequence[AttemptRow]


class DealtWith(NamedTuple):
    """How many dead letters were dealt with, and behind which id to go on; None when there are no more."""

    number: int
    go_on_behind: str | None


class DeadLetters:
    """List, look, requeue, discard. Safe to call concurrently from one event loop."""

    def __init__(
        self,
        *,
        store: Store,
        transport: Transport,
        new_execution: Callable[[], NewExecution],
        check_accepting: Callable[[], None],
    ) -> None:
        """`check_accepting` raises `NotAccepting` when writes are not taken any more."""
        self._store = store
        self._transport = transport
        self._new_execution = new_execution
        self._check_accepting = check_accepting

    async def list(self, wanted: DeadLetterFilter, *, before: str | None, limit: int) -> Sequence[ExecutionSummary]:
        """The newest `limit` dead letters that are meant, behind the one with the id `before`, newest first."""
        return await self._store.list_dead_letters(wanted, before, limit)

    async def read(self, execution_id: str, *, below: int | None, limit: int) -> DeadLetter:
        """A dead letter with the last `limit` attempts of its history below the sequence number `below`.

        Raises `ExecutionNotFound`, and `DeadLetterNotFound` for what is none, or none any more.
        """
        found = await self._store.read_dead_letter(execution_id)
        if found is None:
            raise DeadLetterNotFound(await self._describe(execution_id))
        return DeadLetter(found, await self._store.list_attempts(execution_id, below, limit))

    async def requeue(self, execution_id: str, claim: IdempotencyClaim | None = None) -> str:
        """Carry a dead letter on: a new execution with the same inputs that goes on from what it has completed.

        Returns the id of the new one. Raises `ExecutionNotFound`, `ExecutionConflict` for what is no dead letter, or
        none any more, `IdempotencyConflict`, `StoreUnavailable`.
        """
        self._check_accepting()
        started = await self._requeue(execution_id, claim)
        if started is None:
            raise ExecutionConflict(await self._describe(execution_id))
        return started

    async def discard(self, execution_id: str) -> None:
        """Be done with a dead letter. May be repeated.

        Raises `ExecutionNotFound`, `ExecutionConflict` for what is no dead letter, `StoreUnavailable`.
        """
        self._check_accepting()
        if await self._store.discard(execution_id):
            return
        record = await self._read(execution_id)
        if record.resolution is not Resolution.DISCARDED:
            raise ExecutionConflict(await self._describe(execution_id))

    async def requeue_many(self, wanted: DeadLetterFilter, *, before: str | None, limit: int) -> DealtWith:
        """Requeue the newest `limit` of the dead letters that are meant, behind the one with the id `before`.

        What fails again meanwhile is newer, and so not met a second time.
        """
        self._check_accepting()
        return await self._deal_with(self._requeue, REQUEUE_BATCH, wanted, before, limit)

    async def discard_many(self, wanted: DeadLetterFilter, *, before: str | None, limit: int) -> DealtWith:
        """Discard the newest `limit` of the dead letters that are meant, behind the one with the id `before`."""
        self._check_accepting()
        return await self._deal_with(self._store.discard, DISCARD_BATCH, wanted, before, limit)

    async def _deal_with(
        self,
        deal: Callable[[str], Awaitable[object]],
        batch: int,
        wanted: DeadLetterFilter,
        before: str | None,
        limit: int,
    ) -> DealtWith:
        """What `deal` says no to has been dealt with by somebody else since it was listed."""
        count = seen = 0
        while seen < limit:
            asked = min(batch, limit - seen)
            page = await self._store.list_dead_letters(wanted, before, asked)
            # Asked for in one breath: they share a transaction.
            count += sum(map(bool, await asyncio.gather(*(deal(each.execution_id) for each in page))))
            seen += len(page)
            if len(page) < asked:
                return DealtWith(count, None)
            before = page[-1].execution_id
        more = await self._store.list_dead_letters(wanted, before, 1)
        return DealtWith(count, before if more else None)

    async def _requeue(self, execution_id: str, claim: IdempotencyClaim | None = None) -> str | None:
        started = await self._store.requeue(execution_id, self._new_execution(), claim)
        failpoint("engine.requeue.stored")
        if started is not None:
            self._transport.wake(started)
        return started

    async def _describe(self, execution_id: str) -> str:
        """Why an execution is no dead letter, or none any more. Raises `ExecutionNotFound`."""
        record = await self._read(execution_id)
        if record.resolution is Resolution.REQUEUED:
            retry = await self._store.find_retry(execution_id)
            return f"execution {execution_id} was requeued" + ("" if retry is None else f" as {retry}")
        if record.resolution is not None:
            return f"execution {execution_id} was {record.resolution}"
        if record.state is WorkflowState.FAILED:
            return f"execution {execution_id} has FAILED only just now; try again"
        return f"execution {execution_id} is {record.state}, not FAILED"

    async def _read(self, execution_id: str) -> ExecutionRecord:
        record = await self._store.read_execution(execution_id)
        if record is None:
            raise ExecutionNotFound(execution_id)
        return record
