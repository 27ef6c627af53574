"""The composition root: builds every part, starts and stops them in order.

Benchmarks and the simulation build their runtimes here too, with another store, clock or handlers,
and otherwise the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..config import Settings, check_supported
from ..plugins.discovery import Catalogue, discover
from . import failpoints
from .clock import Clock, SystemClock
from .core.graph import NodeDefaults
from .core.retry import RetryPolicy
from .definitions import Definitions
from .engine import Engine
from .graphs import Graphs
from .known_handlers import KnownHandlers
from .orchestrator.leases import Leases
from .orchestrator.owner import Owner
from .orchestrator.retention import Retention
from .ports import Store, Transport
from .store.sqlite import SqliteStore
from .transport.local import LocalTransport
from .worker.announcer import Announcer
from .worker.egress import SharedSession
from .worker.pool import WorkerPool

if TYPE_CHECKING:
    from .store.postgres_connections import PostgresAddress
    from .transport.redis_connections import RedisAddress

log = logging.getLogger(__name__)

POSTGRES_TIMEOUT_SECONDS = 10.0
"""Of a statement, and of the wait for a connection."""


class Runtime:
    """One process's parts, built and wired but not started: `start`, then `stop`, once each."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store | None = None,
        transport: Transport | None = None,
        clock: Clock | None = None,
        catalogue: Catalogue | None = None,
        plugins: Iterable[object] = (),
    ) -> None:
        check_supported(settings)
        failpoints.configure(settings.failpoints)
        self.settings = settings
        self.clock = clock or SystemClock()
        self.catalogue = catalogue or discover(plugin_settings(settings), plugins)
        self.store: Store = store or build_store(settings, self.clock)
        self.transport: Transport = transport or LocalTransport()
        self.replica = self.clock.new_id()
        self._http = SharedSession(allow_private=settings.allow_private_addresses)
        graphs = Graphs(self.store, node_defaults(settings))
        alone = settings.backend == "embedded"
        leases = Leases(
            store=self.store,
            clock=self.clock,
            replica=self.replica,
            lease_seconds=math.inf if alone else settings.orchestrator_stale_result_timeout,
            interval_seconds=math.inf if alone else settings.orchestrator_stale_claim_interval,
        )
        self.pool = WorkerPool(
            concurrency=settings.worker_concurrency,
            handlers=self.catalogue,
            clock=self.clock,
            hand_in=self.transport.hand_in,
            on_start=lambda execution_id: self.transport.publish((execution_id,)),
            may_start=leases.may_start,
            http=self._http.get,
            max_output_bytes=settings.max_node_output_bytes,
        )
        self.owner = Owner(
            leases=leases,
            store=self.store,
            transport=self.transport,
            pool=self.pool,
            graphs=graphs,
            clock=self.clock,
        )
        self.announcer = Announcer(store=self.store, clock=self.clock, handlers=self.catalogue.records)
        self.engine = Engine(
            store=self.store,
            transport=self.transport,
            graphs=graphs,
            definitions=Definitions(
                store=self.store,
                graphs=graphs,
                handlers=self._known_handlers(),
                clock=self.clock,
                max_bytes=settings.max_definition_bytes,
            ),
            clock=self.clock,
            live=self.owner.live,
            max_input_bytes=settings.max_input_bytes,
        )
        self.retention = Retention(
            store=self.store,
            clock=self.clock,
            ended_days=settings.retention_days,
            claim_hours=settings.idempotency_key_hours,
        )
        self._owning: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the store, start the worker pool, own the partition. Raises `SetupError` when it cannot."""
        await self.store.open()
        self.pool.start()
        self._owning = asyncio.get_running_loop().create_task(self.owner.run(), name="owner")
        ready = asyncio.get_running_loop().create_task(self.owner.ready.wait())
        await asyncio.wait([ready, self._owning], return_when=asyncio.FIRST_COMPLETED)
        if self._owning.done():
            ready.cancel()
            await self._owning
        for agent in (self.retention, self.announcer):
            self._background.append(asyncio.get_running_loop().create_task(agent.run(), name=type(agent).__name__))

    async def failed(self) -> None:
        """Return only when the owner has ended before it was told to; raises what ended it."""
        assert self._owning is not None
        await asyncio.shield(self._owning)

    async def stop(self) -> None:
        """Take nothing more, let running attempts finish, commit, close. Never waits for a handler that hangs."""
        self.engine.stop_accepting()
        for task in self._background:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background)
        await self.pool.stop(self.settings.worker_graceful_shutdown_timeout)
        self.owner.stop()
        if self._owning is not None:
            await asyncio.wait([self._owning])
            if not self._owning.cancelled() and self._owning.exception() is not None:
                log.error("the owner ended with an error", exc_info=self._owning.exception())
        await self._http.close()
        await self.store.close()

    def is_healthy(self) -> bool:
        """Whether the owner is at work."""
        return self._owning is not None and not self._owning.done()

    def _known_handlers(self) -> KnownHandlers:
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


def postgres_address(settings: Settings) -> PostgresAddress:
    """Where PostgreSQL is, by the settings."""
    from .store.postgres_connections import PostgresAddress

    return PostgresAddress(
        settings.postgres_host,
        settings.postgres_port,
        settings.postgres_user,
        settings.postgres_password.get_secret_value(),
        settings.postgres_database,
        None if settings.postgres_url is None else settings.postgres_url.get_secret_value(),
    )


def redis_address(settings: Settings) -> RedisAddress:
    """Where Redis is, by the settings."""
    from .transport.redis_connections import RedisAddress

    password, url = settings.redis_password, settings.redis_url
    return RedisAddress(
        settings.redis_host,
        settings.redis_port,
        settings.redis_db,
        None if password is None else password.get_secret_value(),
        None if url is None else url.get_secret_value(),
    )


def build_store(settings: Settings, clock: Clock) -> Store:
    """The store of the backend that the settings name."""
    if settings.backend == "embedded":
        return SqliteStore(settings.sqlite_path, clock, skip_migrations=settings.skip_migrations)
    # Imported where it is used: the driver takes a moment, and an embedded process has no use for it.
    from .store.postgres import PostgresStore

    return PostgresStore(
        postgres_address(settings),
        clock,
        pool_size=settings.postgres_pool_size,
        timeout_seconds=POSTGRES_TIMEOUT_SECONDS,
        owner_timeout_seconds=min(POSTGRES_TIMEOUT_SECONDS, settings.orchestrator_stale_result_timeout / 3),
        partitions=settings.partitions,
        skip_migrations=settings.skip_migrations,
    )


def node_defaults(settings: Settings) -> NodeDefaults:
    """What nodes get where their definition is silent, by the settings."""
    policy = RetryPolicy(
        settings.retry_max_retries,
        settings.retry_initial_delay,
        settings.retry_max_delay,
        settings.retry_exponential_base,
        settings.retry_jitter,
    )
    return NodeDefaults(policy, settings.handler_timeout_seconds)


def plugin_settings(settings: Settings) -> dict[str, object]:
    """The settings as plugins see them: by lower-case name, secrets as text."""
    secret = settings.llm_api_key
    return {**settings.model_dump(), "llm_api_key": secret.get_secret_value() if secret else None}
