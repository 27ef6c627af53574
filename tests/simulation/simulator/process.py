"""A simulated process: it runs the engine, dies, is paused, is cut off, and is started again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache, partial
from random import Random
from typing import Any, TypeVar

from simulator.broker import Server, SimulatedBroker
from simulator.disk import Disk, SimulatedStore
from simulator.transport import SimulatedTransport
from simulator.workload import run_isolated
from simulator.world import SKEW_SECONDS, Link, SimulatedClock, World
from workflow_engine.config import Settings, load_settings
from workflow_engine.plugins.discovery import Catalogue
from workflow_engine.runtime.engine import Engine
from workflow_engine.runtime.errors import BackendError
from workflow_engine.runtime.process import Runtime

Result = TypeVar("Result")

BY_DEFAULT = {"worker_graceful_shutdown_timeout": 2.0}
# Shorter than by default, so that owners change often within the faulty time.
SHORT = {
    "partitions": 4,
    "orchestrator_stale_result_timeout": 6.0,
    "orchestrator_stale_claim_interval": 3.0,
    "worker_heartbeat_interval": 1.0,
    "worker_heartbeat_timeout": 3.0,
}
BACKENDS = {
    "embedded": "embedded",
    "postgres": "postgres",
    "replicas": "distributed",
    "roles": "distributed",
    "limits": "distributed",
}


@cache
def settings_of(topology: str, roles: str, *, by_default: bool) -> Settings:
    """The settings of a process: the default ones, or with shorter times."""
    backend = BACKENDS[topology]
    times = SHORT if backend != "embedded" and not by_default else {}
    return load_settings({**BY_DEFAULT, **times, "backend": backend, "runtime_roles": roles})


class ConnectionLost(Exception):
    """The process died before it answered."""


class Process:
    """A process that runs the engine, dies, and is started again."""

    def __init__(
        self, world: World, servers: tuple[Disk, Server], name: str, settings: Settings, catalogue: Catalogue
    ) -> None:
        self._world = world
        self._disk, self._server = servers
        self._name = name
        self._settings = settings
        self._catalogue = catalogue
        self._incarnation = 0
        self._calls: dict[asyncio.Future[Any], None] = {}
        self._starting = False
        self._died: asyncio.Future[None] = world.loop.create_future()
        self._clock: SimulatedClock | None = None
        self._skew_milliseconds = 0
        self.to_store = Link()
        self.to_broker = Link()
        self.runtime: Runtime | None = None
        if "clock_skewed" in world.rates:
            world.suffered("clock_skewed")
            apart = Random(f"{world.seed}/skew/{name}").uniform(-SKEW_SECONDS, SKEW_SECONDS)
            self._skew_milliseconds = int(apart * 1000)

    @property
    def host(self) -> tuple[str, int]:
        """The incarnation that runs now."""
        return (self._name, self._incarnation)

    async def start(self) -> None:
        """Start a new incarnation; when its start fails because of a fault, the next one is tried."""
        self._starting = True
        while True:
            self._incarnation += 1
            try:
                runtime = await self._done_by(self.host, self._start(self._incarnation))
            except BackendError:
                runtime = None
                self._world.happened["start_failed"] += 1
                self._world.loop.kill(self.host)
            if runtime is not None:
                self.runtime = runtime
                self._starting = False
                return
            await asyncio.sleep(1)

    async def _done_by(self, host: tuple[str, int], work: Coroutine[Any, Any, Result]) -> Result | None:
        """What a host comes to; None when it dies before."""
        task = self._world.loop.create_task_of(host, work)
        self._died = self._world.loop.create_future()
        await asyncio.wait([task, self._died], return_when=asyncio.FIRST_COMPLETED)
        return None if self._died.done() else task.result()

    async def _start(self, incarnation: int) -> Runtime:
        world = self._world
        distributed = self._settings.backend == "distributed"
        self._clock = SimulatedClock(world, f"{self._name}-{incarnation}", self._skew_milliseconds)
        runtime = Runtime(
            self._settings,
            store=SimulatedStore(world, self._disk, self.to_store),  # type: ignore[arg-type]
            transport=SimulatedTransport(world),
            broker=SimulatedBroker(world, self._server, self.to_broker) if distributed else None,  # type: ignore[arg-type]
            clock=self._clock,
            catalogue=self._catalogue,
            run_isolated=partial(run_isolated, world, lambda: self._catalogue),
        )
        await runtime.start()
        return runtime

    async def pause(self, seconds: float) -> None:
        """SIGSTOP, and later SIGCONT."""
        host = self.host
        self._world.note(f"pause {host} for {seconds:.2f} s")
        self._world.loop.pause(host)
        await asyncio.sleep(seconds)
        self._world.note(f"resume {host}")
        if self._world.loop.resume(host):
            self._world.suffered("pause")

    def step_clock(self, seconds: float) -> None:
        """Somebody sets the wall clock of the machine."""
        assert self._clock is not None
        self._world.note(f"the clock of {self.host} is set {seconds:+.1f} s from the true time")
        self._skew_milliseconds = self._clock.step_milliseconds = int(seconds * 1000)

    def kill(self) -> None:
        """kill -9."""
        self._world.note(f"kill {self.host}")
        self._world.loop.kill(self.host)
        self._check_sanity()
        self.runtime = None
        if not self._died.done():
            self._died.set_result(None)
        for call in self._calls:
            if not call.done():
                call.set_exception(ConnectionLost())
        self._calls.clear()

    def _check_sanity(self) -> None:
        """Faults are no reason for what nobody can explain, or to give up on an execution."""
        if self.runtime is None:
            return
        if self.runtime.agent_faults and "broker_stumbles" not in self._world.rates:
            self._world.violated(f"I25 an agent of {self.host} failed in a way that nobody can explain")
        if self.runtime.owner is not None and self.runtime.owner.set_aside:
            self._world.violated(f"I1 {self.host} has set aside {self.runtime.owner.set_aside}")

    def crash(self) -> None:
        """A handler has taken the process along; whoever looks after it starts it again."""
        self.kill()
        self._world.loop.create_task_of(("supervisor", 0), self._start_again())

    async def _start_again(self) -> None:
        await asyncio.sleep(self._world.faults.random() * 4)
        if self.runtime is None and not self._starting:
            await self.start()

    async def stop(self) -> None:
        """SIGTERM, and what the process makes of it."""
        runtime, self.runtime = self.runtime, None
        assert runtime is not None
        await self._done_by(self.host, runtime.stop())
        self.kill()

    async def call(self, request: Callable[[Engine], Awaitable[Result]]) -> Result:
        """A request that the process serves; `ConnectionLost` when it dies before it has answered."""
        if self.runtime is None:
            raise ConnectionLost
        answer: asyncio.Future[Result] = self._world.loop.create_future()
        self._calls[answer] = None
        self._world.loop.create_task_of(self.host, self._serve(self.runtime.engine, request, answer))
        try:
            return await answer
        finally:
            self._calls.pop(answer, None)

    @staticmethod
    async def _serve(
        engine: Engine, request: Callable[[Engine], Awaitable[Result]], answer: asyncio.Future[Result]
    ) -> None:
        try:
            result = await request(engine)
        except Exception as error:
            if not answer.done():
                answer.set_exception(error)
        else:
            if not answer.done():
                answer.set_result(result)

    @property
    def is_api(self) -> bool:
        """Whether users find it."""
        return "api" in self._settings.runtime_roles

    @property
    def owner_failed(self) -> bool:
        """Whether the owner has ended although nobody asked it to."""
        return self.runtime is not None and not self.runtime.is_healthy()

    def may_start(self, partition: int) -> bool:
        """Whether it may start something of a partition, as its owner."""
        return self.runtime is not None and self.runtime.leases.may_start(partition)


async def torment(world: World, process: Process, lease_seconds: float, until: float) -> None:
    """Kill, restart and pause the process as drawn, and turn its clock, until then."""
    random = world.faults
    while world.loop.time() < until:
        await asyncio.sleep(random.random() * 8)
        if process.owner_failed:
            world.violated("I25 the owner ended by itself")
            process.kill()
        elif process.runtime is None:
            continue  # a handler has taken it along, and it is on its way back
        elif world.strikes("crash"):
            process.kill()
        elif world.strikes("graceful_restart"):
            await process.stop()
        elif world.draws("pause"):
            await process.pause(random.choice([0.5, 1.5, 5.0]) * lease_seconds * (0.5 + random.random() / 2))
            continue
        elif world.strikes("clock_stepped"):
            process.step_clock(random.uniform(-SKEW_SECONDS, SKEW_SECONDS))
            continue
        else:
            continue
        await asyncio.sleep(random.random() * 4)
        if process.runtime is None:
            await process.start()


async def disconnect(world: World, link: Link, server: str, lease_seconds: float) -> None:
    """Break the way to a server as drawn, one way or both, until the quiet end."""
    random = world.faults
    while not world.quiet:
        await asyncio.sleep(random.random() * 20)
        link.is_cut = world.draws(f"cut_from_{server}")
        link.is_unheard = not link.is_cut and world.draws(f"unheard_by_{server}")
        if link.is_cut or link.is_unheard:
            world.note(f"a way to the {server} is {'cut' if link.is_cut else 'open in one direction only'}")
            await asyncio.sleep(random.choice([0.2, 1.0, 2.0]) * lease_seconds * random.random())
            link.is_cut = link.is_unheard = False
