"""What is asked for at the same time is done together: one batch under way, the next one gathers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")

MAX_BATCH_ITEMS = 1_000
MAX_BATCH_BYTES = 8 * 1024 * 1024


class Grouped(Generic[Item]):
    """Calls `do` with everything that waits, as often as something does, one call at a time."""

    def __init__(
        self,
        do: Callable[[Sequence[Item]], Awaitable[Sequence[Any]]],
        *,
        size_bytes: Callable[[Item], int] = lambda _item: 0,
        max_items: int = MAX_BATCH_ITEMS,
    ) -> None:
        """`do` returns an answer for each item; an answer that is an exception is raised to who asked.

        `size_bytes` is what an item weighs: a batch is bounded in items and in weight.
        """
        self._max_items = max_items
        self._do = do
        self._size_bytes = size_bytes
        self._waiting: list[tuple[Item, asyncio.Future[Any]]] = []
        self._working: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Any:
        """Have an item done; returns or raises what came of it."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, answer))
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work(), name="grouped")
        return await answer

    async def close(self) -> None:
        """Wait for everything that was asked for."""
        while self._working is not None:
            await asyncio.wait([self._working])

    async def _work(self) -> None:
        try:
            while batch := self._take():
                try:
                    answers = await self._do([item for item, _ in batch])
                except Exception as error:
                    answers = [error] * len(batch)
                for (_, future), answer in zip(batch, answers, strict=True):
                    if future.done():
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._working = None

    def _take(self) -> list[tuple[Item, asyncio.Future[Any]]]:
        """The next batch; empty when nothing waits. What somebody has given up before it began is not done at all."""
        self._waiting = [each for each in self._waiting if not each[1].done()]
        weight = count = 0
        for item, _ in self._waiting[: self._max_items]:
            weight += self._size_bytes(item)
            if count and weight > MAX_BATCH_BYTES:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch
