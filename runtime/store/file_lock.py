"""One process per database file: an advisory lock on a file beside it.

Never on the database itself: closing any descriptor of it would drop SQLite's own locks.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import StoreUnusable


class FileLock:
    """Holds `<database>.lock` until `release`, or until the process dies, however it dies."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(database.name + ".lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises `StoreUnusable` naming the process that has it, or why it cannot be made."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnusable(f"cannot create {self._path}: {error.strerror}; is the folder writable?") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreUnusable(
                f"another process (pid {holder}) uses this database; stop it, or set SQLITE_PATH to another file "
                f"(lock file: {self._path})"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock up. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
