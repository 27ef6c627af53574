"""What the API is given beside the engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..core.limits import MAX_DEFINITION_BYTES, MAX_INPUT_BYTES
from ..ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    """How the API behaves. The defaults suit a test: no keys, any host.

    `own_host`: the loopback address that it listens on, if it is one (see `Access`). `show_faults`: the
    answer to a fault of the engine names the exception.
    """

    keys_required: bool = False
    own_host: str | None = None
    max_concurrent_requests: int = 1000
    request_timeout_seconds: float = 30.0
    max_definition_bytes: int = MAX_DEFINITION_BYTES
    max_input_bytes: int = MAX_INPUT_BYTES
    show_faults: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSources:
    """Where the health report gets its words from.

    `owner_works`: whether the owner of the executions is at work; `set_aside`: how many executions it
    cannot go on with; `owned`: how many partitions are this process's; `accepting`: whether writes are taken;
    `slots`: how many attempts run at a time; `on_postgres`: whether the store is PostgreSQL.
    """

    store: Store
    owner_works: Callable[[], bool]
    set_aside: Callable[[], int]
    owned: Callable[[], int]
    accepting: Callable[[], bool]
    slots: int
    on_postgres: bool = False
