"""What is asked for at the same time is done together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from workflow_engine.runtime.grouping import Grouped


class Doing:
    """Notes its batches. The first one is held until `go_on`."""

    def __init__(self) -> None:
        self.batches: list[Sequence[int]] = []
        self.go_on = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> Sequence[object]:
        self.batches.append(list(items))
        await self.go_on.wait()
        return [ValueError(f"not {item}") if item < 0 else item * 10 for item in items]


async def ask(grouped: Grouped[int], *items: int) -> list[asyncio.Task[object]]:
    """Asked for, and waiting."""
    asked = [asyncio.create_task(grouped.ask(item)) for item in items]
    for _ in range(3):
        await asyncio.sleep(0)
    return asked


async def test_what_is_asked_meanwhile_is_done_together_and_everybody_gets_his_own_answer() -> None:
    doing = Doing()
    grouped: Grouped[int] = Grouped(doing)
    first, second = await ask(grouped, 1), await ask(grouped, 2, -3, 4)

    doing.go_on.set()
    answers = await asyncio.gather(*first, *second, return_exceptions=True)

    assert doing.batches == [[1], [2, -3, 4]]
    assert answers[0::3] == [10, 40]
    assert answers[1] == 20
    assert isinstance(answers[2], ValueError)


async def test_batches_are_bounded_in_items_and_in_weight() -> None:
    doing = Doing()
    doing.go_on.set()
    by_items: Grouped[int] = Grouped(doing, max_items=2)
    await asyncio.gather(*await ask(by_items, 1, 2, 3))
    by_weight: Grouped[int] = Grouped(doing, size_bytes=lambda item: item * 5 * 1024 * 1024)
    await asyncio.gather(*await ask(by_weight, 1, 1, 3))

    assert doing.batches == [[1, 2], [3], [1], [1], [3]]


async def test_what_was_given_up_before_it_began_is_not_done() -> None:
    doing = Doing()
    grouped: Grouped[int] = Grouped(doing)
    [begun] = await ask(grouped, 1)
    [given_up, kept] = await ask(grouped, 2, 3)
    begun.cancel()
    given_up.cancel()
    await asyncio.wait([begun, given_up])

    doing.go_on.set()

    assert await kept == 30
    assert doing.batches == [[1], [3]]


async def test_closing_waits_for_what_was_asked() -> None:
    doing = Doing()
    grouped: Grouped[int] = Grouped(doing)
    asked = await ask(grouped, 1) + await ask(grouped, 2)
    closing = asyncio.create_task(grouped.close())
    await asyncio.sleep(0)
    assert not closing.done()

    doing.go_on.set()
    await closing

    assert [each.result() for each in asked] == [10, 20]


async def test_what_befalls_a_batch_befalls_all_of_it() -> None:
    async def fail(items: Sequence[int]) -> Sequence[object]:
        raise ConnectionError("gone")

    grouped: Grouped[int] = Grouped(fail)
    for each in await ask(grouped, 1, 2):
        with pytest.raises(ConnectionError, match="gone"):
            await each
