"""What the tests of brokers share: deliveries and outcomes to put in, and looks at what is there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import NamedTuple

from workflow_engine.runtime.broker import Broker, News
from workflow_engine.runtime.core.deliveries import DeliveryKey, Heartbeat, Sighting, Taken, Task
from workflow_engine.runtime.core.machine import Outcome

HTTP = "http_request"
MANY = 1_000


class BrokerUnderTest(NamedTuple):
    """`make` makes a broker, not yet open, over the same data; `wipe` loses the data."""

    make: Callable[[], Broker]
    wipe: Callable[[], Awaitable[None]]


def task(number: int, handler: str = HTTP, attempt: int = 1) -> Task:
    return Task(DeliveryKey(f"e{number}", number % 7, attempt), handler, "sha256:abc")


def outcome(of: Task, output: bytes = b'{"a": 1}') -> Outcome:
    key = of.key
    return Outcome(key.execution_id, key.node, key.attempt, output, None, 1_000, 1_001, 0.25)


def heartbeat(replica: str, *attempts: DeliveryKey) -> Heartbeat:
    return Heartbeat(
        replica, ("worker", "api"), (HTTP, "größer als"), 16, 3, 2, "host.example", "1.2.3", 1_700_000_000_123, attempts
    )


async def take_all(broker: Broker, *handlers: str, replica: str = "r1", partition: int = 3) -> Sequence[Taken]:
    return await broker.take(partition, handlers or (HTTP,), MANY, replica)


async def taken_tasks(broker: Broker, *handlers: str) -> list[Task]:
    return [taken.task for taken in await take_all(broker, *handlers)]


async def inbox(broker: Broker, partition: int = 3) -> list[tuple[Sequence[str], Outcome | None]]:
    entries = await broker.read_inbox(partition, "", MANY)
    return [(list(entry.wake_ups), entry.outcome) for entry in entries]


async def sightings(broker: Broker, partition: int = 3) -> dict[DeliveryKey, Sighting]:
    return dict((await broker.look(partition)).deliveries)


@asynccontextmanager
async def listening(broker: Broker) -> AsyncIterator[AsyncIterator[News]]:
    """The news from here on."""
    stream = broker.listen()
    async with aclosing(stream):
        assert await anext(stream) == News()
        yield stream
