"""The handlers of a process that have limits, taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from ..core.permits import Wait
from ..core.queue import Delivery
from .limited import LimitedHandler, Slots


class LimitedHandlers:
    """What waits for permits, of every handler that needs some. `by_name` is empty in most processes."""

    def __init__(self, by_name: Mapping[str, LimitedHandler]) -> None:
        self.by_name = by_name

    def bind(self, slots: Slots) -> None:
        """The pool that their attempts run in."""
        for each in self.by_name.values():
            each.bind(slots)

    @property
    def ready_count(self) -> int:
        """How many wait for nothing that is known but a slot of this process."""
        return sum(each.ready_count for each in self.by_name.values())

    def count_by_handler(self) -> Counter[str]:
        """How many wait."""
        return Counter({name: len(each) for name, each in self.by_name.items()})

    @property
    def held_up(self) -> set[str]:
        """The handlers of which nothing more should be taken of others' deliveries."""
        return {name for name, each in self.by_name.items() if each.is_held_up}

    @property
    def away(self) -> Mapping[str, int]:
        """By handler, how many wait because Redis does not say whether they may start."""
        return {name: len(each) for name, each in self.by_name.items() if each.is_away and len(each)}

    def withdraw_ready(self, wanted: Callable[[Delivery], bool], limit: int) -> list[Delivery]:
        """Take out at most `limit` deliveries that are `wanted` and wait for a slot of this process only."""
        withdrawn: list[Delivery] = []
        for each in self.by_name.values():
            withdrawn += each.withdraw(wanted, min(each.ready_count, limit - len(withdrawn)))
        return withdrawn

    def withdraw(self, wanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Take out every delivery that is `wanted`."""
        return [delivery for each in self.by_name.values() for delivery in each.withdraw(wanted, len(each))]

    def waits(self, execution_id: str) -> dict[tuple[int, int], Wait | None]:
        """By (node, attempt) of an execution that waits for a permit: for what; None: for its turn."""
        found: dict[tuple[int, int], Wait | None] = {}
        for each in self.by_name.values():
            found |= each.waits(execution_id)
        return found

    def hear(self, handlers: Collection[str] | None) -> None:
        """Permits of these have become free of which somebody was refused one; perhaps of any, for None."""
        for name, each in self.by_name.items():
            if handlers is None or name in handlers:
                each.hear()

    def stop(self) -> None:
        """Nothing more starts."""
        for each in self.by_name.values():
            each.stop()
