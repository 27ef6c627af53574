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
        self._database = database
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises `StoreUnusable` naming the process that has it, or why it cannot be made."""
        # The lock is the file's, whatever link it is opened by.
        path = self._database.resolve()
        path = path.with_name(path.name + ".lock")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreUnusable(f"cannot create {path}: {error.strerror}; is the folder writable?") from error
        try:
            _lock(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock up. Safe to call twice."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        raise StoreUnusable(
            f"another process (pid {holder}) uses this database; stop it, or set SQLITE_PATH to another file "
            f"(lock file: {path})"
        ) from None
    except OSError as error:
        raise StoreUnusable(f"cannot lock {path}: {error.strerror}") from error
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    except OSError as error:
        raise StoreUnusable(f"cannot write {path}: {error.strerror}") from error
