"""Whole runtimes, as `runtime/process.py` builds them, on a seeded scheduler with faults."""

from __future__ import annotations

from collections import Counter

import pytest
from simulator.scenario import describe, run_seed

FAULTS = (
    "crash",
    "graceful_restart",
    "store_unavailable",
    "store_outcome_unknown",
    "store_lands_late",
    "store_slow",
    "wake_up_lost",
    "outcome_doubled",
    "outcome_late",
    "commit_fenced",
    "write_lost_with_its_process",
    "write_landed_after_its_process_died",
    "request_failed",
    "request_conflicted",
    "request_repeated",
    "key_answered",
    "trigger_race",
    "pause",
    "taking_fenced",
)
FAULTS_OF_FLEETS = (
    "broker_unavailable",
    "broker_outcome_unknown",
    "broker_slow",
    "broker_stopped",
    "broker_wiped",
    "broker_cut",
    "news_lost",
    "spilled",
    "taken",
    "given_back",
    "isolated",
    "poisoned",
)
# A fleet's world takes several times as long as one of a single process.
SHARE_OF_SEEDS = {"embedded": 1.0, "postgres": 0.5, "distributed": 0.25}


@pytest.mark.parametrize("topology", ["embedded", "postgres", "distributed"])
def test_every_seed_keeps_every_invariant(simulation_seeds: int, topology: str) -> None:
    happened: Counter[str] = Counter()
    seeds = max(1, int(simulation_seeds * SHARE_OF_SEEDS[topology]))
    for seed in range(seeds):
        world = run_seed(seed, topology=topology)
        assert not world.violations, describe(world, world.violations[0])
        happened += world.happened
    print(f"{seeds} seeds, {topology}: {dict(sorted(happened.items()))}")  # noqa: T201
    if seeds >= 100:
        # In a fleet it is the broker that makes outcomes late.
        faults = FAULTS if topology != "distributed" else (*set(FAULTS) - {"outcome_late"}, *FAULTS_OF_FLEETS)
        assert [fault for fault in faults if not happened[fault]] == []
        assert happened["execution_COMPLETED"] > seeds
        assert happened["execution_FAILED"] > 0
        assert happened["execution_CANCELLED"] > 0


@pytest.mark.parametrize("topology", ["embedded", "postgres", "distributed"])
def test_without_faults_everything_that_can_complete_does(simulation_seeds: int, topology: str) -> None:
    for seed in range(min(10, simulation_seeds)):
        world = run_seed(seed, topology=topology, with_faults=False)
        assert not world.violations, describe(world, world.violations[0])
        assert max(world.starts.values()) == 1, "an attempt was started twice although nothing went wrong"


@pytest.mark.parametrize("topology", ["embedded", "postgres", "distributed"])
def test_a_task_that_kills_its_process_is_found_out(simulation_seeds: int, topology: str) -> None:
    """Without any other fault it costs two processes, and its execution fails."""
    poisoned = 0
    for seed in range(min(15, simulation_seeds)):
        world = run_seed(seed, topology=topology, with_faults=False, with_crashes=True)
        assert not world.violations, describe(world, world.violations[0])
        poisoned += world.happened["poisoned"]
    assert poisoned > 0 or simulation_seeds < 15


@pytest.mark.parametrize("topology", ["embedded", "postgres", "distributed"])
def test_the_same_seed_is_the_same_world(topology: str) -> None:
    first, second = run_seed(7, topology=topology), run_seed(7, topology=topology)

    assert first.loop.steps == second.loop.steps
    assert list(first.events) == list(second.events)
    assert first.happened == second.happened
