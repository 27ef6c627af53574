"""What the API is given beside the engine."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from ...plugins.offers import NamedRoute
from ...plugins.values import ApiCaller, ApiRequest
from ..broker import BrokerHealth
from ..core.deliveries import Replicas
from ..core.limits import MAX_DEFINITION_BYTES, MAX_INPUT_BYTES
from ..core.machine import Execution
from ..ports import Store

Authenticate = Callable[[ApiRequest], Awaitable[ApiCaller | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    """How the API behaves. The defaults suit a test: no keys, any host.

    `own_host`: the loopback address that it listens on, if it is one (see `Access`). `show_faults`: the
    answer to a fault of the engine names the exception. `authenticate` asks plugins who sends a request that needs a
    key; None when none of them can tell.
    """

    keys_required: bool = False
    own_host: str | None = None
    max_concurrent_requests: int = 1000
    request_timeout_seconds: float = 30.0
    max_definition_bytes: int = MAX_DEFINITION_BYTES
    max_input_bytes: int = MAX_INPUT_BYTES
    show_faults: bool = False
    plugin_routes: Sequence[NamedRoute] = ()
    authenticate: Authenticate | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSources:
    """Where the routes about this process and the other replicas get their words from.

    `accepting`: whether writes are taken. `read_heartbeats`: of every replica; None without a broker.
    `read_checkpoints`: what every replica has last written to the store of itself, and this one says now. What is older
    than `heartbeat_timeout_seconds` or `checkpoint_timeout_seconds` is a dead replica's. `broker_health`: None without
    one. `on_postgres`: whether the store is PostgreSQL.

    Of the role orchestrator: `owner_works`, whether the owner of the executions is at work, None without the role;
    `set_aside`, how many executions it cannot go on with; `owned`, how many partitions are this process's; `live`, an
    execution that it has in memory; `unserved`, by handler that no live process has, how many of its nodes wait;
    `queued`, by handler, how many of its attempts wait for whoever runs them.

    Of the role worker: `held_up`, the handlers of which more wait here than may start; `progress`, what an attempt of
    an execution's node that runs here says of itself.

    `plugins_left_out`: those that this process does without because they cannot be used.
    """

    store: Store
    accepting: Callable[[], bool]
    read_checkpoints: Callable[[], Awaitable[Replicas]]
    checkpoint_timeout_seconds: float
    read_heartbeats: Callable[[], Awaitable[Replicas]] | None = None
    heartbeat_timeout_seconds: float = math.inf
    broker_health: Callable[[], Awaitable[BrokerHealth]] | None = None
    on_postgres: bool = False
    owner_works: Callable[[], bool] | None = None
    set_aside: Callable[[], int] = lambda: 0
    owned: Callable[[], int] = lambda: 0
    live: Callable[[str], Execution | None] = lambda _execution_id: None
    unserved: Callable[[], Mapping[str, int]] = dict
    plugins_left_out: Sequence[str] = ()
    queued: Callable[[], Mapping[str, int]] = dict
    held_up: Callable[[], Collection[str]] = tuple
    progress: Callable[[str, int], float | str | None] = lambda _execution_id, _node: None
