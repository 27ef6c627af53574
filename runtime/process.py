"""The composition root: builds every part, starts and stops them in order.

Benchmarks and the simulation build their runtimes here too, with another store, clock or handlers,
and otherwise the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial

from .. import __version__
from ..config import Settings, check_supported
from ..config.kinds import Role
from ..plugins.discovery import Catalogue, discover
from . import failpoints
from .broker import Broker
from .clock import Clock, SystemClock
from .core.backoff import Backoff
from .core.deliveries import DeliveryKey, Heartbeat, Replicas, alive
from .core.machine import Execution
from .core.shares import partition_of
from .core.state import WorkflowState
from .definitions import Definitions
from .engine import Engine
from .errors import BrokerUnavailable
from .graphs import Graphs
from .known_handlers import KnownHandlers
from .orchestrator.deliveries import Deliveries
from .orchestrator.leases import Leases
from .orchestrator.owner import CUT_OFF_SWEEP_SECONDS, SWEEP_SECONDS, Owner
from .orchestrator.retention import Retention
from .parts import (
    build_broker,
    build_gates,
    build_hooks,
    build_isolation,
    build_limited,
    build_process_lane,
    build_store,
    node_defaults,
    plugin_settings,
    served_handlers,
    stale_timeouts,
)
from .ports import Store, Transport
from .transport.checkpoints import Checkpoints
from .transport.heartbeats import Heartbeats
from .transport.local import LocalTransport
from .transport.shared import SharedTransport
from .watchdog import Watchdog
from .worker.announcer import Announcer
from .worker.egress import SharedSession
from .worker.pool import RunIsolated, WorkerPool
from .worker.taker import Taker
from .worker.tools import make_tools

log = logging.getLogger(__name__)

HOT_SECONDS = 0.25
"""How old what is shown of other replicas may be."""
HOT_TIMEOUT_SECONDS = 0.5
HOT_AGAIN_SECONDS = 2.0
"""How long it is shown and how long it is not asked for again, when the broker does not answer."""
ANNOUNCE_SECONDS = 1.0
FLUSH_SECONDS = 5.0
AGENT_BACKOFF_SECONDS = (0.1, 5.0)
LEAST_BLOCK_SECONDS = 10.0
"""No process ends because its event loop was blocked for less: a machine may be that busy."""


class Runtime:
    """One process's parts, built and wired but not started: `start`, then `stop`, once each."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | None = None,
        transport: LocalTransport | None = None,
        broker: Broker | None = None,
        clock: Clock | None = None,
        catalogue: Catalogue | None = None,
        plugins: Iterable[object] = (),
        run_isolated: RunIsolated | None = None,
    ) -> None:
        """What is not given is built by the settings. `broker` is for the backend `distributed`, `transport` for the
        others."""
        check_supported(settings)
        failpoints.configure(settings.failpoints)
        self.settings = settings
        self.clock = clock or SystemClock()
        self.replica = settings.replica_id or self.clock.new_id()
        self.catalogue = catalogue or discover(plugin_settings(settings), plugins)
        for notice in self.catalogue.notices:
            log.warning("%s", notice)
        self.hooks = build_hooks(settings, self.catalogue, self.replica)
        self.handlers = served_handlers(settings, self.catalogue)
        self.store: Store = store or build_store(settings, self.clock)
        self.broker = build_broker(settings) if broker is None and settings.backend == "distributed" else broker
        self.shared = None if self.broker is None else SharedTransport(self.broker, self._partition_of)
        self.transport: Transport = self.shared or transport or LocalTransport()
        self.known_handlers = self._build_known_handlers()
        self.graphs = Graphs(self.store, node_defaults(settings), self.known_handlers.declared)
        self.leases = self._build_leases()
        self.heartbeats = None if self.broker is None else self._build_heartbeats(self.broker)
        self.checkpoints = self._build_checkpoints()
        self._http = SharedSession(allow_private=settings.allow_private_addresses)
        self._isolation = build_isolation(settings)
        self.limited = build_limited(settings, self.handlers, self.broker, self.clock)
        if self.shared is not None:
            self.shared.on_permits = self.limited.hear
        self._process_lane = build_process_lane(settings)
        self.pool = self._build_pool(run_isolated or self._isolation.run)
        self.deliveries = self._build_deliveries()
        self.owner = self._build_owner() if self.has_role("orchestrator") else None
        self.taker = self._build_taker()
        self.engine = self._build_engine()
        self.retention = Retention(
            store=self.store,
            clock=self.clock,
            ended_days=settings.retention_days,
            claim_hours=settings.idempotency_key_hours,
        )
        self.watchdog = self._build_watchdog()
        self.agent_faults = 0
        """How often a part of this process has failed in a way that nobody can explain."""
        self._started_at = self.clock.now()
        self._owning: asyncio.Task[None] | None = None
        self._agents: list[asyncio.Task[None]] = []
        self._stopping = False
        self._hot_again_at = 0.0

    def has_role(self, role: Role) -> bool:
        """Whether this process does that."""
        return role in self.settings.runtime_roles

    def describe(self) -> Heartbeat:
        """What this process says of itself."""
        slots = self.settings.worker_concurrency if self.has_role("worker") and not self._stopping else 0
        takes = self.taker is None or not self.taker.store_is_away
        busy = self.pool.running_count + self.pool.ready_count
        running = [DeliveryKey(*each) for each in self.pool.attempts_in_hand]
        in_hand = [] if self.shared is None else self.shared.in_hand
        ended = [] if self.owner is None else self.owner.in_hand
        return Heartbeat(
            replica=self.replica,
            roles=self.settings.runtime_roles,
            handlers=sorted(self.handlers),
            slots=slots,
            free_slots=max(0, slots - busy) if takes else 0,
            partitions=len(self.leases.versions),
            host=socket.gethostname(),
            version=__version__,
            started_at=self._started_at,
            attempts=list(dict.fromkeys([*running, *in_hand, *ended])),
        )

    async def start(self) -> None:
        """Open everything, start what the roles ask for, own what is to be owned. Raises `SetupError`."""
        await self.store.open()
        if self.broker is not None:
            await self.broker.open()
        await self.hooks.lifetimes.start()
        if self.has_role("worker"):
            self.pool.start()
        if self.shared is not None and self.heartbeats is not None:
            # Said before anything is owned: a process that comes back under its name has nothing of before in hand.
            await self._announce()
            self._run("transport", self.shared.run)
            self._run("heartbeats", self.heartbeats.run)
        for name, limited in self.limited.by_name.items():
            self._run(f"limits of {name}", limited.run)
        if self.taker is not None:
            self._run("taker", self.taker.run)
        if self.has_role("worker"):
            served = [record for record in self.catalogue.records if record.name in self.handlers]
            self._run("announcer", Announcer(store=self.store, clock=self.clock, handlers=served).run)
        if self.owner is not None:
            await self._start_owner(self.owner)
        if self.settings.backend != "embedded":
            self._run("checkpoints", self.checkpoints.run)

    async def _start_owner(self, owner: Owner) -> None:
        self._run("deliveries", self.deliveries.run)
        self._owning = asyncio.get_running_loop().create_task(owner.run(), name="owner")
        ready = asyncio.get_running_loop().create_task(owner.ready.wait())
        await asyncio.wait([ready, self._owning], return_when=asyncio.FIRST_COMPLETED)
        if self._owning.done():
            ready.cancel()
            await self._owning
        self._run("retention", self.retention.run)

    async def failed(self) -> None:
        """Return only when the owner has ended before it was told to; raises what ended it."""
        if self._owning is None:
            await asyncio.get_running_loop().create_future()
        else:
            await asyncio.shield(self._owning)

    async def stop(self) -> None:
        """Take nothing more, let running attempts finish, commit, close. Never waits for a handler that hangs.

        What others can go on with is handed over at once; without them, when what runs has ended.
        """
        self._stopping = True
        self.engine.stop_accepting()
        grace_seconds = self.settings.worker_graceful_shutdown_timeout
        if self.shared is None:
            await self.pool.stop(grace_seconds)
            await self._stop_owner()
        else:
            self.pool.stop_starting()
            if self.taker is not None:
                await self.taker.stop()
            await self._stop_owner()
            await self.pool.stop(grace_seconds)
            await self._take_leave(self.shared)
        for agent in self._agents:
            agent.cancel()
        if self._agents:
            await asyncio.wait(self._agents)
        await self.checkpoints.leave()
        await self.hooks.lifetimes.stop()
        await asyncio.gather(self._isolation.close(), self._process_lane.close())
        await self._http.close()
        if self.broker is not None:
            await self.broker.close()
        await self.store.close()

    async def _stop_owner(self) -> None:
        if self.owner is None or self._owning is None:
            return
        self.owner.stop()
        await asyncio.wait([self._owning])
        if not self._owning.cancelled() and self._owning.exception() is not None:
            log.error("the owner ended with an error", exc_info=self._owning.exception())

    async def _take_leave(self, shared: SharedTransport) -> None:
        """Hand in what has ended, give back what has not, and tell the others that nothing is in hand here."""
        assert self.broker is not None
        if self.taker is not None:
            await self.taker.close()
        await asyncio.gather(*(limited.leave() for limited in self.limited.by_name.values()))
        if not await shared.flush(FLUSH_SECONDS):
            log.warning("outcomes are left behind: their attempts will run again elsewhere")
        with suppress(BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(ANNOUNCE_SECONDS):
                await self.broker.retire(self.replica)

    def is_healthy(self) -> bool:
        """Whether the owner is at work, if there is one."""
        return self.owner is None or (self._owning is not None and not self._owning.done())

    def _run(self, name: str, agent: Callable[[], Awaitable[None]]) -> None:
        self._agents.append(asyncio.get_running_loop().create_task(self._keep_running(name, agent), name=name))

    async def _keep_running(self, name: str, agent: Callable[[], Awaitable[None]]) -> None:
        """Run an agent to its end. A fault that nobody can explain costs a moment, not the agent."""
        backoff = Backoff(*AGENT_BACKOFF_SECONDS)
        while True:
            try:
                await agent()
                return
            except Exception:
                seconds = backoff.next_seconds()
                log.exception("%s failed; it starts again in %g s", name, seconds)
                self.agent_faults += 1
                await asyncio.sleep(seconds)

    def _partition_of(self, execution_id: str) -> int:
        return partition_of(execution_id, self.store.partitions)

    def _may_start(self, execution: Execution) -> bool:
        if execution.permitted_until is not None:
            return self.clock.monotonic() < execution.permitted_until
        return self.leases.may_start(execution.partition)

    def _note_start(self, execution_id: str) -> None:
        self.transport.publish((execution_id,))
        if self.heartbeats is not None:
            self.heartbeats.note_start()

    def _note_finished(self, execution: Execution) -> None:
        if execution.state is WorkflowState.FAILED:
            log.info("execution %s failed: %s", execution.execution_id, execution.error)
        if self.hooks.executions is not None:
            self.hooks.executions(execution)

    async def _announce(self) -> bool:
        """Tell the others what runs here."""
        if self.heartbeats is None:
            return False
        with suppress(BrokerUnavailable, TimeoutError):
            async with asyncio.timeout(ANNOUNCE_SECONDS):
                await self.heartbeats.beat()
                return True
        return False

    def _note_replicas(self, replicas: Replicas) -> None:
        assert self.shared is not None
        others = alive(replicas, round(self.settings.worker_heartbeat_timeout * 1000))
        self.shared.alone = not any(each.replica != self.replica for each in others)
        self.deliveries.note_replicas(replicas)

    def _note_owners(self, replicas: Collection[str]) -> None:
        """Others have come, or have handed something over: what is to be owned here is looked at now."""
        if any(each != self.replica for each in replicas):
            self.leases.look_now()
            self.transport.nudge()

    async def _others(self) -> Sequence[Heartbeat]:
        """What the live replicas say of themselves; nothing while that cannot be read."""
        if self.heartbeats is None or self.clock.monotonic() < self._hot_again_at:
            return ()
        try:
            async with asyncio.timeout(HOT_TIMEOUT_SECONDS):
                replicas = await self.heartbeats.replicas(HOT_SECONDS)
        except (BrokerUnavailable, TimeoutError):
            self._hot_again_at = self.clock.monotonic() + HOT_AGAIN_SECONDS
            return ()
        return alive(replicas, round(self.settings.worker_heartbeat_timeout * 1000))

    def _build_leases(self) -> Leases:
        settings = self.settings
        alone = settings.backend == "embedded"
        return Leases(
            store=self.store,
            clock=self.clock,
            replica=self.replica,
            lease_seconds=math.inf if alone else settings.orchestrator_stale_result_timeout,
            interval_seconds=math.inf if alone else settings.orchestrator_stale_claim_interval,
            tell=(lambda: None) if self.shared is None else partial(self.shared.tell_of_owner, self.replica),
        )

    def _build_watchdog(self) -> Watchdog:
        """Whoever runs this process alone starts it. A process ends by it where others can take over."""
        settings = self.settings
        lost_seconds = max(settings.orchestrator_stale_result_timeout, settings.worker_heartbeat_timeout)
        return Watchdog(
            clock=self.clock,
            find_attempt=self.pool.attempt_in,
            limit_seconds=math.inf if settings.backend == "embedded" else max(lost_seconds, LEAST_BLOCK_SECONDS),
        )

    def _build_heartbeats(self, broker: Broker) -> Heartbeats:
        heartbeats = Heartbeats(
            broker=broker,
            clock=self.clock,
            describe=self.describe,
            interval_seconds=self.settings.worker_heartbeat_interval,
        )
        heartbeats.listeners.append(self._note_replicas)
        return heartbeats

    def _build_checkpoints(self) -> Checkpoints:
        return Checkpoints(
            store=self.store,
            clock=self.clock,
            describe=self.describe,
            interval_seconds=self.settings.orchestrator_checkpoint_interval,
        )

    def _build_pool(self, run_isolated: RunIsolated) -> WorkerPool:
        return WorkerPool(
            concurrency=self.settings.worker_concurrency,
            handlers=self.handlers,
            clock=self.clock,
            hand_in=self.transport.hand_in,
            on_start=self._note_start,
            may_start=self._may_start,
            run_isolated=run_isolated,
            tools=make_tools(
                http=self._http.get,
                secret=self.hooks.secrets.resolve,
                clock=self.clock,
                max_output_bytes=self.settings.max_node_output_bytes,
            ),
            gates=build_gates(self.settings, self.handlers, self.limited),
            run_in_process=self._process_lane.run,
            watch=self.hooks.attempts,
            limited=self.limited,
        )

    def _build_deliveries(self) -> Deliveries:
        settings = self.settings
        return Deliveries(
            pool=self.pool,
            broker=self.broker,
            clock=self.clock,
            replica=self.replica,
            partition_of=self._partition_of,
            heartbeat_timeout_seconds=settings.worker_heartbeat_timeout,
            look_interval_seconds=settings.worker_stale_claim_interval,
            stale_timeout_seconds=stale_timeouts(settings, self.known_handlers),
            unknown_handler_seconds=settings.unknown_handler_timeout,
            hand_in=self.transport.hand_in,
            nudge=self.transport.nudge,
        )

    def _build_owner(self) -> Owner:
        settings = self.settings
        # Where replicas share the work and cannot wake each other, the sweep is what starts others' executions.
        sweep_seconds = CUT_OFF_SWEEP_SECONDS if settings.backend == "postgres" else SWEEP_SECONDS
        owner = Owner(
            leases=self.leases,
            store=self.store,
            transport=self.transport,
            deliveries=self.deliveries,
            graphs=self.graphs,
            clock=self.clock,
            announce=self._announce,
            sweep_seconds=min(sweep_seconds, settings.orchestrator_recovery_timeout),
            recover_at_once=settings.worker_concurrency,
            on_finished=self._note_finished,
        )
        self.deliveries.find_execution = owner.live
        if self.shared is not None:
            self.shared.on_owners = self._note_owners
        return owner

    def _build_taker(self) -> Taker | None:
        if self.broker is None or self.shared is None or not self.has_role("worker"):
            return None
        taker = Taker(
            broker=self.broker,
            store=self.store,
            receipts=self.shared,
            pool=self.pool,
            graphs=self.graphs,
            clock=self.clock,
            replica=self.replica,
            handlers=self.handlers,
            slots=self.settings.worker_concurrency,
            partition_of=self._partition_of,
            permission_seconds=self.settings.orchestrator_stale_result_timeout / 3,
            check_seconds=self.settings.worker_heartbeat_interval,
        )
        self.shared.on_tasks = taker.hear
        self.shared.on_ended = taker.cancel
        return taker

    def _build_engine(self) -> Engine:
        settings = self.settings
        return Engine(
            store=self.store,
            transport=self.transport,
            graphs=self.graphs,
            definitions=Definitions(
                store=self.store,
                graphs=self.graphs,
                handlers=self.known_handlers,
                clock=self.clock,
                max_bytes=settings.max_definition_bytes,
            ),
            clock=self.clock,
            live=(lambda execution_id: None) if self.owner is None else self.owner.live,
            unserved=lambda: self.deliveries.unserved,
            others=self._others,
            max_input_bytes=settings.max_input_bytes,
        )

    def _build_known_handlers(self) -> KnownHandlers:
        return KnownHandlers(
            here=self.catalogue.records,
            config_checks=self.catalogue.config_checks,
            store=self.store,
            clock=self.clock,
            run_elsewhere=self.settings.backend == "distributed",
        )


@asynccontextmanager
async def running(build: Callable[[], Runtime]) -> AsyncIterator[Runtime]:
    """A started runtime, stopped at the end however it comes."""
    runtime = build()
    try:
        await runtime.start()
        yield runtime
    finally:
        await runtime.stop()
