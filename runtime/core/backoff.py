"""How long to wait before something is tried again: longer each time, until it works."""

from __future__ import annotations


class Backoff:
    """Doubles from `first_seconds` to `longest_seconds`."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._seconds = first_seconds

    def next_seconds(self) -> float:
        """The next wait."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, self._longest_seconds)
        return seconds

    def reset(self) -> None:
        """It has worked."""
        self._seconds = self._first_seconds
