"""Who runs what: this process's pool first, other replicas when they have the handler or free slots, and what is lost.

The owner dispatches here. What another replica has been given is remembered until its outcome is in, and looked after:
only the owner decides that a delivery is lost, which it then commits before it dispatches the attempt again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from ..broker import Broker
from ..clock import Clock
from ..core.deliveries import DeliveryKey, PartitionSight, Replicas, Task, alive, key_of, milliseconds_left, named_by
from ..core.machine import AttemptError, Execution, Outcome, is_current, start
from ..core.queue import Delivery, FairQueue
from ..core.state import NodeState
from ..errors import BrokerUnavailable
from .spare import Spare

log = logging.getLogger(__name__)

UNKNOWN = ""
"""The handler of a delivery that somebody else has handed out."""
AGAIN_SECONDS = 0.5
FORGET_LOST_SECONDS = 600.0
"""What was lost of an execution that is not loaded in all that time is wanted by nobody: it has ended."""
TAKE_OVER_LOOK_SECONDS = 1.0
MOST_OF_ONE = 32
"""So many of an execution are handed out together: whoever takes them reads what they need of it once, not each."""


class LocalPool(Protocol):
    """What is needed of this process's own workers."""

    @property
    def queued_count(self) -> int:
        """How many deliveries wait for a slot."""

    started_count: int

    def dispatch(self, ready: Iterable[tuple[Execution, int]]) -> Sequence[tuple[Execution, int]]:
        """Queue nodes; returns those whose handler is not here."""

    def withdraw(self, wanted: Callable[[Delivery], bool], limit: int) -> list[Delivery]:
        """Take queued deliveries out again."""

    def dispatch_held(self) -> None:
        """Queue again what could not start while its lease had run out."""

    def running(self, execution_id: str) -> list[tuple[int, int]]:
        """The (node, attempt) of an execution that run now."""

    def running_partitions(self) -> Collection[int]:
        """The partitions of which something runs now."""

    def cancel(self, execution_ids: Iterable[str]) -> None:
        """Stop what runs of these executions."""


class _Elsewhere:
    """A delivery that another replica has, or may have. Times on the monotonic clock."""

    __slots__ = ("exists_until", "give_up_at", "handler", "partition")

    def __init__(self, partition: int, handler: str, exists_until: float, give_up_at: float) -> None:
        self.partition = partition
        self.handler = handler
        self.exists_until = exists_until
        """It is there until then at least; infinite while it waits in a queue."""
        self.give_up_at = give_up_at
        """When it counts as lost although the broker cannot be asked."""


class Deliveries:
    """The owner's way to whoever runs attempts."""

    def __init__(
        self,
        *,
        pool: LocalPool,
        broker: Broker | None,
        clock: Clock,
        replica: str,
        partition_of: Callable[[str], int],
        heartbeat_timeout_seconds: float,
        look_interval_seconds: float,
        stale_timeout_seconds: Callable[[str], float],
        unknown_handler_seconds: float,
        hand_in: Callable[[Outcome], None],
        nudge: Callable[[], None],
    ) -> None:
        """`broker`: how others are reached, if they are. `stale_timeout_seconds`: by handler.

        `unknown_handler_seconds`: how long a node waits for a process that has its handler.
        """
        self._pool = pool
        self._broker = broker
        self._clock = clock
        self._replica = replica
        self._partition_of = partition_of
        self._heartbeat_timeout_seconds = heartbeat_timeout_seconds
        self._timeout = round(heartbeat_timeout_seconds * 1000)
        self._look_interval_seconds = look_interval_seconds
        self._stale_timeout_seconds = stale_timeout_seconds
        self._unknown_handler_seconds = unknown_handler_seconds
        self._hand_in = hand_in
        self._nudge = nudge
        self._waiting: dict[str, FairQueue] = {}
        self._unserved_since: dict[str, float] = {}
        self._elsewhere: dict[DeliveryKey, _Elsewhere] = {}
        self._of_execution: dict[str, set[tuple[int, int]]] = {}
        self._handed_out: dict[str, int] = {}
        self._to_forget: dict[int, list[DeliveryKey]] = {}
        self._unlooked: dict[int, float] = {}
        self._lost: dict[DeliveryKey, float] = {}
        self.find_execution: Callable[[str], Execution | None] = lambda execution_id: None
        """Where the owner's executions are found, to show what others run of them as RUNNING."""
        self._spare = Spare(replica)
        self._wake = asyncio.Event()
        self._next_look = 0.0
        self._contact_since = -math.inf
        self._next_try = 0.0
        self._next_refresh = 0.0

    @property
    def unserved(self) -> dict[str, int]:
        """By handler that no live process has: how many nodes wait for it."""
        return {handler: len(self._waiting[handler]) for handler in self._unserved_since if self._waiting.get(handler)}

    @property
    def waiting(self) -> Mapping[str, int]:
        """By handler that this process does not run: how many nodes wait for somebody who does."""
        return {handler: len(queue) for handler, queue in self._waiting.items() if queue}

    def dispatch(self, ready: Iterable[tuple[Execution, int]]) -> None:
        """Let attempts run: here, or elsewhere."""
        for execution, node in self._pool.dispatch(ready):
            handler = execution.graph.handlers[node]
            waiting = self._waiting.get(handler)
            if waiting is None:
                waiting = self._waiting[handler] = FairQueue()
            waiting.add(Delivery(execution, node, execution.attempts[node]))
            self._wake.set()
        if self._spare.may_help and self._pool.queued_count:
            self._wake.set()

    def dispatch_held(self) -> None:
        """Queue again what could not start while its lease had run out."""
        self._pool.dispatch_held()

    def in_flight(self, execution: Execution, was_there: bool) -> list[tuple[int, int]]:
        """The (node, attempt) of a loaded execution that are not to be dispatched: they run, here or elsewhere.

        `was_there`: it ran before its partition was taken. While the broker cannot say what others have of it, its
        attempts are presumed to be with them. The first look tells.
        """
        found = self._pool.running(execution.execution_id)
        found += self._of_execution.get(execution.execution_id, ())
        found += [(key.node, key.attempt) for key in self._lost if key.execution_id == execution.execution_id]
        taken = self._unlooked.get(execution.partition)
        if was_there and taken is not None:
            for node, state in enumerate(execution.node_states):
                key = DeliveryKey(execution.execution_id, node, execution.attempts[node])
                if state is NodeState.QUEUED and key not in self._elsewhere and (node, key.attempt) not in found:
                    handler = execution.graph.handlers[node]
                    self._note(key, execution.partition, handler, taken, taken + self._stale_timeout_seconds(handler))
                    found.append((node, key.attempt))
        return found

    def running_partitions(self) -> Collection[int]:
        """The partitions of which something runs in this process."""
        return self._pool.running_partitions()

    def cancel(self, execution_ids: Iterable[str]) -> None:
        """Stop what runs of these executions, here and elsewhere."""
        ids = list(execution_ids)
        self._pool.cancel(ids)
        for execution_id in ids:
            for node, attempt in list(self._of_execution.get(execution_id, ())):
                key = DeliveryKey(execution_id, node, attempt)
                elsewhere = self._drop(key)
                if elsewhere is not None:
                    self._to_forget.setdefault(elsewhere.partition, []).append(key)
                    self._wake.set()

    def done(self, outcomes: Iterable[Outcome]) -> None:
        """These outcomes were taken in: nobody has their attempts any more."""
        if not self._elsewhere:
            return
        for outcome in outcomes:
            self._drop(key_of(outcome))
        if self._waiting:
            self._wake.set()

    async def took(self, partitions: Collection[int]) -> None:
        """These are owned here from now on: see what others have of them. Their executions are loaded after this."""
        if self._broker is None:
            return
        self._unlooked.update(dict.fromkeys(partitions, self._clock.monotonic()))
        try:
            async with asyncio.timeout(TAKE_OVER_LOOK_SECONDS):
                await self._look_at(await self._broker.read_replicas(), partitions)
        except (BrokerUnavailable, TimeoutError):
            self._note_absence()
            self._wake.set()

    def left(self, partition: int) -> None:
        """A partition is no longer owned here."""
        self._unlooked.pop(partition, None)
        for key in [key for key, each in self._elsewhere.items() if each.partition == partition]:
            self._drop(key)
        self._lost = {key: at for key, at in self._lost.items() if self._partition_of(key.execution_id) != partition}

    def take_lost(self, loaded: Container[str]) -> Sequence[DeliveryKey]:
        """The deliveries of loaded executions that were found to be lost; others' wait for them to be loaded."""
        if not self._lost:
            return ()
        taken = [key for key in self._lost if key.execution_id in loaded]
        too_old = self._clock.monotonic() - FORGET_LOST_SECONDS
        self._lost = {
            key: since for key, since in self._lost.items() if key.execution_id not in loaded and since > too_old
        }
        return taken

    def note_replicas(self, replicas: Replicas) -> None:
        """Heartbeats have been seen."""
        self._spare.note(alive(replicas, self._timeout), self._handed_out)
        self._wake.set()
        if not self._elsewhere:
            return
        now = self._clock.monotonic()
        for key, at in named_by(replicas).items():
            elsewhere = self._elsewhere.get(key)
            until = now + (at + self._timeout - replicas.now) / 1000
            if elsewhere is None or until <= now:
                continue
            elsewhere.give_up_at = now + self._stale_timeout_seconds(elsewhere.handler)
            if elsewhere.exists_until < math.inf:
                elsewhere.exists_until = max(elsewhere.exists_until, until)
            execution = self.find_execution(key.execution_id)
            if execution is not None and 0 <= key.node < execution.graph.size:
                start(execution, key.node, key.attempt)

    async def run(self) -> None:
        """Hand out, look after, give up, until cancelled."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._next_due() - self._clock.monotonic())):
                    await self._wake.wait()
            self._wake.clear()
            if self._broker is not None:
                await self._serve_others(self._broker)
            self._fail_unserved()

    async def _serve_others(self, broker: Broker) -> None:
        now = self._clock.monotonic()
        try:
            if now >= self._next_try:
                await self._forget(broker)
                await self._refresh(broker)
                await self._spill(broker)
            if now >= self._look_due():
                await self._look(broker)
        except BrokerUnavailable:
            self._note_absence()
        self._give_up()

    def _note_absence(self) -> None:
        """The broker does not answer: others' words have not come through either, and must have time to do so."""
        self._contact_since = math.inf
        self._next_try = self._clock.monotonic() + AGAIN_SECONDS

    def _next_due(self) -> float:
        """When to go on although nothing calls for it."""
        due = self._look_due()
        if self._broker is not None and (self._to_forget or self._waiting):
            due = min(due, max(self._next_try, self._clock.monotonic() + AGAIN_SECONDS))
        if self._spare.may_help and self._pool.queued_count:
            due = min(due, self._clock.monotonic() + Spare.SAMPLE_SECONDS)
        for since in self._unserved_since.values():
            due = min(due, since + self._unknown_handler_seconds)
        return due if due < math.inf else self._clock.monotonic() + self._look_interval_seconds

    def _look_due(self) -> float:
        if self._unlooked:
            return self._next_try
        if not self._elsewhere:
            return math.inf
        return max(self._next_try, min(self._next_look, *(each.exists_until for each in self._elsewhere.values())))

    async def _forget(self, broker: Broker) -> None:
        while self._to_forget:
            partition, keys = next(iter(self._to_forget.items()))
            await broker.forget(partition, keys)
            del self._to_forget[partition]

    async def _refresh(self, broker: Broker) -> None:
        """Look for new replicas while something waits that none of the known ones serves."""
        now = self._clock.monotonic()
        if now >= self._next_refresh and any(
            queue and not self._spare.serves(handler) for handler, queue in self._waiting.items()
        ):
            self._next_refresh = now + AGAIN_SECONDS
            self._spare.note(alive(await broker.read_replicas(), self._timeout), self._handed_out)

    async def _spill(self, broker: Broker) -> None:
        """Hand out what others are to run: what cannot run here, and what would wait here while they are idle."""
        for handler in [handler for handler, queue in self._waiting.items() if not queue]:
            del self._waiting[handler]
        tasks: dict[int, list[tuple[Task, Delivery]]] = {}
        for handler, queue in self._waiting.items():
            room = self._spare.room(handler, self._handed_out.get(handler, 0))
            while queue and room > 0:
                for delivery in queue.take_some(min(room, MOST_OF_ONE)):
                    room -= self._choose(delivery, tasks)
        count = self._spare.surplus(self._pool.queued_count, self._pool.started_count, self._clock.monotonic())
        if count:
            for delivery in self._pool.withdraw(self._may_be_surrendered, count):
                self._choose(delivery, tasks)
        results = await asyncio.gather(
            *(self._spill_one(broker, partition, chosen) for partition, chosen in tasks.items())
        )
        if not all(results):
            raise BrokerUnavailable("deliveries could not be handed out")

    def _may_be_surrendered(self, delivery: Delivery) -> bool:
        execution, node, _ = delivery
        return execution.permitted_until is None and self._spare.serves(execution.graph.handlers[node])

    def _choose(self, delivery: Delivery, tasks: dict[int, list[tuple[Task, Delivery]]]) -> int:
        execution, node, attempt = delivery
        if execution.detached or not is_current(execution, node, attempt):
            return 0
        handler = execution.graph.handlers[node]
        key = DeliveryKey(execution.execution_id, node, attempt)
        now = self._clock.monotonic()
        self._note(
            key,
            execution.partition,
            handler,
            now + self._heartbeat_timeout_seconds,
            now + max(self._heartbeat_timeout_seconds, self._stale_timeout_seconds(handler)),
        )
        tasks.setdefault(execution.partition, []).append((Task(key, handler, execution.definition_id), delivery))
        return 1

    async def _spill_one(self, broker: Broker, partition: int, chosen: Sequence[tuple[Task, Delivery]]) -> bool:
        try:
            await broker.spill(partition, [task for task, _ in chosen])
        except BrokerUnavailable:
            # It may be there or not. It is run here or spilled again; whoever has it finds no permission or is late.
            wanted = [delivery for task, delivery in chosen if self._drop(task.key) is not None]
            self.dispatch((execution, node) for execution, node, _ in wanted if not execution.detached)
            return False
        return True

    async def _look(self, broker: Broker) -> None:
        self._next_look = self._clock.monotonic() + self._look_interval_seconds
        partitions = {each.partition for each in self._elsewhere.values()} | self._unlooked.keys()
        await self._look_at(await broker.read_replicas(), partitions)

    async def _look_at(self, replicas: Replicas, partitions: Collection[int]) -> None:
        """See what there is of these partitions; what is not there any more is lost."""
        assert self._broker is not None
        asked_at = self._clock.monotonic()
        known = list(self._elsewhere)
        sights = await asyncio.gather(*(self._broker.look(partition) for partition in partitions))
        if self._contact_since == math.inf:
            self._contact_since = asked_at
        named = named_by(replicas)
        lost = []
        for partition, sight in zip(partitions, sights, strict=True):
            if self._unlooked.pop(partition, None) is not None:
                self._find(partition, sight, named, replicas, asked_at)
            stale = [key for key in sight.deliveries if key not in self._elsewhere]
            if stale:
                self._to_forget.setdefault(partition, []).extend(stale)
            for key in known:
                elsewhere = self._elsewhere.get(key)
                if elsewhere is not None and elsewhere.partition == partition:
                    until = asked_at + milliseconds_left(key, sight, named.get(key), replicas, self._timeout) / 1000
                    if self._judge(key, elsewhere, until, asked_at):
                        lost.append(key)
        _tell_lost(lost, "no queue, no heartbeat and no inbox has them")

    def _find(
        self,
        partition: int,
        sight: PartitionSight,
        named: Mapping[DeliveryKey, int],
        replicas: Replicas,
        asked_at: float,
    ) -> None:
        """Take note of what others have of a partition that was just taken, and of what is on its way."""
        of_partition = [key for key in named if self._partition_of(key.execution_id) == partition]
        for key in dict.fromkeys([*sight.deliveries, *sorted(sight.handed_in), *of_partition]):
            # A dead owner may have named what was run again here since, before this one started over.
            if key in self._elsewhere or (key.node, key.attempt) in self._pool.running(key.execution_id):
                continue
            until = asked_at + milliseconds_left(key, sight, named.get(key), replicas, self._timeout) / 1000
            until = max(until, self._contact_since + self._heartbeat_timeout_seconds)
            if until <= asked_at:
                self._lost[key] = asked_at
            else:
                self._note(key, partition, UNKNOWN, until, asked_at + self._stale_timeout_seconds(UNKNOWN))

    def _judge(self, key: DeliveryKey, elsewhere: _Elsewhere, until: float, now: float) -> bool:
        """Whether it is lost; takes note until when it exists at least."""
        if until > now:
            elsewhere.give_up_at = now + self._stale_timeout_seconds(elsewhere.handler)
        else:
            # Handed out a moment ago, or while the broker was away: whoever has it has not had the time to say so.
            # (One that waited in its queue until now had no such moment: the queue itself has said that it is gone.)
            handed_out = elsewhere.exists_until if elsewhere.exists_until < math.inf else now
            until = max(handed_out, self._contact_since + self._heartbeat_timeout_seconds)
        elsewhere.exists_until = until
        return until <= now and self._lose(key)

    def _give_up(self) -> None:
        """While the broker cannot be asked, what nothing was heard of for too long is lost."""
        if self._contact_since < math.inf:
            return
        now = self._clock.monotonic()
        too_long = [key for key, elsewhere in self._elsewhere.items() if elsewhere.give_up_at <= now]
        lost = [key for key in too_long if self._lose(key)]
        _tell_lost(lost, "the broker is away, and nothing was heard of them")

    def _lose(self, key: DeliveryKey) -> bool:
        if (key.node, key.attempt) in self._pool.running(key.execution_id):
            # Taken by this very process, whose word has not come through.
            self._elsewhere[key].exists_until = self._clock.monotonic() + self._heartbeat_timeout_seconds
            self._elsewhere[key].give_up_at = math.inf
            return False
        elsewhere = self._drop(key)
        if elsewhere is None:
            return False
        self._to_forget.setdefault(elsewhere.partition, []).append(key)
        self._lost[key] = self._clock.monotonic()
        self._nudge()
        return True

    def _fail_unserved(self) -> None:
        """Nodes whose handler no live process has: said once, and failed when it was so for too long."""
        now = self._clock.monotonic()
        for handler in list(self._unserved_since):
            if self._spare.serves(handler):
                log.info("a live process has the handler %s: its nodes wait no longer", handler)
            elif self._waiting.get(handler):
                continue
            del self._unserved_since[handler]
        for handler, queue in self._waiting.items():
            if not queue or self._spare.serves(handler):
                continue
            if handler not in self._unserved_since:
                self._unserved_since[handler] = now
                log.warning("no live process has the handler %s: its nodes wait for one", handler)
            if now - self._unserved_since[handler] >= self._unknown_handler_seconds:
                while queue:
                    self._fail(queue.take(), handler)

    def _fail(self, delivery: Delivery, handler: str) -> None:
        execution, node, attempt = delivery
        if execution.detached or not is_current(execution, node, attempt):
            return
        message = f"no process has had the handler {handler!r} for {self._unknown_handler_seconds:g} seconds"
        now = self._clock.now()
        error = AttemptError("handler_unknown", message, retryable=False)
        self._hand_in(Outcome(execution.execution_id, node, attempt, None, error, now, now))

    def _note(self, key: DeliveryKey, partition: int, handler: str, exists_until: float, give_up_at: float) -> None:
        self._elsewhere[key] = _Elsewhere(partition, handler, exists_until, give_up_at)
        self._of_execution.setdefault(key.execution_id, set()).add((key.node, key.attempt))
        self._handed_out[handler] = self._handed_out.get(handler, 0) + 1

    def _drop(self, key: DeliveryKey) -> _Elsewhere | None:
        elsewhere = self._elsewhere.pop(key, None)
        if elsewhere is not None:
            self._handed_out[elsewhere.handler] -= 1
            of_execution = self._of_execution[key.execution_id]
            of_execution.discard((key.node, key.attempt))
            if not of_execution:
                del self._of_execution[key.execution_id]
        return elsewhere


def _tell_lost(keys: Sequence[DeliveryKey], reason: str) -> None:
    """In one line: a worker may have had hundreds."""
    if keys:
        first = keys[0]
        others = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        log.warning(
            "lost: attempt %d of node %d of execution %s%s: %s",
            *(first.attempt, first.node, first.execution_id, others, reason),
        )
