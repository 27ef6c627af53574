"""One simulated world: its seed, its random streams, its clock, its faults and what happened."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from simulator.loop import SimulatedLoop
from workflow_engine.runtime.clock import format_uuid7

EPOCH_MILLISECONDS = 1_790_000_000_000


@dataclass
class FaultRates:
    """Which faults this world has, and how likely each is at every chance. Drawn per seed."""

    crash: float = 0.0
    graceful_restart: float = 0.0
    store_unavailable: float = 0.0
    store_outcome_unknown: float = 0.0
    store_lands_late: float = 0.0
    store_slow: float = 0.0
    wake_up_lost: float = 0.0
    outcome_doubled: float = 0.0
    outcome_late: float = 0.0
    pause: float = 0.0
    broker_unavailable: float = 0.0
    broker_outcome_unknown: float = 0.0
    broker_slow: float = 0.0
    broker_stopped: float = 0.0
    broker_wiped: float = 0.0
    broker_cut: float = 0.0
    broker_stumbles: float = 0.0
    news_lost: float = 0.0

    @classmethod
    def draw(cls, random: Random) -> FaultRates:
        """Each fault is on in half of the worlds, and then as likely as drawn."""

        def rate(most: float) -> float:
            return random.random() * most if random.random() < 0.5 else 0.0

        return cls(
            crash=rate(0.5),
            graceful_restart=rate(0.3),
            store_unavailable=rate(0.2),
            store_outcome_unknown=rate(0.15),
            store_lands_late=rate(0.3),
            store_slow=rate(0.2),
            wake_up_lost=rate(0.5),
            outcome_doubled=rate(0.4),
            outcome_late=rate(0.3),
            pause=rate(0.5),
            broker_unavailable=rate(0.2),
            broker_outcome_unknown=rate(0.15),
            broker_slow=rate(0.1),
            broker_stopped=rate(0.3),
            broker_wiped=rate(0.5),
            broker_cut=rate(0.3),
            news_lost=rate(0.5),
            broker_stumbles=rate(0.15),
        )


class World:
    """The streams of chance are apart, so that one draw more in one does not reshuffle the others."""

    def __init__(
        self, seed: int, *, topology: str = "embedded", with_faults: bool = True, with_crashes: bool = True
    ) -> None:
        self.seed = seed
        self.with_crashes = with_crashes
        self.topology = topology
        self.loop = SimulatedLoop(Random(f"{seed}/scheduler"))
        self.workload = Random(f"{seed}/workload")
        self.faults = Random(f"{seed}/faults")
        self.rates = FaultRates.draw(Random(f"{seed}/rates")) if with_faults else FaultRates()
        self.quiet = False
        self.happened: Counter[str] = Counter()
        self.events: deque[str] = deque(maxlen=60)
        self.violations: list[str] = []
        self.starts: Counter[tuple[str, str, int]] = Counter()
        """How often each attempt was started, by whomever."""
        self.crashes: Counter[tuple[str, str, int]] = Counter()
        """How many processes each attempt has taken with it."""
        self.kill_host: Callable[[tuple[str, int]], None] = lambda host: None
        self.running: set[tuple[str, str, int, tuple[str, int]]] = set()

    def strikes(self, fault: str) -> bool:
        """Whether the fault happens now; counted when it does. Never in the quiet end."""
        rate: float = getattr(self.rates, fault)
        if self.quiet or not rate or self.faults.random() >= rate:
            return False
        self.happened[fault] += 1
        self.note(f"fault {fault}")
        return True

    def note(self, event: str) -> None:
        """Remember an event for the report of a failing seed."""
        self.events.append(f"{self.loop.time():10.4f} {event}")

    def violated(self, what: str) -> None:
        """An invariant does not hold."""
        self.violations.append(f"{self.loop.time():.4f} {what}")
        self.note(f"VIOLATION {what}")


class SimulatedClock:
    """Virtual time, and identifiers and chance from the seed."""

    def __init__(self, world: World, stream: str) -> None:
        self._loop = world.loop
        self.step_milliseconds = 0
        """How far the wall clock was set on, or back."""
        self._random = Random(f"{world.seed}/clock/{stream}")

    def now(self) -> int:
        return EPOCH_MILLISECONDS + int(self._loop.time() * 1000) + self.step_milliseconds

    def monotonic(self) -> float:
        return self._loop.time()

    def chance(self) -> float:
        return self._random.random()

    def new_id(self) -> str:
        return format_uuid7(self.now(), self._random.getrandbits(80))


def describe(world: World, error: Any) -> str:
    """What to print for a failing seed: enough to run it again and to see what led there."""
    lines = [f"seed {world.seed}, {world.topology}, failed: {error}", f"rates: {world.rates}", "last events:"]
    return "\n".join([*lines, *world.events, *world.violations])
