"""How much an owner takes on in a turn: little after a failure, so that a culprit is found and a weak store spared."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.machine import Outcome

MOST_AT_ONCE = 500


class Caution:
    """One execution after a failure, twice as many after every turn that goes well, until there is no need."""

    def __init__(self) -> None:
        self.at_once = MOST_AT_ONCE
        """How many executions are loaded in a turn."""

    def fall(self) -> None:
        """Something has failed."""
        self.at_once = 1

    def recover(self) -> None:
        """A turn has gone well."""
        self.at_once = min(2 * self.at_once, MOST_AT_ONCE)

    def first_of(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes that a turn takes in: all; those of the first few executions after a failure."""
        if self.at_once == MOST_AT_ONCE:
            return list(outcomes)
        few = set(list(dict.fromkeys(outcome.execution_id for outcome in outcomes))[: self.at_once])
        return [outcome for outcome in outcomes if outcome.execution_id in few]
