"""Each safeguard is switched off in turn: the simulation must notice, or the safeguard is not tested, or not needed."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import pytest
from simulator.campaign import first_that_shows
from simulator.mutations import CASES, Case

MOST_SEEDS = 300


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.mutate.__name__}-{case.topology}")
def test_the_simulation_notices(case: Case, pool: ProcessPoolExecutor) -> None:
    seeds = range(case.first_seed, case.first_seed + MOST_SEEDS)
    shown = first_that_shows(pool, case, seeds)
    assert shown is not None, f"{MOST_SEEDS} seeds with {case.mutate.__name__} and no violation"
    seed, violation = shown
    print(f"| `{case.mutate.__name__}` | {case.topology} | {seed + 1} | {violation.split(' ', 1)[1][:110]} |")  # noqa: T201
