"""What the tests of the Broker port are given of each implementation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from workflow_engine.runtime.broker import Broker


class BrokerUnderTest(NamedTuple):
    """`make` makes a broker, not yet open, over the same data; `wipe` loses the data."""

    make: Callable[[], Broker]
    wipe: Callable[[], Awaitable[None]]
