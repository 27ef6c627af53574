"""The worker pool: a fixed set of slots that take attempts from one queue and run them.

A slot is a task that runs one attempt after another: no task is made for an attempt. When an attempt
has to stop (its time is up, its execution has ended, the process shuts down) its slot is given up
together with it and a fresh one takes its place, so a handler that swallows cancellation delays
nobody. A slot is also given up when its handler left traces: changed context variables, or a cancel.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from ...plugins.handler import Handler
from ..clock import Clock
from ..core.machine import AttemptError, Execution, Outcome, hand_back, start
from ..failpoints import failpoint
from .attempt import Delivery, run_attempt
from .failure import describe_failure, timed_out
from .queue import FairQueue

if TYPE_CHECKING:
    from aiohttp import ClientSession

log = logging.getLogger(__name__)

# A slot whose handlers never wait lets the rest of the process run after this many attempts, and all slots
# together after this long: an attempt that parses a large input takes milliseconds.
ATTEMPTS_BETWEEN_YIELDS = 32
LONGEST_TURN_SECONDS = 0.005
LINGERING_SECONDS = 5.0
LAST_WORDS_SECONDS = 0.5


class _Slot:
    __slots__ = ("deadline", "delivery", "given_up", "idle", "started_at", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.idle: asyncio.Future[None] | None = None
        self.delivery: Delivery | None = None
        self.started_at = 0
        self.deadline = 0.0
        self.given_up = False


class WorkerPool:
    """Runs attempts, at most `concurrency` at once, and hands in their outcomes."""

    def __init__(
        self,
        *,
        concurrency: int,
        handlers: Mapping[str, Handler],
        clock: Clock,
        hand_in: Callable[[Outcome], None],
        on_start: Callable[[str], None],
        may_start: Callable[[int], bool],
        http: Callable[[], ClientSession],
        max_output_bytes: int,
    ) -> None:
        """`may_start` says of a partition whether something of it may start now; what may not is held."""
        self._concurrency = concurrency
        self._handlers = handlers
        self._clock = clock
        self._hand_in = hand_in
        self._on_start = on_start
        self._may_start = may_start
        self._http = http
        self._max_output_bytes = max_output_bytes
        self._queue = FairQueue()
        self._held: list[Delivery] = []
        self._slots: dict[_Slot, None] = {}
        self._idle: list[_Slot] = []
        self._lingering: dict[asyncio.Task[None], str] = {}
        self._unserved: set[str] = set()
        self._watchdog: asyncio.TimerHandle | None = None
        self._stopping = False
        self._drained: asyncio.Future[None] | None = None
        self._turn_began = 0.0
        self._turn_will_be_noted = False
        self._context = contextvars.copy_context()

    @property
    def running_count(self) -> int:
        """How many attempts run now."""
        return sum(slot.delivery is not None for slot in self._slots)

    @property
    def attempts_in_hand(self) -> list[tuple[str, int, int]]:
        """The (execution, node, attempt) that run now."""
        return [
            (slot.delivery.execution.execution_id, slot.delivery.node, slot.delivery.attempt)
            for slot in self._slots
            if slot.delivery is not None
        ]

    @property
    def lingering(self) -> list[str]:
        """Names of the handlers that were told to stop and have not."""
        return sorted(self._lingering.values())

    def start(self) -> None:
        """Start the slots."""
        for _ in range(self._concurrency):
            self._add_slot()

    def dispatch(self, ready: Iterable[tuple[Execution, int]]) -> None:
        """Queue nodes whose attempt may start. What is no longer wanted by then is dropped silently."""
        for execution, node in ready:
            if execution.graph.handlers[node] in self._handlers:
                self._queue.add(Delivery(execution, node, execution.attempts[node]))
            else:
                self._note_unserved(execution.graph.handlers[node])
        for _ in range(min(len(self._queue), len(self._idle))):
            self._wake(self._idle.pop())

    def dispatch_held(self) -> None:
        """Queue again what could not start while its lease had run out."""
        if self._held:
            held, self._held = self._held, []
            self.dispatch((delivery.execution, delivery.node) for delivery in held if not delivery.execution.detached)

    def running(self, execution_id: str) -> list[tuple[int, int]]:
        """The (node, attempt) of an execution that run now."""
        return [
            (slot.delivery.node, slot.delivery.attempt)
            for slot in self._slots
            if slot.delivery is not None and slot.delivery.execution.execution_id == execution_id
        ]

    def running_partitions(self) -> set[int]:
        """The partitions of which something runs now."""
        return {slot.delivery.execution.partition for slot in self._slots if slot.delivery is not None}

    def cancel(self, execution_ids: Iterable[str]) -> None:
        """Stop what runs of these executions; their outcomes are not handed in."""
        wanted = set(execution_ids)
        for slot in list(self._slots):
            if slot.delivery is not None and slot.delivery.execution.execution_id in wanted:
                self._give_up(slot)

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing more, let what runs finish for `grace_seconds`, then hand it back and stop it.

        Returns although handlers may ignore that; `lingering` then names them.
        """
        self._stopping = True
        for slot in list(self._idle):
            self._wake(slot)
        self._idle.clear()
        if self.running_count and grace_seconds > 0:
            log.info("waiting for %d running attempts, at most %g s", self.running_count, grace_seconds)
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._drained], timeout=grace_seconds)
        if self._watchdog is not None:
            self._watchdog.cancel()
        tasks = [slot.task for slot in self._slots if slot.task is not None]
        for slot in list(self._slots):
            if slot.delivery is not None:
                hand_back(*slot.delivery)
            self._give_up(slot)
        tasks += self._lingering
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS_SECONDS)

    def _add_slot(self) -> None:
        slot = _Slot()
        self._slots[slot] = None
        slot.task = asyncio.get_running_loop().create_task(
            self._work(slot), name="worker-slot", context=self._context.copy()
        )
        slot.task.add_done_callback(lambda task: self._ended(slot, task))

    async def _work(self, slot: _Slot) -> None:
        attempts = 0
        while not slot.given_up:
            if self._stopping:
                break
            if not self._queue:
                slot.idle = asyncio.get_running_loop().create_future()
                self._idle.append(slot)
                await slot.idle
                continue
            delivery = self._queue.take()
            # Checked without an await before the handler starts: a process that was paused, or cut off from the
            # store, starts nothing that is another's by now.
            if not self._may_start(delivery.execution.partition):
                self._held.append(delivery)
                continue
            if not start(*delivery):
                continue
            if not await self._run(slot, delivery):
                break
            attempts += 1
            if attempts % ATTEMPTS_BETWEEN_YIELDS == 0 or self._turn_is_long():
                await self._yield()

    async def _run(self, slot: _Slot, delivery: Delivery) -> bool:
        """Run one attempt in this slot; False when the slot must not be used again."""
        execution, node, _ = delivery
        slot.started_at = self._clock.now()
        slot.deadline = self._clock.monotonic() + execution.graph.timeouts_seconds[node]
        slot.delivery = delivery
        failpoint("worker.attempt.start")
        self._watch(slot.deadline)
        self._on_start(execution.execution_id)
        context_before = contextvars.copy_context()
        usable = True
        output: bytes | None = None
        error: AttemptError | None
        try:
            handler = self._handlers[execution.graph.handlers[node]]
            output, error = await run_attempt(delivery, handler, self._http, self._max_output_bytes)
        except asyncio.CancelledError as cancelled:
            if slot.given_up:
                raise
            error, usable = describe_failure(cancelled), False
        except GeneratorExit as closed:
            # Raised by the handler, or by the interpreter that clears away a loop that is gone.
            if not _is_current(slot.task):
                raise
            error, usable = describe_failure(closed), False
        if slot.given_up:
            return False
        failpoint("worker.attempt.done")
        slot.delivery = None
        self._hand_in_outcome(slot, delivery, output, error)
        return usable and _left_no_traces(slot.task, context_before)

    def _hand_in_outcome(
        self, slot: _Slot, delivery: Delivery, output: bytes | None, error: AttemptError | None
    ) -> None:
        jitter = 0.0
        if error is not None:
            jitter = self._clock.chance()
            _log_failure(delivery, error)
        self._hand_in(
            Outcome(
                delivery.execution.execution_id,
                delivery.node,
                delivery.attempt,
                output,
                error,
                slot.started_at,
                self._clock.now(),
                jitter,
            )
        )
        self._note_drained()

    def _ended(self, slot: _Slot, task: asyncio.Task[None]) -> None:
        """A slot's task has ended, by itself or given up: another takes its place."""
        self._lingering.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a worker slot failed", exc_info=error)
        if slot not in self._slots:
            return
        self._slots.pop(slot, None)
        if slot in self._idle:
            self._idle.remove(slot)
        if slot.delivery is not None:
            delivery, slot.delivery = slot.delivery, None
            cause = describe_failure(error or asyncio.CancelledError("the worker slot was cancelled"))
            reason = f"{cause.type}: {cause.message}"
            self._hand_in_outcome(slot, delivery, None, AttemptError("worker_failed", reason, True))
        if not self._stopping:
            self._add_slot()

    def _turn_is_long(self) -> bool:
        """Whether the slots have had this turn of the event loop for long enough, and more is waiting."""
        return bool(self._queue) and self._clock.monotonic() - self._turn_began > LONGEST_TURN_SECONDS

    async def _yield(self) -> None:
        if not self._turn_will_be_noted:
            self._turn_will_be_noted = True
            asyncio.get_running_loop().call_soon(self._note_turn)
        await asyncio.sleep(0)

    def _note_turn(self) -> None:
        self._turn_will_be_noted = False
        self._turn_began = self._clock.monotonic()

    def _note_drained(self) -> None:
        if self._drained is not None and not self.running_count and not self._drained.done():
            self._drained.set_result(None)

    def _give_up(self, slot: _Slot) -> None:
        """Stop a slot and what runs in it, and put a fresh one in its place."""
        slot.given_up = True
        self._slots.pop(slot, None)
        task = slot.task
        assert task is not None
        if not task.done():
            handler = slot.delivery.execution.graph.handlers[slot.delivery.node] if slot.delivery else "(idle)"
            self._lingering[task] = handler
            task.cancel()
            if slot.delivery is not None and not self._stopping:
                asyncio.get_running_loop().call_later(LINGERING_SECONDS, self._complain, task)
        slot.delivery = None
        self._note_drained()
        if not self._stopping:
            self._add_slot()

    def _complain(self, task: asyncio.Task[None]) -> None:
        if task in self._lingering:
            log.warning(
                "handler %s was told to stop %g s ago and still runs: it swallows cancellation",
                self._lingering[task],
                LINGERING_SECONDS,
            )

    def _wake(self, slot: _Slot) -> None:
        if slot.idle is not None and not slot.idle.done():
            slot.idle.set_result(None)

    def _watch(self, deadline: float) -> None:
        """See to it that the watchdog looks no later than `deadline`."""
        if self._watchdog is not None and self._watchdog.when() <= deadline:
            return
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = asyncio.get_running_loop().call_at(deadline, self._end_overdue)

    def _end_overdue(self) -> None:
        self._watchdog = None
        now = self._clock.monotonic()
        for slot in list(self._slots):
            delivery = slot.delivery
            if delivery is not None and slot.deadline <= now:
                error = timed_out(delivery.execution.graph.timeouts_seconds[delivery.node])
                self._give_up(slot)
                self._hand_in_outcome(slot, delivery, None, error)
        deadlines = [slot.deadline for slot in self._slots if slot.delivery is not None]
        if deadlines:
            self._watch(min(deadlines))

    def _note_unserved(self, handler: str) -> None:
        if handler not in self._unserved:
            self._unserved.add(handler)
            log.warning("no plugin here has the handler %s: its nodes wait until one does", handler)


def _left_no_traces(task: asyncio.Task[None] | None, context_before: contextvars.Context) -> bool:
    """Whether the next attempt may run where one has just ended: no cancel pending, no variable changed."""
    if task is None or task.cancelling():
        return False
    try:
        return contextvars.copy_context() == context_before
    except BaseException:
        # Raised by the comparison of two values. Nothing is awaited here, so it is nobody's cancel.
        return False


def _log_failure(delivery: Delivery, error: AttemptError) -> None:
    log.info(
        "node %s failed at attempt %d of execution %s: %s: %s",
        delivery.execution.graph.node_ids[delivery.node],
        delivery.attempt,
        delivery.execution.execution_id,
        error.type,
        error.message,
        extra={"execution_id": delivery.execution.execution_id, "attempt": delivery.attempt},
    )


def _is_current(task: asyncio.Task[None] | None) -> bool:
    try:
        return asyncio.current_task() is task
    except RuntimeError:
        return False
