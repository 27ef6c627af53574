"""`workflow-engine migrate`: the database's schema."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_json

if TYPE_CHECKING:
    from pathlib import Path

    from ....config import Settings
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    group = commands.add_parser("migrate", help="show or bring up to date the schema of the database (SQLITE_PATH)")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, prog=group.prog)
    status = verbs.add_parser("status", help="which migrations the database has; a server may be running")
    status.set_defaults(execute=show_status)
    up = verbs.add_parser("up", help="apply the migrations that are missing; no server may be running")
    up.add_argument("--dry-run", action="store_true", help="apply them, and take them back")
    up.set_defaults(execute=migrate_up)
    for verb in (status, up):
        add_json(verb)


def show_status(options: argparse.Namespace) -> int:
    """Print each migration and whether the database has it."""
    from ...store.sqlite_file import read_schema
    from ..tables import print_table
    from ..terminal import print_json

    path = _file(_settings(), "status")
    schema = read_schema(path)
    if options.json:
        print_json({"database": str(path), "exists": path.exists(), **schema._asdict()})
        return 0
    rows = [(name, "applied") for name in schema.applied] + [(name, "missing") for name in schema.missing]
    print_table(("migration", "state"), rows)
    return 0


def migrate_up(options: argparse.Namespace) -> int:
    """Apply what is missing, or try to; prints the names."""
    from ...clock import SystemClock
    from ...store.sqlite_file import read_schema, try_migrations
    from ..terminal import print_json

    settings = _settings()
    if options.dry_run:
        names = try_migrations(_file(settings, "up --dry-run"), SystemClock().now())
    else:
        names = list(read_schema(settings.sqlite_path).missing) if settings.backend == "embedded" else []
        _open_and_close(settings)
    if options.json:
        print_json({"dry_run": options.dry_run, "applied": names})
        return 0
    for name in names:
        print(f"{name}: {'can be applied' if options.dry_run else 'applied'}")
    if not names:
        print("the schema is up to date")
    return 0


def _settings() -> Settings:
    from ....config import load_settings

    return load_settings().model_copy(update={"skip_migrations": False})


def _file(settings: Settings, verb: str) -> Path:
    """The database file. Raises `UsageError` when there is none by the settings."""
    from ..errors import UsageError

    if settings.backend != "embedded":
        raise UsageError(f"migrate {verb} is for SQLite; with BACKEND={settings.backend} there is migrate up")
    return settings.sqlite_path


def _open_and_close(settings: Settings) -> None:
    """What a start does to the database, with all its checks."""
    import asyncio

    from ...clock import SystemClock
    from ...parts import build_store

    async def run() -> None:
        store = build_store(settings, SystemClock())
        await store.open()
        await store.close()

    asyncio.run(run())
