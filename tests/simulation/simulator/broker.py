"""The broker as one process sees it: slow, sometimes away, sometimes silent about what it did, and wiped now and then.

`MemoryBroker` is the server, and outlives every process. What it was asked for it does, although who asked may have
died since.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from typing import Any, TypeVar

from simulator.world import EPOCH_MILLISECONDS, World
from workflow_engine.runtime.broker import BrokerHealth, HandIn, InboxEntry, News
from workflow_engine.runtime.core.deliveries import DeliveryKey, Heartbeat, PartitionSight, Replicas, Taken, Task
from workflow_engine.runtime.core.permits import Answer, Ask, Limits
from workflow_engine.runtime.errors import BrokerUnavailable
from workflow_engine.runtime.transport.memory import MemoryBroker

Result = TypeVar("Result")

SERVER = ("broker", 0)


class Server(MemoryBroker):
    """The server: it can be stopped, and it forgets everything when it is wiped."""

    def __init__(self, world: World) -> None:
        # Its clock differs from everybody else's, and nobody may mind.
        super().__init__(lambda: EPOCH_MILLISECONDS + 3_600_000 + int(world.loop.time() * 1000))
        self._world = world
        self.stopped = False

    async def misbehave(self) -> None:
        """Be wiped, restarted and away as drawn, until the quiet end."""
        world = self._world
        while not world.quiet:
            await asyncio.sleep(world.faults.random() * 15)
            if world.strikes("broker_wiped"):
                self.wipe()
            if world.strikes("broker_cut"):
                self.cut()
            if world.strikes("broker_stopped"):
                self.stopped = True
                self.cut()
                await asyncio.sleep(world.faults.random() * 20)
                self.stopped = False


class SimulatedBroker:
    """The Broker of one incarnation."""

    def __init__(self, world: World, server: Server) -> None:
        self._world = world
        self._server = server

    async def open(self) -> None:
        await self._pause()

    async def close(self) -> None:
        await self._pause()

    async def post(self, partition: int, wake_ups: Collection[str], outcomes: Sequence[HandIn]) -> None:
        woken = [each for each in wake_ups if not self._world.strikes("wake_up_lost")]
        given = list(outcomes)
        await self._ask(lambda: self._server.post(partition, woken, given))
        if outcomes and self._world.strikes("outcome_doubled"):
            await self._ask(lambda: self._server.post(partition, (), given))

    async def read_inbox(self, partition: int, after: str, limit: int) -> Sequence[InboxEntry]:
        return await self._ask(lambda: self._server.read_inbox(partition, after, limit))

    async def delete_from_inbox(self, partition: int, entry_ids: Collection[str]) -> None:
        ids = list(entry_ids)
        await self._ask(lambda: self._server.delete_from_inbox(partition, ids))

    async def spill(self, partition: int, tasks: Sequence[Task]) -> None:
        self._world.happened["spilled"] += len(tasks)
        await self._ask(lambda: self._server.spill(partition, tasks))

    async def take(self, partition: int, handlers: Sequence[str], count: int, replica: str) -> Sequence[Taken]:
        taken = await self._ask(lambda: self._server.take(partition, handlers, count, replica))
        self._world.happened["taken"] += len(taken)
        return taken

    async def give_back(self, partition: int, taken: Sequence[Taken]) -> None:
        self._world.happened["given_back"] += len(taken)
        await self._ask(lambda: self._server.give_back(partition, taken))

    async def forget(self, partition: int, keys: Collection[DeliveryKey]) -> None:
        gone = list(keys)
        await self._ask(lambda: self._server.forget(partition, gone))

    async def look(self, partition: int) -> PartitionSight:
        return await self._ask(lambda: self._server.look(partition))

    async def beat(self, heartbeat: Heartbeat) -> Replicas:
        return await self._ask(lambda: self._server.beat(heartbeat), vital=True)

    async def read_replicas(self) -> Replicas:
        return await self._ask(self._server.read_replicas, vital=True)

    async def retire(self, replica: str) -> None:
        await self._ask(lambda: self._server.retire(replica), vital=True)

    async def take_permits(
        self, handler: str, limits: Limits, asks: Sequence[Ask], lease_milliseconds: int | None
    ) -> Answer:
        wanted = list(asks)
        return await self._ask(lambda: self._server.take_permits(handler, limits, wanted, lease_milliseconds))

    async def renew_permits(self, handler: str, permits: Collection[str], lease_milliseconds: int | None) -> None:
        renewed = list(permits)
        await self._ask(lambda: self._server.renew_permits(handler, renewed, lease_milliseconds))

    async def release_permits(self, handler: str, permits: Collection[str]) -> None:
        released = list(permits)
        await self._ask(lambda: self._server.release_permits(handler, released))

    async def close_key(self, handler: str, limits: Limits, rate_key: str, seconds: float) -> None:
        await self._ask(lambda: self._server.close_key(handler, limits, rate_key, seconds))

    async def publish(self, changed: Collection[str], ended: Collection[str], owners: Collection[str] = ()) -> None:
        told = list(changed), list(ended), list(owners)
        await self._ask(lambda: self._server.publish(*told))

    async def listen(self) -> AsyncIterator[News]:
        await self._pause()
        if self._server.stopped:
            raise BrokerUnavailable("simulated: is away")
        async for news in self._server.listen():
            if not self._world.strikes("news_lost") or news == News():
                yield news

    async def health(self) -> BrokerHealth:
        return await self._server.health()

    async def _ask(self, effect: Callable[[], Coroutine[Any, Any, Result]], *, vital: bool = False) -> Result:
        """Have the server do it, and hear what came of it, or not. `vital`: a process may end of a fault in it."""
        world = self._world
        await self._pause()
        if self._server.stopped or world.strikes("broker_unavailable"):
            raise BrokerUnavailable("simulated: is away")
        answer: asyncio.Future[Result] = world.loop.create_future()
        world.loop.create_task_of(SERVER, self._do(effect, answer))
        if world.strikes("broker_outcome_unknown"):
            await self._pause()
            raise BrokerUnavailable("simulated: no answer")
        result = await answer
        await self._pause()
        if not vital and world.strikes("broker_stumbles"):
            raise AttributeError("simulated: a fault of the client")
        return result

    async def _do(self, effect: Callable[[], Coroutine[Any, Any, Result]], answer: asyncio.Future[Result]) -> None:
        await asyncio.sleep(self._world.faults.random() * 0.003)
        if self._server.stopped:
            if not answer.done():
                answer.set_exception(BrokerUnavailable("simulated: is away"))
                answer.exception()
            return
        result = await effect()
        if not answer.done():
            answer.set_result(result)

    async def _pause(self) -> None:
        delay = self._world.faults.random() * 0.002
        if self._world.strikes("broker_slow"):
            delay = self._world.faults.random() * 3
        await asyncio.sleep(delay)
