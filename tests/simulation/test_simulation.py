"""Whole runtimes, as `runtime/process.py` builds them, on a seeded scheduler with faults."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from simulator.campaign import MUST_HAPPEN, fingerprints, minimised, run_campaign
from simulator.mutations import no_version_fence
from simulator.scenario import TOPOLOGIES, describe, run_seed

HERE = Path(__file__).parent
# The worlds of several processes take several times as long as those of one.
SHARES_OF_SEEDS = {"embedded": 0.5, "postgres": 0.3, "replicas": 0.25, "roles": 0.15, "limits": 0.1}
SEEDS_THAT_SEE_EVERYTHING = 1000


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_seed_keeps_every_invariant(simulation_seeds: int, topology: str, pool: ProcessPoolExecutor) -> None:
    # A campaign is one of replicas.
    in_full = topology == "replicas" and simulation_seeds >= SEEDS_THAT_SEE_EVERYTHING
    seeds = range(max(1, int(simulation_seeds * (1.0 if in_full else SHARES_OF_SEEDS[topology]))))
    tally = run_campaign(pool, topology, seeds)
    print(tally.text)  # noqa: T201
    assert tally.failure is None, tally.failure
    if len(seeds) >= SEEDS_THAT_SEE_EVERYTHING:
        assert [each for each in MUST_HAPPEN[topology] if not tally.happened[each]] == []
        assert tally.happened["execution_COMPLETED"] > len(seeds)
        assert tally.happened["execution_FAILED"] > 0
        assert tally.happened["execution_CANCELLED"] > 0


# Each has shown a fault of the engine once.
@pytest.mark.parametrize(
    ("topology", "seed"),
    [
        pytest.param("embedded", 22, id="crashes were counted by clocks that differ"),
        pytest.param("postgres", 7, id="crashes were counted by clocks that differ, among replicas"),
        pytest.param("replicas", 545, id="a dead owner has named what runs here again"),
        pytest.param("roles", 18, id="what was trimmed from its queue was waited for"),
    ],
)
def test_a_seed_that_has_failed_once(topology: str, seed: int) -> None:
    world = run_seed(seed, topology=topology)
    assert not world.violations, describe(world)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_without_faults_everything_that_can_complete_does(simulation_seeds: int, topology: str) -> None:
    for seed in range(1, 1 + min(6, simulation_seeds)):
        world = run_seed(seed, topology=topology, with_faults=False)
        assert not world.violations, describe(world)
        assert max(world.starts.values()) == 1, "an attempt was started twice although nothing went wrong"


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_task_that_kills_its_process_is_found_out(simulation_seeds: int, topology: str) -> None:
    """Without any other fault it costs two processes, and its execution fails."""
    poisoned = 0
    for seed in range(1, 1 + min(10, simulation_seeds)):
        world = run_seed(seed, topology=topology, with_faults=False, with_crashes=True)
        assert not world.violations, describe(world)
        poisoned += world.happened["poisoned"]
    assert poisoned > 0 or simulation_seeds < 10


def test_a_seed_is_the_same_world_in_every_process() -> None:
    """Whatever the order that sets of texts have there."""
    ask = "from simulator.campaign import fingerprints; print(*fingerprints([7]))"
    paths = [str(HERE), str(HERE.parent / "support"), *filter(None, [os.environ.get("PYTHONPATH")])]
    asked = [
        subprocess.Popen(
            [sys.executable, "-c", ask],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in ("1", "2")
    ]
    first, second = ((process.communicate()[0].split(), process.returncode) for process in asked)
    assert first == second == (fingerprints([7]), 0)


def test_a_failing_seed_is_made_as_small_as_it_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    no_version_fence(monkeypatch)
    failing = next(world for world in map(run_seed, range(50)) if world.violations)
    smallest = minimised(failing)
    assert smallest.violations[0].split()[1] == failing.violations[0].split()[1]
    assert len(smallest.without) > 0
    assert len(smallest.rates) < len(failing.rates)
    replayed = run_seed(failing.seed, without=smallest.without)
    assert replayed.fingerprint() == smallest.fingerprint()
    assert f"seed {failing.seed} of embedded failed" in describe(smallest)
