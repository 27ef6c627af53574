"""How much an owner takes on after a failure."""

from __future__ import annotations

from workflow_engine.runtime.core.machine import Outcome
from workflow_engine.runtime.orchestrator.caution import MOST_AT_ONCE, Caution


def outcome(execution_id: str, node: int = 0) -> Outcome:
    return Outcome(execution_id, node, 1, b"1", None, 0, 0)


OUTCOMES = [outcome("a"), outcome("b"), outcome("a", 1), outcome("c"), outcome("d")]


def test_without_a_failure_everything_is_taken_on() -> None:
    caution = Caution()
    assert caution.at_once == MOST_AT_ONCE
    assert caution.first_of(OUTCOMES) == OUTCOMES


def test_after_a_failure_one_execution_is_taken_on_with_all_its_outcomes() -> None:
    caution = Caution()
    caution.fall()
    assert caution.at_once == 1
    assert caution.first_of(OUTCOMES) == [outcome("a"), outcome("a", 1)]
    assert caution.first_of([]) == []


def test_every_good_turn_doubles_it_until_it_is_as_before() -> None:
    caution = Caution()
    caution.fall()
    caution.recover()
    assert caution.first_of(OUTCOMES) == [outcome("a"), outcome("b"), outcome("a", 1)]
    turns = 1
    while caution.at_once < MOST_AT_ONCE:
        caution.recover()
        turns += 1
    assert turns == 9
    assert caution.first_of(OUTCOMES) == OUTCOMES
