"""Copies of this process: a handler that forks makes one, which must not go on as if it were the engine."""

from __future__ import annotations

import os


class _Process:
    generation = 0
    """By how many forks this process has come from the one that loaded this module."""


def _note_fork() -> None:
    _Process.generation += 1


os.register_at_fork(after_in_child=_note_fork)


class Original:
    """The process that made this. Asking costs a tenth of what asking for the process's id does."""

    __slots__ = ("_generation",)

    def __init__(self) -> None:
        self._generation = _Process.generation

    def end_copies(self) -> None:
        """Does not return in a copy of the process: nobody waits for what it would say."""
        if self._generation != _Process.generation:
            os._exit(0)
