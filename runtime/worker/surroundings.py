"""What an attempt may leave behind in the process that ran it, apart from what it has changed in its memory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Surroundings(NamedTuple):
    """What can be seen of a process from its outside: the same again when nothing has been left behind."""

    folder: Path
    descriptors: frozenset[Path]
    threads: frozenset[Path]
    processes: frozenset[int]
    """Those of its process group, itself among them."""


def look_around() -> Surroundings | None:
    """What is there now; None where the system does not tell all of it."""
    try:
        seen = Surroundings(
            Path.cwd(),
            frozenset(Path("/proc/self/fd").iterdir()),
            # The interpreter does not know of those that are started by a library.
            frozenset(Path("/proc/self/task").iterdir()),
            _processes_of_group(os.getpgid(0)),
        )
    except OSError:
        return None
    return seen if os.getpid() in seen.processes else None


def _processes_of_group(group_id: int) -> frozenset[int]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with suppress(OSError):  # it has ended meanwhile
                # After the name, which may hold anything: the state, the parent, the process group.
                fields = (process / "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[2]) == group_id:
                    found.add(int(process.name))
    return frozenset(found)
