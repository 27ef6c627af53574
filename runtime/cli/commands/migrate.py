"""`workflow-engine migrate`: the database's schema."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_json, seconds

if TYPE_CHECKING:
    from ....config import Settings
    from ...store.migrations import Schema
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    group = commands.add_parser("migrate", help="show or bring up to date the schema of the database")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, prog=group.prog)
    status = verbs.add_parser("status", help="which migrations the database has; servers may be running")
    status.set_defaults(execute=show_status)
    up = verbs.add_parser("up", help="apply the migrations that are missing; with SQLite, no server may be running")
    up.add_argument("--dry-run", action="store_true", help="apply them, and take them back")
    up.set_defaults(execute=migrate_up)
    for verb in (status, up):
        verb.add_argument(
            "--wait",
            type=seconds,
            default=0.0,
            metavar="SECONDS",
            help="wait at most so long for a PostgreSQL server that does not take connections yet",
        )
        add_json(verb)


def show_status(options: argparse.Namespace) -> int:
    """Print each migration and whether the database has it."""
    import asyncio

    from ..tables import print_table
    from ..terminal import print_json

    settings = _settings()
    if settings.backend == "embedded":
        from ...store.sqlite_file import read_schema

        database, exists = str(settings.sqlite_path), settings.sqlite_path.exists()
        schema = read_schema(settings.sqlite_path)
    else:
        from ...parts import postgres_address

        database, exists = str(postgres_address(settings)), True
        schema = asyncio.run(_schema_of_postgres(settings, options.wait))
    if options.json:
        print_json({"database": database, "exists": exists, **schema._asdict()})
        return 0
    rows = [(name, "applied") for name in schema.applied] + [(name, "missing") for name in schema.missing]
    print_table(("migration", "state"), rows)
    return 0


def migrate_up(options: argparse.Namespace) -> int:
    """Apply what is missing, or try to; prints the names."""
    import asyncio

    from ..terminal import print_json

    settings = _settings()
    if settings.backend == "embedded":
        names = _migrate_file(settings, options.dry_run)
    else:
        names = asyncio.run(_migrate_postgres(settings, options.dry_run, options.wait))
    if not options.dry_run:
        asyncio.run(_open_and_close(settings))
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


def _migrate_file(settings: Settings, dry_run: bool) -> list[str]:
    """What is to be applied to the database file; what opens it does so."""
    from ...clock import SystemClock
    from ...store.sqlite_file import read_schema, try_migrations

    if dry_run:
        return try_migrations(settings.sqlite_path, SystemClock().now())
    return list(read_schema(settings.sqlite_path).missing)


async def _migrate_postgres(settings: Settings, dry_run: bool, wait_seconds: float) -> list[str]:
    """What this process has applied, or could."""
    from ...clock import SystemClock
    from ...store.postgres_migrations import migrate, try_migrations
    from ..postgres import connected

    async with connected(settings, wait_seconds) as connection:
        return await (try_migrations if dry_run else migrate)(connection, SystemClock().now())


async def _schema_of_postgres(settings: Settings, wait_seconds: float) -> Schema:
    from ...store.postgres_migrations import read_schema
    from ..postgres import connected

    async with connected(settings, wait_seconds) as connection:
        return await read_schema(connection)


async def _open_and_close(settings: Settings) -> None:
    """What a start does to the database, with all its checks."""
    from ...clock import SystemClock
    from ...parts import build_store

    store = build_store(settings, SystemClock())
    await store.open()
    await store.close()
