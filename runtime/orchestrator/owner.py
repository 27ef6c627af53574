"""The owner of partitions: takes every event that waits, decides, commits, acts. In that order.

Nothing is dispatched before the commit that decided it, and nothing is forgotten before the commit
that took it in: outcomes stay in hand until then. After a failure nobody can explain, memory is
dropped and everything is loaded again from the store, which is the only truth.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection

from ...observability.rare_log import RareLog
from ..clock import Clock
from ..core.deliveries import DeliveryKey, key_of
from ..core.graph import Graph
from ..core.machine import (
    ConsumedCommand,
    Effects,
    Execution,
    Outcome,
    adopt_suspicions,
    apply_cancel,
    apply_outcome,
    apply_retry_due,
    fold,
    is_current,
    parked_until,
    resume,
    suspect,
)
from ..core.shares import partition_of
from ..core.state import WorkflowState
from ..errors import BackendError, StoreUnavailable
from ..failpoints import failpoint
from ..graphs import Graphs
from ..ports import CommitBatch, ExecutionUpdate, LoadedExecution, Store, Transport
from .batches import batches_of
from .caution import Caution
from .deliveries import Deliveries
from .leases import Leases
from .recovery import Recovery
from .timers import Timers
from .wall_clock import WallClock

log = logging.getLogger(__name__)

MAX_LOADED_EXECUTIONS = 20_000
SWEEP_SECONDS = 5.0
CUT_OFF_SWEEP_SECONDS = 1.0
PARK_SECONDS = 10.0
LONGEST_BACKOFF_SECONDS = 5.0


class Owner:
    """Owns this replica's partitions from `run` on, until it is stopped."""

    def __init__(
        self,
        *,
        leases: Leases,
        store: Store,
        transport: Transport,
        deliveries: Deliveries,
        graphs: Graphs,
        clock: Clock,
        announce: Callable[[], Awaitable[bool]],
        sweep_seconds: float,
        recover_at_once: int,
        on_finished: Callable[[Execution], None],
    ) -> None:
        """`announce` tells the other replicas what runs here; False when it cannot. `sweep_seconds`: between sweeps.

        `recover_at_once`: how many attempts that a crash has left are tried at a time. `on_finished`: who is told.
        """
        self._on_finished = on_finished
        self._leases = leases
        self._store = store
        self._transport = transport
        self._deliveries = deliveries
        self._graphs = graphs
        self._clock = clock
        self._announce = announce
        self._sweep_seconds = sweep_seconds
        self._recovery = Recovery(clock, recover_at_once)
        self._executions: dict[str, Execution] = {}
        self._timers = Timers()
        self._in_hand: list[Outcome] = []
        self._at_work_on: str | None = None
        self._to_load: dict[str, None] = {}
        self._set_aside: dict[str, str] = {}
        self._commanded: Collection[str] = ()
        self._backlog = False
        self._next_sweep = 0.0
        self._next_parked_due: int | None = None
        self._caution = Caution()
        self._rare_log = RareLog(log)
        self._stopping = False
        self._wall_clock = WallClock(clock)
        self.ready = asyncio.Event()

    @property
    def loaded_count(self) -> int:
        """How many executions are in memory."""
        return len(self._executions)

    @property
    def set_aside(self) -> dict[str, str]:
        """Executions that cannot be loaded or committed, with the reason; looked at again after a restart."""
        return dict(self._set_aside)

    def live(self, execution_id: str) -> Execution | None:
        """An execution as it is in memory: ahead of the store by what is not committed yet. To look at only."""
        return self._executions.get(execution_id)

    @property
    def owned(self) -> Collection[int]:
        """The partitions that this replica owns."""
        return self._leases.versions.keys()

    @property
    def in_hand(self) -> list[DeliveryKey]:
        """What has ended, and is not committed yet."""
        return [key_of(outcome) for outcome in self._in_hand]

    def stop(self) -> None:
        """Make `run` return after one last turn, which commits every outcome that has come in, and hand over."""
        self._stopping = True
        self._transport.nudge()

    async def run(self) -> None:
        """Own what is this replica's to own, until `stop`."""
        failures = 0
        while True:
            last = self._stopping
            try:
                await self._turn()
                self.ready.set()
                failures = 0
            except Exception as error:
                failures += 1
                await self._start_over(error, failures)
            if last:
                await self._leave()
                return
            await self._transport.wait(0 if self._stopping else self._seconds_to_next_look())

    async def _turn(self) -> None:
        """One batch: take, load, decide, commit, act."""
        self._at_work_on = None
        inbox = self._transport.take()
        self._in_hand += inbox.outcomes
        await self._attend()
        self._pass_on()
        await self._sweep()
        effects = Effects()
        await self._load(inbox.wake_ups, effects)
        outcomes = self._select_outcomes()
        self._at_work_on = outcomes[0].execution_id if outcomes else None
        for outcome in outcomes:
            execution = self._executions.get(outcome.execution_id)
            if execution is not None:
                apply_outcome(execution, outcome, effects)
        for execution, node in self._timers.take_due(self._clock.monotonic()):
            apply_retry_due(execution, node, effects)
        self._take_up_lost(effects)
        self._recovery.release(effects)
        lost = await self._settle(effects)
        handled = [each for each in outcomes if not lost or self._partition_of(each.execution_id) not in lost]
        gone = set(map(id, handled))
        self._in_hand = [outcome for outcome in self._in_hand if id(outcome) not in gone]
        self._deliveries.done(handled)
        self._transport.settle(handled)
        if self._leases.is_draining:
            await self._hand_over()
        if self._in_hand or self._to_load:
            self._transport.nudge()
        self._caution.recover()

    async def _attend(self) -> None:
        """Look after what this replica owns, when it is time."""
        if self._clock.monotonic() < self._leases.next_look:
            return
        attended = await self._leases.attend()
        for partition in attended.lost:
            self._drop(partition)
        self._transport.serve(self._leases.versions.keys())
        if attended.taken:
            await self._deliveries.took(attended.taken)
            self._next_sweep = 0.0
        self._leases.drain(attended.surplus)

    def _pass_on(self) -> None:
        """What ended here of partitions that are others' now."""
        if len(self._leases.versions) == self._store.partitions:
            return
        self._transport.serve(self._leases.versions.keys())
        others = [each for each in self._in_hand if not self._owns(each.execution_id)]
        if others:
            self._in_hand = [each for each in self._in_hand if self._owns(each.execution_id)]
            self._transport.pass_on(others)

    def _take_up_lost(self, effects: Effects) -> None:
        """Dispatch anew what was lost with another replica; that it was lost is in the same commit."""
        lost = self._deliveries.take_lost(self._executions)
        if not lost:
            return
        in_hand = {(each.execution_id, each.node, each.attempt) for each in self._in_hand}
        for key in lost:
            execution = self._executions.get(key.execution_id)
            if execution is not None and is_current(execution, key.node, key.attempt) and key not in in_hand:
                suspect(execution, key.node, key.attempt, effects)
                effects.dispatch.append((execution, key.node))

    async def _hand_over(self) -> None:
        """Hand over what is drained: nothing of it starts, every outcome of it is committed, and what runs of it is
        known to its next owner, or nothing does."""
        heard = self._transport.reaches_others and not self._transport.is_cut_off
        known = heard and await self._announce()
        busy = () if known else self._deliveries.running_partitions()
        self._take_ended()
        uncommitted = {self._partition_of(outcome.execution_id) for outcome in self._in_hand}
        for partition in self._leases.drained(busy):
            if partition not in uncommitted:
                self._drop(partition)
                await self._leases.release(partition)

    async def _leave(self) -> None:
        """Hand over everything, and own nothing any more."""
        if self._transport.reaches_others:
            await self._announce()
        await self._leases.leave()
        self._transport.serve(())
        self._pass_on()

    def _drop(self, partition: int) -> None:
        """Forget the executions of a partition: what is queued of them does not start."""
        self._deliveries.left(partition)
        for execution in [each for each in self._executions.values() if each.partition == partition]:
            self._evict(execution)

    def _partition_of(self, execution_id: str) -> int:
        return partition_of(execution_id, self._store.partitions)

    def _owns(self, execution_id: str) -> bool:
        return self._partition_of(execution_id) in self._leases.versions

    async def _settle(self, effects: Effects) -> Collection[int]:
        """First durable, then done. Returns the partitions that were lost: of those, nothing was either."""
        lost = await self._commit(effects)
        self._act(effects)
        return lost

    async def _commit(self, effects: Effects) -> Collection[int]:
        """Make a batch durable, and renew the leases. While the store cannot take it, wait: it has not happened then.

        Returns the partitions whose version was another: they are dropped, and looked at again.
        """
        batches = self._batches(effects)
        if not batches:
            return ()
        failpoint("owner.commit.before")
        backoff = 0.1
        while True:
            asked_at = self._clock.monotonic()
            try:
                versions = await self._store.commit(batches, self._leases.lease_seconds)
                break
            except StoreUnavailable as error:
                if self._stopping or self._leases.have_run_out:
                    raise
                self._rare_log.write(logging.ERROR, "commit", f"cannot commit, trying again in {backoff:g} s: {error}")
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)
        if backoff > 0.1:
            log.info("commits are taken again")
        failpoint("owner.commit.after")
        lost = []
        for batch, version in zip(batches, versions, strict=True):
            if version is None:
                gone = f"partition {batch.partition} is no longer at version {batch.version}"
                self._rare_log.write(logging.WARNING, "version", gone)
                lost.append(batch.partition)
                self._leases.forget(batch.partition)
                self._drop(batch.partition)
            else:
                self._leases.renewed(batch.partition, version, asked_at)
        self._deliveries.dispatch_held()
        return lost

    def _act(self, effects: Effects) -> None:
        """What the committed batch asked for; nothing for what was lost with its partition."""
        finished = [execution for execution in effects.finished if not execution.detached]
        for execution in finished:
            self._evict(execution)
            self._on_finished(execution)
        self._deliveries.cancel([e.execution_id for e in finished if e.state is not WorkflowState.COMPLETED])
        for execution in effects.touched.values():
            if execution.parked:
                self._evict(execution)
        now = self._clock.monotonic()
        for execution, node, delay in effects.timers:
            if not execution.detached:
                self._timers.add(execution, node, now + delay / 1000)
        if effects.dispatch:
            self._deliveries.dispatch(effects.dispatch)
        failpoint("owner.dispatched")
        self._transport.publish(effects.touched.keys(), [execution.execution_id for execution in finished])

    def _batches(self, effects: Effects) -> list[CommitBatch]:
        """The rows of each partition, and empty batches for leases that want renewal."""
        now = self._clock.now()
        updates = [
            ExecutionUpdate(execution.execution_id, execution.state, execution.error, now, None)
            for execution in effects.finished
        ]
        for execution in effects.touched.values():
            if execution.state is WorkflowState.RUNNING:
                update = self._park(execution, now)
                if update is not None:
                    updates.append(update)
        return batches_of(effects, updates, self._leases.versions, self._leases.to_renew(), self._store.partitions)

    def _park(self, execution: Execution, now: int) -> ExecutionUpdate | None:
        """Park an execution that only waits for a far retry; unpark one that goes on. None: as it was."""
        due_at = parked_until(execution)
        if due_at is not None and due_at - now > PARK_SECONDS * 1000:
            execution.parked = True
            if self._next_parked_due is None or due_at < self._next_parked_due:
                self._next_parked_due = due_at
            return ExecutionUpdate(execution.execution_id, execution.state, None, None, due_at)
        if execution.parked:
            execution.parked = False
            return ExecutionUpdate(execution.execution_id, execution.state, None, None, None)
        return None

    def _select_outcomes(self) -> list[Outcome]:
        """Outcomes of what is loaded; of few executions after a failure."""
        return self._caution.first_of([each for each in self._in_hand if each.execution_id not in self._to_load])

    async def _sweep(self) -> None:
        """The safety net: find what a lost wake-up, a crash or a full memory has left behind."""
        now = self._clock.monotonic()
        wall_clock = self._wall_clock.now()
        parked_due = self._next_parked_due is not None and self._next_parked_due <= wall_clock
        room = MAX_LOADED_EXECUTIONS - len(self._executions)
        room_again = self._backlog and room > MAX_LOADED_EXECUTIONS // 4
        if now < self._next_sweep and not parked_due and not room_again:
            return
        limit = MAX_LOADED_EXECUTIONS + len(self._set_aside) + 1
        work = await self._store.find_work(self._leases.versions.keys(), wall_clock, limit)
        self._leases.note_running(work.execution_ids, self._partition_of)
        self._commanded, self._next_parked_due = work.commanded, work.next_due_at
        self._next_sweep = now + (CUT_OFF_SWEEP_SECONDS if self._transport.is_cut_off else self._sweep_seconds)
        self._backlog = len(work.execution_ids) >= limit
        for execution_id in work.execution_ids:
            if execution_id not in self._executions:
                self._to_load[execution_id] = None

    async def _load(self, wake_ups: Collection[str], effects: Effects) -> None:
        """Load what is wanted and not in memory, and take all its commands."""
        woken = [each for each in dict.fromkeys([*wake_ups, *self._commanded]) if self._owns(each)]
        self._commanded = ()
        loaded_and_woken = [execution_id for execution_id in woken if execution_id in self._executions]
        self._to_load.update((execution_id, None) for execution_id in woken if execution_id not in self._executions)
        for outcome in self._in_hand:
            if outcome.execution_id not in self._executions:
                self._to_load[outcome.execution_id] = None
        if loaded_and_woken:
            for command in await self._store.read_cancels(loaded_and_woken):
                apply_cancel(self._executions[command.execution_id], command.command_id, self._clock.now(), effects)
        if not self._to_load:
            return
        wanted = self._choose_loads()
        found = []
        for loaded in await self._store.load(wanted):
            try:
                found.append((loaded, await self._graphs.get(loaded.record.definition_id)))
            except BackendError:
                raise
            except Exception as error:
                self._cannot_load(loaded, error)
        # From here on nothing is awaited. What has ended while this was loaded is in hand too, or it would run again.
        in_hand = self._take_ended()
        for loaded, graph in found:
            try:
                self._adopt(loaded, graph, in_hand.get(loaded.record.execution_id, []), effects)
            except Exception as error:
                self._cannot_load(loaded, error)
        for execution_id in wanted:
            self._to_load.pop(execution_id, None)

    def _take_ended(self) -> dict[str, list[tuple[int, int]]]:
        """By execution, the (node, attempt) whose outcome is in hand, with those that have just come in."""
        inbox = self._transport.take()
        self._in_hand += inbox.outcomes
        for execution_id in inbox.wake_ups:
            self._transport.wake(execution_id)
        in_hand: dict[str, list[tuple[int, int]]] = {}
        for outcome in self._in_hand:
            in_hand.setdefault(outcome.execution_id, []).append((outcome.node, outcome.attempt))
        return in_hand

    def _cannot_load(self, loaded: LoadedExecution, error: Exception) -> None:
        self._put_aside(loaded.record.execution_id, f"cannot be loaded: {type(error).__name__}: {error}")

    def _choose_loads(self) -> list[str]:
        """The next executions to load: what has outcomes in hand first, the rest as far as there is room."""
        for execution_id in [known for known in self._to_load if known in self._set_aside]:
            del self._to_load[execution_id]
        room = max(0, MAX_LOADED_EXECUTIONS - len(self._executions))
        with_outcomes = {outcome.execution_id for outcome in self._in_hand}
        wanted = [execution_id for execution_id in self._to_load if execution_id in with_outcomes]
        others = [execution_id for execution_id in self._to_load if execution_id not in with_outcomes]
        if len(others) > room:
            self._backlog = True
            for execution_id in others[room:]:
                del self._to_load[execution_id]
        wanted += others[:room]
        return wanted[: self._caution.at_once]

    def _adopt(self, loaded: LoadedExecution, graph: Graph, in_hand: list[tuple[int, int]], effects: Effects) -> None:
        """Take an execution into memory and set it going, unless it has ended.

        `in_hand` are the (node, attempt) whose outcome waits to be applied: like those that run, they are
        not dispatched again.
        """
        record = loaded.record
        if record.partition not in self._leases.versions:
            return
        unconsumed = [command for command in loaded.commands if not command.consumed]
        if record.state is not WorkflowState.RUNNING:
            effects.commands += [
                ConsumedCommand(command.command_id, None, record.execution_id) for command in unconsumed
            ]
            return
        execution = fold(record.execution_id, graph, record.input_text or b"{}", loaded.attempts)
        execution.definition_id = record.definition_id
        execution.partition = record.partition
        adopt_suspicions(execution, loaded.suspicions)
        execution.parked = record.parked_until is not None
        self._executions[record.execution_id] = execution
        if unconsumed:
            for command in unconsumed:
                apply_cancel(execution, command.command_id, self._clock.now(), effects)
            return
        was_there = self._leases.was_there(record.partition, record.execution_id)
        before = len(effects.dispatch)
        resume(execution, self._deliveries.in_flight(execution, was_there) + in_hand, self._wall_clock.now(), effects)
        if self._leases.is_left_by_a_crash(record.partition, record.execution_id):
            self._recovery.add(effects.dispatch[before:])
            del effects.dispatch[before:]

    def _evict(self, execution: Execution) -> None:
        execution.detached = True
        self._executions.pop(execution.execution_id, None)
        self._timers.forget(execution)

    def _put_aside(self, execution_id: str, reason: str) -> None:
        log.error("execution %s is set aside until the next start: %s", execution_id, reason)
        self._set_aside[execution_id] = reason
        self._to_load.pop(execution_id, None)
        self._in_hand = [outcome for outcome in self._in_hand if outcome.execution_id != execution_id]
        execution = self._executions.get(execution_id)
        if execution is not None:
            self._evict(execution)

    async def _start_over(self, error: Exception, failures: int) -> None:
        """Drop memory, keep the outcomes in hand, and take every partition anew: no earlier commit can land then."""
        backoff = min(0.1 * 2 ** min(failures, 10), LONGEST_BACKOFF_SECONDS)
        unexplained = None if isinstance(error, BackendError) else error
        if unexplained is None:
            self._rare_log.write(logging.ERROR, "start", f"starting over from the store in {backoff:g} s: {error}")
        else:
            log.error("starting over from the store in %g s: %s", backoff, error, exc_info=unexplained)
        if self._at_work_on is not None and failures > 2 and unexplained is not None:
            self._put_aside(self._at_work_on, f"{type(error).__name__}: {error}")
        self._caution.fall()
        for execution in list(self._executions.values()):
            self._evict(execution)
        self._timers.clear()
        self._recovery.clear()
        self._to_load.clear()
        self._next_sweep = 0.0
        for partition in list(self._leases.versions):
            self._leases.forget(partition)
        if self._leases.have_run_out and self._transport.reaches_others:
            # Others may own everything by now, and reach the store: they are told what has ended here.
            self._pass_on()
        if not self._stopping:
            await asyncio.sleep(backoff)

    def _seconds_to_next_look(self) -> float:
        now = self._clock.monotonic()
        due = min(self._next_sweep, self._leases.next_look, self._leases.next_renewal(), self._recovery.next_due())
        if self._next_parked_due is not None:
            due = min(due, now + (self._next_parked_due - self._wall_clock.now()) / 1000)
        return max(0.0, min(due, self._timers.next_due()) - now)
