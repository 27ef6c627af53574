"""Takes deliveries that other replicas' owners have handed out, and asks the store whether they may start.

A delivery is a reference. What it refers to is read from the store, and that read is the permission to start: only an
attempt without an outcome, of an execution that runs. A permission grows old, so that what was cancelled does not start
long after; its age is checked right before the start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from ...observability.rare_log import RareLog
from ..broker import Broker
from ..clock import Clock
from ..core.backoff import Backoff
from ..core.deliveries import DeliveryKey, Taken, Task
from ..core.graph import Graph
from ..core.machine import Execution, adopt_suspicions, permit
from ..core.queue import Delivery
from ..core.state import WorkflowState
from ..errors import BackendError, BrokerUnavailable
from ..graphs import Graphs
from ..ports import LoadedExecution, Store
from .pool import WorkerPool

log = logging.getLogger(__name__)

MOST_AHEAD = 256
LOOK_SECONDS = 1.0
"""How often every queue is looked into although nothing was heard."""
TURN_SECONDS = 0.25
"""How often a pool that is busy with its own takes something of others all the same."""
LONGEST_WAIT_SECONDS = 1.0
"""What was taken and waits that long for a slot is given back: somebody else may have one."""
LAST_WORDS_SECONDS = 1.0
FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 2.0


class Receipts(Protocol):
    """Where it is kept which deliveries were taken and are not handed in yet."""

    def expect(self, key: DeliveryKey, entry_id: str) -> None:
        """A delivery was taken here."""

    def is_expected(self, key: DeliveryKey) -> bool:
        """Whether it is still to be handed in."""

    def abandon(self, key: DeliveryKey) -> str | None:
        """It will not be handed in; returns its entry id, if it was expected."""


class Taker:
    """Keeps the pool supplied with what others hand out."""

    def __init__(
        self,
        *,
        broker: Broker,
        store: Store,
        receipts: Receipts,
        pool: WorkerPool,
        graphs: Graphs,
        clock: Clock,
        replica: str,
        handlers: Collection[str],
        slots: int,
        partition_of: Callable[[str], int],
        permission_seconds: float,
        check_seconds: float,
    ) -> None:
        """`permission_seconds`: how old a permission may be at the start. `check_seconds`: how often what runs is
        looked up in the store, in case nobody said that it was cancelled."""
        self._broker = broker
        self._store = store
        self._receipts = receipts
        self._pool = pool
        self._graphs = graphs
        self._clock = clock
        self._replica = replica
        self._handlers = sorted(handlers)
        self._slots = slots
        self._partition_of = partition_of
        self._permission_seconds = permission_seconds
        self._check_seconds = check_seconds
        self._ahead = slots
        self._dirty: dict[int, None] = {}
        self._heard = asyncio.Event()
        self._in_hand: dict[DeliveryKey, Execution] = {}
        self._waiting_since: dict[DeliveryKey, float] = {}
        self._stopping = False
        self._rare_log = RareLog(log)
        self.store_is_away = False
        """Whether nothing can start here that others hand out: the store does not give permission."""
        self._next_look = 0.0
        self._next_turn = 0.0
        self._next_check = 0.0

    def hear(self, partitions: Collection[int] | None) -> None:
        """There may be something to take: in these partitions, or in any."""
        if partitions is None:
            self._next_look = 0.0
        else:
            self._dirty.update(dict.fromkeys(partitions))
        self._heard.set()

    def cancel(self, execution_ids: Iterable[str]) -> None:
        """These executions have ended: what was taken of them stops, and has no outcome."""
        ended = set(execution_ids)
        gone = [key for key in self._in_hand if key.execution_id in ended]
        for key in gone:
            self._in_hand.pop(key).detached = True
            self._receipts.abandon(key)
        if gone:
            self._pool.cancel({key.execution_id for key in gone})

    async def stop(self) -> None:
        """Take nothing more, and give back what has not started."""
        self._stopping = True
        self._heard.set()
        await self._give_back_in_time(self._take_out(self._pool.withdraw_all(self._is_taken)))

    async def close(self) -> None:
        """Give back what was stopped unfinished."""
        left = [Delivery(execution, key.node, key.attempt) for key, execution in self._in_hand.items()]
        await self._give_back_in_time(self._take_out(left))

    async def _give_back_in_time(self, taken: Sequence[Taken]) -> None:
        """Give back at once; what cannot be is found to be lost later."""
        with suppress(BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._give_back(taken)

    async def run(self) -> None:
        """Take, ask, start, until `stop`."""
        backoff = Backoff(FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS)
        while not self._stopping:
            took = False
            try:
                self._forget_ended()
                await self._try_store()
                await self._check()
                await self._renew()
                await self._relieve()
                took = await self._take()
                backoff.reset()
            except BrokerUnavailable as error:
                log.debug("cannot take deliveries: %s", error)
                await asyncio.sleep(backoff.next_seconds())
            except BackendError as error:
                await self._leave_to_others(error)
                await asyncio.sleep(backoff.next_seconds())
            if not took and not self._stopping:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._seconds_to_next()):
                        await self._heard.wait()
            self._heard.clear()

    async def _try_store(self) -> None:
        """While the store does not answer, nothing is taken only to be given back."""
        if self.store_is_away:
            await self._store.read_partitions()
            self.store_is_away = False

    async def _leave_to_others(self, error: BackendError) -> None:
        """The store does not answer here: what has not started is given back, for whoever reaches it."""
        self.store_is_away = True
        self._rare_log.write(logging.WARNING, "store", f"deliveries are left to others, as the store is away: {error}")
        await self._give_back_in_time(self._take_out(self._pool.withdraw_all(self._is_taken)))

    def _seconds_to_next(self) -> float:
        due = min(self._next_look, self._next_check)
        if self._dirty or self._in_hand:
            due = min(due, self._next_turn)
        return max(0.01, due - self._clock.monotonic())

    def _room(self) -> int:
        busy = self._pool.running_count + self._pool.ready_count
        if busy < self._ahead:
            return self._ahead - busy
        now = self._clock.monotonic()
        if now < self._next_turn or self._in_hand:
            return 0
        # Busy with its own: others' wait their turn, they are not left to wait for ever.
        return max(1, self._slots // 4)

    async def _take(self) -> bool:
        """Take from the queues that are said to have something; from all of them now and then."""
        now = self._clock.monotonic()
        room = self._room()
        if room <= 0:
            return False
        self._next_turn = now + TURN_SECONDS
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._dirty.update(dict.fromkeys(range(self._store.partitions)))
        ran_dry = not self._pool.ready_count and bool(self._in_hand or self._dirty)
        taken: list[Taken] = []
        held_up = self._pool.held_up
        handlers = [handler for handler in self._handlers if handler not in held_up] if held_up else self._handlers
        for partition in list(self._dirty):
            try:
                found = await self._broker.take(partition, handlers, room - len(taken), self._replica)
            except Exception:  # whatever it is, what was taken before goes on
                if not taken:
                    raise
                break
            self._dirty.pop(partition, None)
            if held_up:
                self._dirty[partition] = None  # what was left out may be there
            here = {DeliveryKey(*each) for each in self._pool.attempts_in_hand}
            for each in found:
                # What is in hand already was only believed to be lost: it goes on, and is handed in under this entry.
                known = each.task.key in here or self._receipts.is_expected(each.task.key)
                self._receipts.expect(each.task.key, each.entry_id)
                if not known:
                    taken.append(each)
            if len(taken) >= room:
                self._dirty[partition] = None  # behind the others: the partitions take turns
                break
        if len(taken) >= room and ran_dry:
            self._ahead = min(self._ahead * 2, MOST_AHEAD)
        if taken:
            await self._start(taken)
        return bool(taken)

    async def _start(self, taken: Sequence[Taken]) -> None:
        """Ask for permission, and start what may."""
        try:
            permitted = await self._ask([(each.task.key, each.task.definition_id) for each in taken])
        except Exception:
            await self._give_back_in_time(taken)
            raise
        await self._refuse([each.task.key for each in taken if each.task.key not in permitted])
        self._dispatch(permitted)

    def _dispatch(self, permitted: Mapping[DeliveryKey, Execution]) -> None:
        now = self._clock.monotonic()
        wanted = {key: execution for key, execution in permitted.items() if self._receipts.is_expected(key)}
        self._in_hand.update(wanted)
        self._waiting_since.update(dict.fromkeys(wanted, now))
        self._pool.dispatch((execution, key.node) for key, execution in wanted.items())

    async def _ask(self, wanted: Sequence[tuple[DeliveryKey, str]]) -> dict[DeliveryKey, Execution]:
        """Which of these may start, each with the execution it starts from."""
        asked_at = self._clock.monotonic()
        nodes: dict[str, list[tuple[int, int]]] = {}
        graphs: dict[str, Graph] = {}
        names: dict[str, set[str]] = {}
        for key, definition_id in wanted:
            with suppress(LookupError):
                graph = graphs[key.execution_id] = await self._graphs.get(definition_id)
                if 0 <= key.node < graph.size:
                    nodes.setdefault(key.execution_id, []).append((key.node, key.attempt))
                    names.setdefault(key.execution_id, set()).update(graph.names_for(key.node))
        permitted: dict[DeliveryKey, Execution] = {}
        for loaded in await self._store.load_nodes(names) if names else ():
            execution_id = loaded.record.execution_id
            execution, found = self._permit(loaded, graphs[execution_id], nodes[execution_id])
            execution.permitted_until = asked_at + self._permission_seconds
            permitted.update((DeliveryKey(execution_id, node, attempt), execution) for node, attempt in found)
        return permitted

    def _permit(
        self, loaded: LoadedExecution, graph: Graph, wanted: Sequence[tuple[int, int]]
    ) -> tuple[Execution, Sequence[tuple[int, int]]]:
        record = loaded.record
        if record.state is not WorkflowState.RUNNING or record.definition_id == "":
            wanted = ()
        execution, found = permit(record.execution_id, graph, record.input_text or b"{}", loaded.attempts, wanted)
        execution.definition_id = record.definition_id
        execution.partition = record.partition
        adopt_suspicions(execution, loaded.suspicions)
        return execution, found

    async def _refuse(self, keys: Sequence[DeliveryKey]) -> None:
        """What may not start is dropped: it has an outcome, or its execution has ended."""
        by_partition: dict[int, list[DeliveryKey]] = {}
        for key in keys:
            self._receipts.abandon(key)
            by_partition.setdefault(self._partition_of(key.execution_id), []).append(key)
        for partition, refused in by_partition.items():
            with suppress(BrokerUnavailable):
                await self._broker.forget(partition, refused)

    async def _renew(self) -> None:
        """Ask again for what could not start because its permission had grown old."""
        held = self._pool.take_held(lambda delivery: delivery.execution.permitted_until is not None)
        keys = [(_key(delivery), delivery.execution.definition_id) for delivery in held]
        keys = [(key, definition_id) for key, definition_id in keys if self._receipts.is_expected(key)]
        if not keys:
            return
        try:
            permitted = await self._ask(keys)
        except Exception:
            self._pool.hold(held)
            raise
        for key, _ in keys:
            self._in_hand.pop(key, None)
        await self._refuse([key for key, _ in keys if key not in permitted])
        self._dispatch(permitted)

    async def _relieve(self) -> None:
        """Give back what has waited for a slot for too long, and take less ahead from now on."""
        now = self._clock.monotonic()
        late = {key for key, since in self._waiting_since.items() if now - since > LONGEST_WAIT_SECONDS}
        if not late:
            return
        held_up = self._pool.held_up
        waiting = self._pool.withdraw(lambda delivery: self._is_taken(delivery) and _key(delivery) in late, len(late))
        for key in late:
            self._waiting_since.pop(key, None)
        if waiting:
            if any(execution.graph.handlers[node] not in held_up for execution, node, _ in waiting):
                self._ahead = self._slots
                self._next_turn = now + LONGEST_WAIT_SECONDS
            await self._give_back(self._take_out(waiting))

    def _take_out(self, deliveries: Iterable[Delivery]) -> list[Taken]:
        """What is not to run here after all, as it was taken."""
        taken = []
        for delivery in deliveries:
            key = _key(delivery)
            self._in_hand.pop(key, None)
            entry_id = self._receipts.abandon(key)
            if entry_id is not None:
                execution, node, _ = delivery
                taken.append(Taken(entry_id, Task(key, execution.graph.handlers[node], execution.definition_id)))
        return taken

    async def _give_back(self, taken: Iterable[Taken]) -> None:
        by_partition: dict[int, list[Taken]] = {}
        for each in taken:
            self._receipts.abandon(each.task.key)
            by_partition.setdefault(self._partition_of(each.task.key.execution_id), []).append(each)
        for partition, given_back in by_partition.items():
            await self._broker.give_back(partition, given_back)

    async def _check(self) -> None:
        """Whether what runs is still wanted, by the store: the news of a cancel may have been lost."""
        now = self._clock.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + self._check_seconds
        names: dict[str, set[str]] = {}
        for key, execution in self._in_hand.items():
            names.setdefault(key.execution_id, set()).add(execution.graph.node_ids[key.node])
        if not names:
            return
        running = {}
        for loaded in await self._store.load_nodes(names):
            if loaded.record.state is WorkflowState.RUNNING:
                running[loaded.record.execution_id] = {(row.node_id, row.attempt) for row in loaded.attempts}
        self.cancel(execution_id for execution_id in names if execution_id not in running)

    def _forget_ended(self) -> None:
        for key in [key for key in self._in_hand if not self._receipts.is_expected(key)]:
            del self._in_hand[key]
            self._waiting_since.pop(key, None)
        if not self._in_hand:
            self._waiting_since.clear()

    def _is_taken(self, delivery: Delivery) -> bool:
        return delivery.execution.permitted_until is not None


def _key(delivery: Delivery) -> DeliveryKey:
    return DeliveryKey(delivery.execution.execution_id, delivery.node, delivery.attempt)
