"""Time, identifiers and chance: the one seam through which they come in, so that a test can own them."""

from __future__ import annotations

import os
import random
import time
from typing import Protocol


class Clock(Protocol):
    """Where the engine gets time, identifiers and chance from."""

    def now(self) -> int:
        """Wall-clock time in milliseconds since the epoch. May jump; for what is stored and shown."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; the event loop's clock."""

    def chance(self) -> float:
        """A draw from [0, 1)."""

    def new_id(self) -> str:
        """A new identifier: a version 7 UUID, so that identifiers sort by the time they were made."""


class SystemClock:
    """The real one."""

    def __init__(self) -> None:
        self._random = random.Random(os.urandom(16))
        self._entropy = b""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def chance(self) -> float:
        return self._random.random()

    def new_id(self) -> str:
        # One system call for 400 identifiers: asking for each costs 6 microseconds.
        if not self._entropy:
            self._entropy = os.urandom(4000)
        bits, self._entropy = self._entropy[:10], self._entropy[10:]
        return format_uuid7(self.now(), int.from_bytes(bits))


def block(seconds: float) -> None:
    """Let this thread sleep. Never on an event loop's thread."""
    time.sleep(seconds)


def format_uuid7(now: int, random_bits: int) -> str:
    """A version 7 UUID of `now` (epoch milliseconds) and at least 74 random bits (RFC 9562)."""
    low = (0b10 << 62) | (random_bits & ((1 << 62) - 1))
    high = ((now & ((1 << 48) - 1)) << 16) | 0x7000 | ((random_bits >> 62) & 0xFFF)
    digits = f"{high:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def uuid7_milliseconds(identifier: str) -> int:
    """When a version 7 UUID was made, in epoch milliseconds."""
    return int(identifier[:8] + identifier[9:13], 16)


def uuid7_floor(milliseconds: int) -> str:
    """The lowest version 7 UUID made at or after a moment in epoch milliseconds."""
    return format_uuid7(min(max(milliseconds, 0), (1 << 48) - 1), 0)


def random_bytes(count: int) -> bytes:
    """Bytes that nobody can guess, for keys. Tests have no need to own them."""
    return os.urandom(count)
