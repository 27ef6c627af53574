"""What is measured, in rounds, and the table that shows it."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field


@dataclass
class Case:
    """One line of the table. `reference` does comparable work without the engine, in the same run."""

    name: str
    unit: str
    engine: Callable[[], Awaitable[float]]
    reference: Callable[[], Awaitable[float]] | None = None
    target: str = ""
    engine_values: list[float] = field(default_factory=list)
    reference_values: list[float] = field(default_factory=list)


async def measure(cases: Sequence[Case], rounds: int) -> None:
    """Measure every case once a round, so that what disturbs the machine disturbs all of them."""
    for _ in range(rounds):
        for case in cases:
            case.engine_values.append(await case.engine())
            if case.reference is not None:
                case.reference_values.append(await case.reference())


def print_table(cases: Sequence[Case]) -> None:
    """The table, in Markdown."""
    with_targets = any(case.target for case in cases)
    print(f"| case | engine min / median / max |{' target |' * with_targets} reference median | engine : reference |")
    print(f"| --- | --- |{' --- |' * with_targets} --- | --- |")
    for case in cases:
        low, middle, high = min(case.engine_values), statistics.median(case.engine_values), max(case.engine_values)
        reference, ratio = "", ""
        if case.reference_values:
            pairs = zip(case.engine_values, case.reference_values, strict=True)
            reference = show(statistics.median(case.reference_values))
            ratio = f"{statistics.median([ours / theirs for ours, theirs in pairs]):.2f}"
        target = f" {case.target} |" * with_targets
        measured = f"{show(low)} / {show(middle)} / {show(high)}"
        print(f"| {case.name}, {case.unit} | {measured} |{target} {reference} | {ratio} |")


def show(value: float) -> str:
    """Three digits, or a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
