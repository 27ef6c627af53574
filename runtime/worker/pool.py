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
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from ...plugins.handler import Handler
from ..clock import Clock
from ..core.machine import AttemptError, Execution, Outcome, hand_back, is_isolated, start
from ..core.queue import Delivery
from ..failpoints import failpoint
from ..plugin_hooks import AttemptWatch
from .assignment import CLOSE_SECONDS
from .attempt import Attempt, AttemptResult, Tools, begin, run_attempt
from .failure import describe_failure, timed_out
from .forks import Original
from .limits import LimitedHandlers
from .slot import Slot
from .traces import is_task_of_now, left_no_traces
from .waiting import Gates, Waiting

log = logging.getLogger(__name__)

RunIsolated = Callable[[Delivery, int, Callable[[], None]], Awaitable[AttemptResult]]
RunInProcess = Callable[[Delivery, int, Callable[[], None], Callable[[float | str], None]], Awaitable[AttemptResult]]

# A slot whose handlers never wait lets the rest of the process run after this many attempts, and all slots
# together after this long: an attempt that parses a large input takes milliseconds.
ATTEMPTS_BETWEEN_YIELDS = 32
LONGEST_TURN_SECONDS = 0.005
LINGERING_SECONDS = 5.0
LAST_WORDS_SECONDS = 0.5


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
        may_start: Callable[[Execution], bool],
        run_isolated: RunIsolated,
        run_in_process: RunInProcess,
        tools: Tools,
        gates: Mapping[str, Gates] = MappingProxyType({}),
        watch: AttemptWatch | None = None,
        limited: LimitedHandlers | None = None,
    ) -> None:
        """`gates`: what attempts have to pass, by handler, of those that have some. `watch`: who is told of attempts.
        `limited`: handlers whose attempts need permits first.

        `may_start` says of an execution whether something of it may start now; what may not is held.

        `run_isolated` is as `run_attempt`, in a process of its own: for attempts that are suspected of killing theirs.
        It calls its last argument when the attempt begins there, and sees to it itself that this does not take forever.
        `run_in_process` is the same for handlers whose lane is `process`; it passes on what attempts say of themselves.
        """
        self._concurrency = concurrency
        self._handlers = handlers
        self._clock = clock
        self._hand_in = hand_in
        self._on_start = on_start
        self.may_start = may_start
        self._run_isolated = run_isolated
        self._run_in_process = run_in_process
        self._tools = tools
        self._gates = gates
        self._waiting = Waiting(gates)
        self._watch_attempts = watch
        self.waiting_of: Callable[[str], int] = self._waiting.count_of
        self.limited = limited or LimitedHandlers({})
        self.limited.bind(self)
        self._held: list[Delivery] = []
        self._has_taken = False
        """Whether deliveries of other replicas' owners have ever been run here."""
        self._slots: dict[Slot, None] = {}
        self._idle: list[Slot] = []
        self._lingering: dict[asyncio.Task[None], str] = {}
        self.started_count = 0
        """How many attempts have been started so far."""
        self._watchdog: asyncio.TimerHandle | None = None
        self._stopping = False
        self._drained: asyncio.Future[None] | None = None
        self._turn_began = 0.0
        self._turn_will_be_noted = False
        self._context = contextvars.copy_context()
        self._original = Original()

    @property
    def running_count(self) -> int:
        """How many attempts run now."""
        return sum(slot.delivery is not None for slot in self._slots)

    @property
    def queued_count(self) -> int:
        """How many deliveries wait that another process might start: for a slot, or for others here to end."""
        return len(self._waiting) + self.limited.ready_count

    @property
    def ready_count(self) -> int:
        """How many deliveries wait for a slot and for nothing else."""
        return self._waiting.ready_count

    @property
    def held_up(self) -> set[str]:
        """The handlers of which more wait here than may start."""
        return self._waiting.held_up | self.limited.held_up

    def queued_by_handler(self) -> Counter[str]:
        """How many deliveries wait, by handler, as `Waiting` counts them; those that wait for permits too."""
        return self._waiting.count_by_handler() + self.limited.count_by_handler()

    @property
    def attempts_in_hand(self) -> list[tuple[str, int, int]]:
        """The (execution, node, attempt) that run now."""
        in_hand = (slot.delivery for slot in self._slots if slot.delivery is not None)
        return [(each.execution.execution_id, each.node, each.attempt) for each in in_hand]

    def attempt_in(self, task: object) -> Delivery | None:
        """What runs in a task of a slot. May be asked from any thread."""
        return next((slot.delivery for slot in list(self._slots) if slot.task is task), None)

    @property
    def lingering(self) -> list[str]:
        """Names of the handlers that were told to stop and have not."""
        return sorted([*self._lingering.values(), *self._tools.threads.lingering])

    def start(self) -> None:
        """Start the slots."""
        for _ in range(self._concurrency):
            self._add_slot()

    def dispatch(self, ready: Iterable[tuple[Execution, int]]) -> Sequence[tuple[Execution, int]]:
        """Queue nodes whose attempt may start. What is no longer wanted by then is dropped silently.

        Returns those whose handler is not here.
        """
        unserved = []
        limited = self.limited.by_name
        for execution, node in ready:
            if execution.permitted_until is not None:
                self._has_taken = True
            handler = execution.graph.handlers[node]
            if handler in limited:
                limited[handler].add(Delivery(execution, node, execution.attempts[node]))
            elif handler in self._handlers:
                self._waiting.add(Delivery(execution, node, execution.attempts[node]))
            else:
                unserved.append((execution, node))
        self.look_again()
        return unserved

    def look_again(self) -> None:
        """Something may start now: what was queued, or what a gate did not let pass until now."""
        if self._idle:
            for _ in range(min(self._waiting.ready_count, len(self._idle))):
                self._wake(self._idle.pop())

    def withdraw(self, wanted: Callable[[Delivery], bool], limit: int) -> list[Delivery]:
        """Take out at most `limit` queued deliveries that are `wanted`: somebody else is to run them."""
        withdrawn = self._waiting.withdraw(wanted, limit)
        return withdrawn + self.limited.withdraw_ready(wanted, limit - len(withdrawn))

    def withdraw_all(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out every `wanted` delivery that has not started, whatever it waits for."""
        waiting = self._waiting.withdraw(wanted, len(self._waiting))
        return [*waiting, *self.limited.withdraw(wanted), *self.take_held(wanted)]

    def room(self) -> int:
        """How many attempts would find a free slot now."""
        return max(0, self._concurrency - self.running_count - self._waiting.ready_count)

    def let_through(self, deliveries: Iterable[Delivery]) -> None:
        """These have the permits that their handlers need."""
        for delivery in deliveries:
            self._waiting.add(delivery)
        self.look_again()

    def refuse(self, delivery: Delivery, error: AttemptError) -> None:
        """This has failed before it began."""
        _log_failure(delivery, error)
        now = self._clock.now()
        self._hand_in(Outcome(delivery.execution.execution_id, delivery.node, delivery.attempt, None, error, now, now))

    def take_held(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out the held deliveries that are `wanted`."""
        taken = [delivery for delivery in self._held if wanted(delivery)]
        self._held = [delivery for delivery in self._held if not wanted(delivery)]
        return taken

    def hold(self, deliveries: Iterable[Delivery]) -> None:
        """Keep deliveries that may not start now."""
        self._held += deliveries

    def dispatch_held(self) -> None:
        """Queue again what could not start while its owner's lease had run out."""
        if self._held:
            held = self.take_held(lambda delivery: delivery.execution.permitted_until is None)
            self.dispatch((delivery.execution, delivery.node) for delivery in held if not delivery.execution.detached)

    def running(self, execution_id: str) -> list[tuple[int, int]]:
        """The (node, attempt) of an execution that run now."""
        return [
            (slot.delivery.node, slot.delivery.attempt)
            for slot in self._slots
            if slot.delivery is not None and slot.delivery.execution.execution_id == execution_id
        ]

    def progress(self, execution_id: str, node: int) -> float | str | None:
        """What an attempt that runs here has last said of itself."""
        for slot in self._slots:
            delivery = slot.delivery
            if delivery is not None and delivery.execution.execution_id == execution_id and delivery.node == node:
                return None if slot.attempt is None else slot.attempt.context.last_progress
        return None

    def running_partitions(self) -> set[int]:
        """The partitions of which something runs now."""
        return {slot.delivery.execution.partition for slot in self._slots if slot.delivery is not None}

    def cancel(self, execution_ids: Iterable[str]) -> None:
        """Stop what runs of these executions; their outcomes are not handed in."""
        wanted = set(execution_ids)
        for slot in list(self._slots):
            if slot.delivery is not None and slot.delivery.execution.execution_id in wanted:
                self._give_up(slot)
        self.limited.withdraw(lambda delivery: delivery.execution.execution_id in wanted)

    def stop_starting(self) -> None:
        """From now on nothing is started; what runs goes on."""
        self._stopping = True
        self.limited.stop()
        for slot in list(self._idle):
            self._wake(slot)
        self._idle.clear()

    async def stop(self, grace_seconds: float) -> None:
        """Start nothing more, let what runs finish for `grace_seconds`, then hand it back and stop it.

        Returns although handlers may ignore that; `lingering` then names them.
        """
        self.stop_starting()
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
        await self._tools.threads.settle(LAST_WORDS_SECONDS)
        await self._tools.warm.close(CLOSE_SECONDS)
        self._tools.threads.close()

    def _add_slot(self) -> None:
        slot = Slot()
        self._slots[slot] = None
        slot.task = asyncio.get_running_loop().create_task(
            self._work(slot), name="worker-slot", context=self._context.copy()
        )
        slot.task.add_done_callback(lambda task: self._ended(slot, task))

    async def _work(self, slot: Slot) -> None:
        attempts = 0
        while not slot.given_up:
            if self._stopping:
                break
            delivery = self._waiting.take()
            if delivery is None:
                slot.idle = asyncio.get_running_loop().create_future()
                self._idle.append(slot)
                await slot.idle
                continue
            # Checked without an await before the handler starts: a process that was paused, or cut off from the
            # store, starts nothing that is another's by now.
            if not self.may_start(delivery.execution):
                self._held.append(delivery)
                continue
            if self._has_taken and self._runs(delivery):
                continue
            if not start(*delivery):
                continue
            if not await self._run(slot, delivery):
                break
            attempts += 1
            if attempts % ATTEMPTS_BETWEEN_YIELDS == 0 or self._turn_is_long():
                await self._yield()

    async def _run(self, slot: Slot, delivery: Delivery) -> bool:
        """Run one attempt in this slot; False when the slot must not be used again."""
        execution, node, _ = delivery
        name, is_suspect = execution.graph.handlers[node], is_isolated(*delivery)
        slot.delivery = delivery
        if is_suspect or name in self._gates:
            slot.enter(self._waiting.gates_of(name, is_suspect))
        self._begin(slot, delivery)
        self.started_count += 1
        failpoint("worker.attempt.start")
        self._on_start(execution.execution_id)
        if self._watch_attempts is not None:
            self._watch_attempts.started(delivery)
        context_before = contextvars.copy_context()
        usable = True
        output: bytes | None = None
        error: AttemptError | None
        try:
            handler = self._handlers[name]
            slot.attempt = begin(delivery, handler, self._tools, slot.deadline)
            if is_suspect or handler.lane == "process":
                output, error = await self._run_apart(slot, delivery, slot.attempt, is_suspect)
            else:
                output, error = await run_attempt(slot.attempt, self._tools)
                self._original.end_copies()
        except asyncio.CancelledError as cancelled:
            if slot.given_up:
                raise
            error, usable = describe_failure(cancelled), False
        except GeneratorExit as closed:
            # Raised by the handler, or by the interpreter that clears away a loop that is gone.
            if not is_task_of_now(slot.task):
                raise
            error, usable = describe_failure(closed), False
        if slot.given_up:
            return False
        failpoint("worker.attempt.done")
        slot.leave()
        self._hand_in_outcome(slot, delivery, output, error)
        return usable and left_no_traces(slot.task, context_before)

    def _begin(self, slot: Slot, delivery: Delivery) -> None:
        """The time of an attempt begins."""
        slot.started_at = self._clock.now()
        slot.deadline = self._clock.monotonic() + delivery.execution.graph.timeouts_seconds[delivery.node]
        self._watch(slot.deadline)

    def _run_apart(
        self, slot: Slot, delivery: Delivery, attempt: Attempt, is_suspect: bool
    ) -> Awaitable[AttemptResult]:
        def begun() -> None:
            self._begin(slot, delivery)

        slot.deadline = math.inf
        most = self._tools.max_output_bytes
        if is_suspect:
            return self._run_isolated(delivery, most, begun)
        return self._run_in_process(delivery, most, begun, attempt.context.progress)

    def _hand_in_outcome(
        self, slot: Slot, delivery: Delivery, output: bytes | None, error: AttemptError | None
    ) -> None:
        jitter = 0.0
        if error is not None:
            jitter = self._clock.chance()
            _log_failure(delivery, error)
            limited = self.limited.by_name.get(delivery.execution.graph.handlers[delivery.node])
            if limited is not None:
                limited.note_failure(delivery, error)
        execution, node, attempt = delivery
        ended_at = self._clock.now()
        outcome = Outcome(execution.execution_id, node, attempt, output, error, slot.started_at, ended_at, jitter)
        self._hand_in(outcome)
        if self._watch_attempts is not None:
            self._watch_attempts.ended(delivery, outcome)
        self._note_drained()

    def _ended(self, slot: Slot, task: asyncio.Task[None]) -> None:
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
            delivery = slot.delivery
            slot.leave()
            cause = describe_failure(error or asyncio.CancelledError("the worker slot was cancelled"))
            reason = f"{cause.type}: {cause.message}"
            self._hand_in_outcome(slot, delivery, None, AttemptError("worker_failed", reason, True))
        if not self._stopping:
            self._add_slot()

    def _runs(self, delivery: Delivery) -> bool:
        """Whether the attempt runs already: it was queued as this process's own, and taken from another as well."""
        execution, node, attempt = delivery
        return (node, attempt) in self.running(execution.execution_id)

    def _turn_is_long(self) -> bool:
        """Whether the slots have had this turn of the event loop for long enough, and more is waiting."""
        return bool(self._waiting) and self._clock.monotonic() - self._turn_began > LONGEST_TURN_SECONDS

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

    def _give_up(self, slot: Slot) -> None:
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
                asyncio.get_running_loop().call_later(LINGERING_SECONDS, self._complain, task, handler)
        slot.leave()
        self._note_drained()
        if not self._stopping:
            self._add_slot()

    def _complain(self, task: asyncio.Task[None], handler: str) -> None:
        if task in self._lingering:
            how = "it swallows cancellation"
        elif handler in self._tools.threads.lingering:
            how = "its function does not look at context.cancelled, and a thread cannot be stopped"
        else:
            return
        log.warning("handler %s was told to stop %g s ago and still runs: %s", handler, LINGERING_SECONDS, how)

    def _wake(self, slot: Slot) -> None:
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
        deadlines = [slot.deadline for slot in self._slots if slot.delivery is not None and slot.deadline < math.inf]
        if deadlines:
            self._watch(min(deadlines))


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
