"""When a replica looks at the partitions next."""

from __future__ import annotations

import pytest

from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.shares import Look
from workflow_engine.runtime.orchestrator.leases import Leases
from workflow_engine.runtime.store.memory import MemoryStore

NOW = 1_000.0
INTERVAL = 15.0


class StoppedClock(SystemClock):
    """A clock that stands still."""

    def monotonic(self) -> float:
        return NOW


class Store(MemoryStore):
    """In memory; calls `calls` while it is looked at."""

    def __init__(self) -> None:
        super().__init__(2, lambda: NOW, shared=True)
        self.calls: Leases | None = None

    async def look(self, replica: str, lease_seconds: float) -> Look:
        found = await super().look(replica, lease_seconds)
        if self.calls is not None:
            self.calls.look_now()
        return found


@pytest.fixture
def store() -> Store:
    """A store of two partitions that nobody owns."""
    return Store()


def leases(store: Store, lease_seconds: float) -> Leases:
    return Leases(
        store=store,
        clock=StoppedClock(),
        replica="a",
        lease_seconds=lease_seconds,
        interval_seconds=INTERVAL,
        tell=lambda: None,
    )


@pytest.mark.parametrize(("lease_seconds", "wait_seconds"), [(60.0, INTERVAL), (30.0, INTERVAL), (2.0, 1.0)])
async def test_who_is_alive_looks_twice_within_a_lease(store: Store, lease_seconds: float, wait_seconds: float) -> None:
    """The others count those whose last look is no older than a lease."""
    of_a = leases(store, lease_seconds)
    attended = await of_a.attend()
    assert (attended.taken, of_a.next_look) == ([0, 1], NOW + wait_seconds)


async def test_a_call_that_comes_during_a_look_is_not_forgotten(store: Store) -> None:
    of_a = leases(store, 30.0)
    store.calls = of_a
    await of_a.attend()
    assert of_a.next_look == 0.0
    store.calls = None
    await of_a.attend()
    assert of_a.next_look == NOW + INTERVAL
