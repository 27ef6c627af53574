"""The database file: where it is, who has it, what is in it, what time it is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ....config import Settings
from ...clock import SystemClock
from ...errors import StoreUnusable
from ...store.file_lock import FileLock
from ...store.sqlite_file import newest_execution_at, read_schema
from .finding import Finding, error, ok, warning
from .network import engine_at

FEW_BYTES = 1024**3
TOO_FEW_BYTES = 64 * 1024**2
AHEAD_SECONDS = 5.0
OLDEST_YEAR = 2025
NETWORK_FILE_SYSTEMS = (
    "9p",
    "afs",
    "ceph",
    "cifs",
    "fuse.sshfs",
    "glusterfs",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
    "virtiofs",
)


def is_used(settings: Settings) -> bool:
    """Whether this setup has a database file at all, and there is one already."""
    return settings.backend == "embedded" and settings.sqlite_path.exists()


def check_file(settings: Settings) -> Iterator[Finding]:
    """Whether the file can be written, and whether somebody else has it."""
    if settings.backend != "embedded":
        return
    path = settings.sqlite_path.absolute()
    folder = _existing_parent(path)
    if not os.access(folder, os.W_OK | os.X_OK) or not folder.is_dir():
        yield error("database", f"{folder} is no folder that this user may write to", "Set SQLITE_PATH to another.")
        return
    kind = _file_system(folder)
    if kind in NETWORK_FILE_SYSTEMS:
        yield error(
            "database",
            f"{folder} is on a network file system ({kind}), where SQLite's locks and its log do not work",
            "Set SQLITE_PATH to a local disk.",
        )
    if not path.exists():
        yield ok("database", f"{path} is not there yet; the first start makes it")
        return
    for file in (path, *(path.with_name(path.name + suffix) for suffix in ("-wal", "-shm", ".lock"))):
        if file.exists() and not os.access(file, os.R_OK | os.W_OK):
            yield error(
                "database", f"{file} cannot be read and written", f"Give it to this user: chown, chmod u+rw {file}"
            )
            return
    yield _held_by_another(settings, path) or ok("database", f"{path} ({path.stat().st_size / 1024**2:.1f} MiB)")


def check_space(settings: Settings) -> Iterator[Finding]:
    """Whether the disk has room."""
    if settings.backend != "embedded":
        return
    folder = _existing_parent(settings.sqlite_path.absolute())
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    message = f"{free / 1024**3:.1f} GiB are free in {folder}"
    if free < TOO_FEW_BYTES:
        yield error("database", message, "Make room, or set SQLITE_PATH to another disk.")
    elif free < FEW_BYTES:
        yield warning("database", message, "Make room; RETENTION_DAYS deletes what has ended long ago.")
    else:
        yield ok("database", message)


def check_schema(settings: Settings) -> Iterator[Finding]:
    """Whether the schema is that of this version."""
    if not is_used(settings):
        return
    try:
        schema = read_schema(settings.sqlite_path)
    except StoreUnusable as bad:
        yield error("schema", str(bad), None)
        return
    if not schema.missing:
        yield ok("schema", f"up to date ({schema.applied[-1]})")
    elif settings.skip_migrations:
        names = ", ".join(schema.missing)
        yield error("schema", f"{names} missing, and SKIP_MIGRATIONS is set", "Run workflow-engine migrate up.")
    else:
        yield ok("schema", f"{', '.join(schema.missing)} missing; the next start applies what is")


def check_clock(settings: Settings) -> Iterator[Finding]:
    """Whether the clock is where time was when the newest execution was created."""
    now = SystemClock().now()
    shown = datetime.fromtimestamp(now / 1000, UTC).isoformat(timespec="seconds")
    remedy = "Set the clock (timedatectl set-ntp true). Timers wait until it gets there."
    if datetime.fromtimestamp(now / 1000, UTC).year < OLDEST_YEAR:
        yield error("clock", f"it says {shown}", remedy)
        return
    newest = newest_execution_at(settings.sqlite_path) if is_used(settings) and _complete(settings) else None
    if newest is not None and newest > now + AHEAD_SECONDS * 1000:
        ahead = (newest - now) / 1000
        yield warning(
            "clock", f"it says {shown}, and the newest execution is {ahead:.0f} seconds in the future", remedy
        )
    else:
        yield ok("clock", shown)


def _complete(settings: Settings) -> bool:
    try:
        return not read_schema(settings.sqlite_path).missing
    except StoreUnusable:
        return False


def _held_by_another(settings: Settings, path: Path) -> Finding | None:
    resolved = path.resolve()
    if not resolved.with_name(resolved.name + ".lock").exists():
        return None
    lock = FileLock(path)
    try:
        lock.acquire()
    except StoreUnusable as held:
        if engine_at(settings):
            return ok("database", f"{path}, which the server that answers is using")
        return error("database", str(held), None)
    lock.release()
    return None


def _existing_parent(path: Path) -> Path:
    """The nearest folder that is there: what is missing below it will be made."""
    folder = path.resolve().parent
    while not folder.exists():
        folder = folder.parent
    return folder


def _file_system(folder: Path) -> str | None:
    """The type of the file system that a folder is on, where the system tells."""
    mounts = Path("/proc/self/mounts")
    if not mounts.exists():
        return None
    found = [line.split()[1:3] for line in mounts.read_text("utf-8", "replace").splitlines()]
    below = [(point, kind) for point, kind in found if folder.is_relative_to(point.replace("\\040", " "))]
    return max(below, key=lambda each: len(each[0]))[1] if below else None
