"""Counts what the engine refuses, from outside: what has not been refused in a campaign was not tried in it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, NamedTuple
from unittest.mock import patch

from simulator.world import World
from workflow_engine.runtime.core.deliveries import key_of
from workflow_engine.runtime.orchestrator.deliveries import Deliveries
from workflow_engine.runtime.orchestrator.owner import Owner
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.transport.shared import SharedTransport
from workflow_engine.runtime.worker.pool import WorkerPool
from workflow_engine.runtime.worker.taker import Taker


class Probe(NamedTuple):
    """A method to watch. `before` and `after` say by the arguments, and the result, how often something happened."""

    happening: str
    owner: type
    method: str
    before: Callable[..., float] | None = None
    after: Callable[..., float] | None = None


def _lost_where_the_broker_is_away(deliveries: Deliveries, lost: bool) -> bool:
    return lost and deliveries._contact_since == math.inf


def _too_old(runtime: Runtime, execution: Any, may_start: bool) -> bool:
    return not may_start and execution.permitted_until is not None


def _without_lease(runtime: Runtime, execution: Any, may_start: bool) -> bool:
    return not may_start and execution.permitted_until is None


PROBES = (
    Probe("outcome_stale", Owner, "_settle", before=lambda owner, effects: effects.stale),
    Probe("started_over", Owner, "_start_over", before=lambda owner, error, failures: 1),
    Probe("outcome_for_another_owner", SharedTransport, "pass_on", before=lambda transport, outcomes: len(outcomes)),
    Probe(
        "outcome_of_a_delivery_that_was_taken_again",
        SharedTransport,
        "hand_in",
        before=lambda transport, outcome: key_of(outcome) in transport._unsent,
    ),
    Probe("taken_twice", SharedTransport, "expect", before=lambda transport, key, entry: transport.is_expected(key)),
    Probe("ran_already", WorkerPool, "_runs", after=lambda pool, delivery, runs: runs),
    Probe("permission_refused", Taker, "_refuse", before=lambda taker, keys: len(keys)),
    Probe("left_to_others", Taker, "_leave_to_others", before=lambda taker, error: 1),
    Probe("permission_too_old", Runtime, "_may_start", after=_too_old),
    Probe("start_too_late", Runtime, "_may_start", after=_without_lease),
    Probe("delivery_lost", Deliveries, "_lose", after=lambda deliveries, key, lost: lost),
    Probe("delivery_believed_lost_runs_here", Deliveries, "_lose", after=lambda deliveries, key, lost: not lost),
    Probe(
        "delivery_given_up",
        Deliveries,
        "_lose",
        after=lambda deliveries, key, lost: _lost_where_the_broker_is_away(deliveries, lost),
    ),
    Probe("not_spilled", Deliveries, "_spill_one", after=lambda *arguments: not arguments[-1]),
)
REJECTIONS = tuple(probe.happening for probe in PROBES)


@contextmanager
def watched(world: World) -> Iterator[None]:
    """Whatever the probes see meanwhile happened in this world."""
    with ExitStack() as stack:
        for probe in PROBES:
            watch = _watch(world, probe, getattr(probe.owner, probe.method))
            stack.enter_context(patch.object(probe.owner, probe.method, watch))
        yield


def _watch(world: World, probe: Probe, method: Callable[..., Any]) -> Callable[..., Any]:
    happened, (name, _, _, before, after) = world.happened, probe

    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def watch(*arguments: Any) -> Any:
            if before is not None:
                happened[name] += int(before(*arguments))
            result = await method(*arguments)
            if after is not None:
                happened[name] += int(after(*arguments, result))
            return result

        return watch

    @wraps(method)
    def watch_at_once(*arguments: Any) -> Any:
        if before is not None:
            happened[name] += int(before(*arguments))
        result = method(*arguments)
        if after is not None:
            happened[name] += int(after(*arguments, result))
        return result

    return watch_at_once
