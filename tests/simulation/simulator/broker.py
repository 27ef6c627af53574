"""The broker as one process sees it: slow, sometimes away, sometimes silent about what it did, and wiped now and then.

`MemoryBroker` is the server, and outlives every process. What it was asked for it does, although who asked may have
died since.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from copy import deepcopy
from functools import partial
from typing import Any, TypeVar

from simulator.world import EPOCH_MILLISECONDS, Link, World
from workflow_engine.runtime.broker import HandIn, News
from workflow_engine.runtime.core.deliveries import Taken, Task
from workflow_engine.runtime.errors import BrokerUnavailable
from workflow_engine.runtime.transport.memory import MemoryBroker

Result = TypeVar("Result")

SERVER = ("broker", 0)
VITAL = frozenset({"beat", "read_replicas", "retire"})
"""A process may end of a fault of the client in these."""
TIMEOUT_SECONDS = 2.0
"""How long who is cut off waits for an answer, at most."""


class Server(MemoryBroker):
    """The server: it can be stopped, it forgets some or all of what it had, and it can come back as it once was."""

    def __init__(self, world: World) -> None:
        # Its clock differs from everybody else's, and nobody may mind.
        super().__init__(lambda: EPOCH_MILLISECONDS + 3_600_000 + int(world.loop.time() * 1000))
        self._world = world
        self.stopped = False
        self._remembered = self._copy()

    async def misbehave(self) -> None:
        """Be wiped, restarted and away as drawn, until the quiet end."""
        world = self._world
        while not world.quiet:
            await asyncio.sleep(world.faults.random() * 15)
            if self._partitions and world.strikes("broker_wiped"):
                self.wipe()
            if world.draws("broker_rolled_back"):
                self._roll_back()
            if world.draws("broker_trimmed"):
                self._trim()
            if world.strikes("broker_cut"):
                self.cut()
            if world.strikes("broker_stopped"):
                self.stopped = True
                self.cut()
                await asyncio.sleep(world.faults.random() * 20)
                self.stopped = False
            if world.faults.random() < 0.3:
                self._remembered = self._copy()

    def double(self, partition: int, tasks: Sequence[Task]) -> None:
        """A second entry of what was taken, of which the rest of the broker knows nothing."""
        here = self._partition(partition)
        for task in tasks:
            here.queues.setdefault(task.handler, {})[self._new_id()] = task

    def _copy(self) -> tuple[Any, ...]:
        return deepcopy((self._partitions, self._heartbeats, self._whole_since))

    def _roll_back(self) -> None:
        """Come back from an old snapshot, as after a crash without a log; that it is old cannot be seen in it."""
        before = self._partitions
        self._partitions, self._heartbeats, self._whole_since = deepcopy(self._remembered)
        self.cut()
        if any(each.known for each in before.values()):
            self._world.suffered("broker_rolled_back")

    def _trim(self) -> None:
        """Lose some entries of queues and inboxes, as by XTRIM, and nothing of what lies beside them."""
        faults = self._world.faults
        for here in self._partitions.values():
            for entries in [*here.queues.values(), here.inbox]:
                lost = [each for each in entries if faults.random() < 0.5]
                for each in lost:
                    del entries[each]
                if lost:
                    self._world.suffered("broker_trimmed")


class SimulatedBroker:
    """The Broker of one incarnation."""

    def __init__(self, world: World, server: Server, link: Link) -> None:
        self._world = world
        self._server = server
        self._link = link

    def __getattr__(self, verb: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Every verb that is not below: the server does it, and the answer comes, or does not."""
        return partial(self._ask, getattr(self._server, verb))

    async def open(self) -> None:
        await self._pause()

    async def close(self) -> None:
        await self._pause()

    async def post(self, partition: int, wake_ups: Collection[str], outcomes: Sequence[HandIn]) -> None:
        woken = [each for each in wake_ups if not self._world.strikes("wake_up_lost")]
        given = list(outcomes)
        await self._ask(self._server.post, partition, woken, given)
        if outcomes and self._world.strikes("outcome_doubled"):
            await self._ask(self._server.post, partition, (), given)

    async def spill(self, partition: int, tasks: Sequence[Task]) -> None:
        self._world.happened["spilled"] += len(tasks)
        await self._ask(self._server.spill, partition, tasks)

    async def take(self, partition: int, handlers: Sequence[str], count: int, replica: str) -> Sequence[Taken]:
        taken: Sequence[Taken] = await self._ask(self._server.take, partition, handlers, count, replica)
        self._world.happened["taken"] += len(taken)
        if taken and self._world.strikes("delivery_doubled"):
            self._server.double(partition, [each.task for each in taken])
        return taken

    async def give_back(self, partition: int, taken: Sequence[Taken]) -> None:
        self._world.happened["given_back"] += len(taken)
        await self._ask(self._server.give_back, partition, taken)

    async def listen(self) -> AsyncIterator[News]:
        await self._pause()
        self._check_reach()
        async for news in self._server.listen():
            self._check_reach()
            if not self._world.strikes("news_lost") or news == News():
                yield news

    async def health(self) -> Any:
        return await self._server.health()

    def _check_reach(self) -> None:
        if self._server.stopped:
            raise BrokerUnavailable("simulated: is away")
        if self._link.is_cut or self._link.is_unheard:
            raise BrokerUnavailable("simulated: nothing comes through")

    async def _ask(self, verb: Callable[..., Coroutine[Any, Any, Result]], *arguments: Any) -> Result:
        """Have the server do it, and hear what came of it, or not."""
        world = self._world
        kept = [list(each) if isinstance(each, (list, set)) else each for each in arguments]
        await self._pause()
        if self._link.is_cut:
            world.suffered("cut_from_broker")
            await asyncio.sleep(world.faults.random() * TIMEOUT_SECONDS)
            raise BrokerUnavailable("simulated: cannot be reached")
        if self._server.stopped or world.strikes("broker_unavailable"):
            raise BrokerUnavailable("simulated: is away")
        answer: asyncio.Future[Result] = world.loop.create_future()
        world.loop.create_task_of(SERVER, self._do(verb, kept, answer))
        if self._link.is_unheard:
            world.suffered("unheard_by_broker")
            await asyncio.sleep(world.faults.random() * TIMEOUT_SECONDS)
            raise BrokerUnavailable("simulated: no answer comes through")
        if world.strikes("broker_outcome_unknown"):
            await self._pause()
            raise BrokerUnavailable("simulated: no answer")
        result = await answer
        if verb.__name__ not in VITAL and world.strikes("broker_stumbles"):
            raise AttributeError("simulated: a fault of the client")
        return result

    async def _do(
        self, verb: Callable[..., Coroutine[Any, Any, Result]], arguments: Sequence[Any], answer: asyncio.Future[Result]
    ) -> None:
        await asyncio.sleep(self._world.faults.random() * 0.003)
        if self._server.stopped:
            if not answer.done():
                answer.set_exception(BrokerUnavailable("simulated: is away"))
                answer.exception()
            return
        result = await verb(*arguments)
        if not answer.done():
            answer.set_result(result)

    async def _pause(self) -> None:
        delay = self._world.faults.random() * 0.002
        if self._world.strikes("broker_slow"):
            delay = self._world.faults.random() * 3
        await asyncio.sleep(delay)
