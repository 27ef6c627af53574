"""One simulated world: its seed, its random streams, its clocks, its faults and what happened."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from random import Random

from simulator.loop import SimulatedLoop
from workflow_engine.runtime.clock import format_uuid7

EPOCH_MILLISECONDS = 1_790_000_000_000
SKEW_SECONDS = 120.0
"""How far the wall clocks of two machines may be apart, each way."""

FAULTS_OF_PROCESSES: Mapping[str, float] = {
    "crash": 0.5,
    "graceful_restart": 0.3,
    "pause": 0.5,
    "clock_stepped": 0.3,
    "cut_from_store": 0.4,
    "unheard_by_store": 0.3,
}
FAULTS_OF_THE_STORE: Mapping[str, float] = {
    "store_unavailable": 0.2,
    "store_outcome_unknown": 0.15,
    "store_lands_late": 0.3,
    "store_slow": 0.2,
    "store_stopped": 0.3,
    "store_crawls": 0.3,
}
FAULTS_OF_THE_TRANSPORT: Mapping[str, float] = {
    "wake_up_lost": 0.5,
    "outcome_doubled": 0.4,
    "outcome_late": 0.3,
}
FAULTS_OF_THE_BROKER: Mapping[str, float] = {
    "cut_from_broker": 0.4,
    "unheard_by_broker": 0.3,
    "broker_unavailable": 0.2,
    "broker_outcome_unknown": 0.15,
    "broker_slow": 0.1,
    "broker_stopped": 0.3,
    "broker_wiped": 0.5,
    "broker_rolled_back": 0.5,
    "broker_trimmed": 0.5,
    "broker_cut": 0.3,
    "broker_stumbles": 0.15,
    "delivery_doubled": 0.3,
    "news_lost": 0.5,
}
FAULTS: Mapping[str, float] = (
    FAULTS_OF_PROCESSES | FAULTS_OF_THE_STORE | FAULTS_OF_THE_TRANSPORT | FAULTS_OF_THE_BROKER | {"clock_skewed": 1.0}
)
"""What can go wrong, and how likely it is at every chance at most. Each is on in a part of the worlds."""
SHARES_OF_FAULTS = (0.15, 0.3, 0.5)


@dataclass
class Link:
    """The way of one process to the store or to the broker."""

    is_cut: bool = False
    """What is asked does not arrive."""
    is_unheard: bool = False
    """What is asked arrives and is done; the answers do not come through."""


class World:
    """The streams of chance are apart, so that one draw more in one does not reshuffle the others."""

    def __init__(
        self,
        seed: int,
        *,
        topology: str = "embedded",
        with_faults: bool = True,
        with_crashes: bool = True,
        without: Collection[str] = (),
    ) -> None:
        """`without`: faults that do not happen, and users (`user-0`) that do not come."""
        self.seed = seed
        self.with_crashes = with_crashes and "poison" not in without
        self.topology = topology
        self.without = frozenset(without)
        self.loop = SimulatedLoop(Random(f"{seed}/scheduler"))
        self.workload = Random(f"{seed}/workload")
        self.faults = Random(f"{seed}/faults")
        self.rates = self._draw_rates() if with_faults else {}
        self.quiet = False
        self.happened: Counter[str] = Counter()
        self.events: deque[str] = deque(maxlen=60)
        self.violations: list[str] = []
        self.led_there: list[str] = []
        self.starts: Counter[tuple[str, str, int]] = Counter()
        """How often each attempt was started, by whomever."""
        self.started_at: dict[tuple[str, str, int], float] = {}
        """When each attempt was started first, in true time."""
        self.crashes: Counter[tuple[str, str, int]] = Counter()
        """How many processes each attempt has taken with it."""
        self.kill_host: Callable[[tuple[str, int]], None] = lambda host: None
        self.who_may_start: Callable[[str], list[str]] = lambda execution_id: []
        """The processes that may start something of an execution now, by its partition's lease."""
        self.running: set[tuple[str, str, int, tuple[str, int]]] = set()
        self._hash = hashlib.sha256()

    def _draw_rates(self) -> Mapping[str, float]:
        """Which faults this world has, and how likely each is at every chance."""
        share = Random(f"{self.seed}/rates").choice(SHARES_OF_FAULTS)
        rates = {}
        for fault, most in FAULTS.items():
            random = Random(f"{self.seed}/rates/{fault}")
            if random.random() < share and fault not in self.without:
                rates[fault] = random.random() * most
        return rates

    def calm_down(self) -> None:
        """From now on nothing goes wrong."""
        if not self.quiet:
            self.quiet = True
            self.note("quiet")

    def draws(self, fault: str) -> bool:
        """Whether the fault is to happen now. Never in the quiet end."""
        rate = self.rates.get(fault)
        return rate is not None and not self.quiet and self.faults.random() < rate

    def strikes(self, fault: str) -> bool:
        """Whether the fault happens now; counted when it does."""
        if not self.draws(fault):
            return False
        self.suffered(fault)
        return True

    def suffered(self, fault: str) -> None:
        """A fault had its effect on somebody."""
        self.happened[fault] += 1
        self.note(f"fault {fault}")

    def note(self, event: str) -> None:
        """Remember an event for the report of a failing seed."""
        line = f"{self.loop.time():10.4f} {event}"
        self.events.append(line)
        self._hash.update(line.encode())

    def violated(self, what: str) -> None:
        """An invariant does not hold. What led to the first of them is kept."""
        self.violations.append(f"{self.loop.time():.4f} {what}")
        self.note(f"VIOLATION {what}")
        self.led_there = self.led_there or list(self.events)

    def fingerprint(self) -> str:
        """What two runs of the same seed have in common: every event, every count and every step."""
        counts = " ".join(f"{name}={count}" for name, count in sorted(self.happened.items()))
        ended = self._hash.copy()
        ended.update(f"{counts} {self.loop.steps}".encode())
        return ended.hexdigest()


class SimulatedClock:
    """Virtual time as one machine has it, and identifiers and chance from the seed."""

    def __init__(self, world: World, stream: str, skew_milliseconds: int = 0) -> None:
        self._world = world
        self.step_milliseconds = skew_milliseconds
        """How far the wall clock is ahead of the true time."""
        self._random = Random(f"{world.seed}/clock/{stream}")

    def now(self) -> int:
        return EPOCH_MILLISECONDS + int(self._world.loop.time() * 1000) + self.step_milliseconds

    def monotonic(self) -> float:
        return self._world.loop.time()

    def chance(self) -> float:
        return self._random.random()

    def new_id(self) -> str:
        return format_uuid7(self.now(), self._random.getrandbits(80))


def describe(world: World) -> str:
    """What to print for a failing seed: enough to run it again and to see what led there."""
    rates = ", ".join(f"{fault} {rate:.2f}" for fault, rate in world.rates.items())
    lines = [
        f"seed {world.seed} of {world.topology} failed: {world.violations[0]}",
        f"faults: {rates or 'none'}; poison: {'yes' if world.with_crashes else 'no'}",
        f"without: {', '.join(sorted(world.without)) or 'nothing was left out'}",
        "last events:",
    ]
    return "\n".join([*lines, *world.led_there, "violations:", *world.violations])
