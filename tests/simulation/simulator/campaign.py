"""Many seeds, on all cores: what happened in them, and the first that failed, made as small as it gets."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import NamedTuple

import pytest

from simulator.mutations import CASES, Case
from simulator.probes import REJECTIONS
from simulator.scenario import TOPOLOGIES, describe, run_seed
from simulator.users import USERS
from simulator.world import (
    FAULTS,
    FAULTS_OF_PROCESSES,
    FAULTS_OF_THE_BROKER,
    FAULTS_OF_THE_STORE,
    FAULTS_OF_THE_TRANSPORT,
    World,
)

SEEDS_AT_A_TIME = 4

OF_EVERY_TOPOLOGY = (
    *FAULTS_OF_PROCESSES,
    *FAULTS_OF_THE_STORE,
    "clock_skewed",
    "claim_conflict",
    "command_too_late",
    "commit_fenced",
    "crashed_by_a_handler",
    "dead_letter_race_lost",
    "discarded",
    "isolated",
    "key_answered",
    "outcome_stale",
    "poisoned",
    "request_conflicted",
    "request_failed",
    "request_repeated",
    "requeued",
    "start_too_late",
    "started_over",
    "suspected",
    "taking_missed",
    "trigger_race",
    "write_landed_after_its_process_died",
    "write_lost_with_its_process",
    "write_lost_with_the_store",
)
OF_FLEETS = (
    *FAULTS_OF_THE_BROKER,
    *REJECTIONS,
    "attempt_overlapped",
    "given_back",
    "handed_over",
    "outcome_doubled",
    "release_fenced",
    "spilled",
    "taken",
    "wake_up_lost",
)
MUST_HAPPEN = {
    "embedded": (*OF_EVERY_TOPOLOGY, *FAULTS_OF_THE_TRANSPORT),
    "postgres": (*OF_EVERY_TOPOLOGY, *FAULTS_OF_THE_TRANSPORT, "handed_over", "release_fenced"),
    "replicas": (*OF_EVERY_TOPOLOGY, *OF_FLEETS),
    "roles": (*OF_EVERY_TOPOLOGY, *OF_FLEETS),
    "limits": (*OF_EVERY_TOPOLOGY, *OF_FLEETS, "limit_reached", "limit_exceeded"),
}
"""What a campaign has not seen it has not tried: it fails."""


class Result(NamedTuple):
    """What one seed came to. `failure` is its report."""

    seed: int
    failure: str | None
    happened: Counter[str]
    steps: int


class Tally(NamedTuple):
    """What a campaign came to."""

    seeds: int
    failure: str | None
    happened: Counter[str]
    text: str


@contextmanager
def workers() -> Iterator[ProcessPoolExecutor]:
    """One process for each core."""
    with ProcessPoolExecutor(
        max_workers=os.cpu_count(), mp_context=get_context("spawn"), initializer=logging.disable
    ) as pool:
        yield pool


def run_one(topology: str, seed: int) -> Result:
    """One seed, in a process of the pool; a failing one is made smaller there."""
    world = run_seed(seed, topology=topology)
    failure = describe(minimised(world)) if world.violations else None
    return Result(seed, failure, world.happened, world.loop.steps)


def run_campaign(pool: ProcessPoolExecutor, topology: str, seeds: Sequence[int]) -> Tally:
    """Run these seeds, to the end or to the first that fails."""
    began_at = time.monotonic()
    happened: Counter[str] = Counter()
    failure, done, steps = None, 0, 0
    for result in pool.map(partial(run_one, topology), seeds, chunksize=SEEDS_AT_A_TIME):
        happened += result.happened
        steps += result.steps
        done += 1
        if result.failure is not None:
            failure = result.failure
            break
    seconds = time.monotonic() - began_at
    text = [f"{done} seeds of {topology} in {seconds:.0f} s, {done / seconds:.1f} a second, {steps} steps"]
    faults = {name: count for name, count in sorted(happened.items()) if name in FAULTS}
    others = {name: count for name, count in sorted(happened.items()) if name not in FAULTS}
    for title, counts in (("faults", faults), ("what came of them", others)):
        text.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    return Tally(done, failure, happened, "\n".join(text))


def minimised(world: World) -> World:
    """The same seed with as few faults and users as it still fails with, by the same invariant."""
    smallest, invariant = world, _invariant(world)
    users = [f"user-{number}" for number in range(USERS)]
    for part in [*users, "poison", *world.rates]:
        smaller = run_seed(world.seed, topology=world.topology, without={*smallest.without, part})
        if smaller.violations and _invariant(smaller) == invariant:
            smallest = smaller
    return smallest


def _invariant(world: World) -> str:
    return world.violations[0].split()[1]


def run_mutated(case: Case, seed: int) -> str | None:
    """What a seed shows with a safeguard switched off; None for nothing."""
    with pytest.MonkeyPatch.context() as patch:
        case.mutate(patch)
        world = run_seed(seed, topology=case.topology, with_faults=case.with_faults)
    if world.violations:
        return world.violations[0]
    if not case.with_faults and max(world.starts.values()) > 1:
        return "an attempt was started twice although nothing went wrong"
    return None


def first_that_shows(pool: ProcessPoolExecutor, case: Case, seeds: Sequence[int]) -> tuple[int, str] | None:
    """The first of these seeds that shows that a safeguard is missing, and what it shows."""
    at_a_time = os.cpu_count() or 1
    for first in range(0, len(seeds), at_a_time):
        some = seeds[first : first + at_a_time]
        for seed, shown in zip(some, pool.map(partial(run_mutated, case), some), strict=True):
            if shown is not None:
                return seed, shown
    return None


def fingerprints(seeds: Iterable[int]) -> list[str]:
    """Of these seeds in every topology; the same in every process."""
    logging.disable()
    return [run_seed(seed, topology=topology).fingerprint() for topology in TOPOLOGIES for seed in seeds]


__all__ = ["CASES", "MUST_HAPPEN", "fingerprints", "first_that_shows", "run_campaign", "workers"]
