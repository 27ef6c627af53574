"""`workflow-engine copy-store`: a deployment moves from SQLite to PostgreSQL."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ....config import Settings
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "copy-store", help="copy everything from SQLite to PostgreSQL, executions in flight included"
    )
    parser.add_argument("--from", dest="source", required=True, metavar="sqlite:FILE", help="the database to copy")
    parser.add_argument(
        "--to",
        dest="target",
        required=True,
        metavar="postgresql://...",
        help="an empty database; 'postgres' is the one of the POSTGRES_ settings",
    )
    add_json(parser)
    parser.set_defaults(execute=copy_store)


def copy_store(options: argparse.Namespace) -> int:
    """Copy, print what was copied, and say what to do next."""
    import asyncio

    from ..tables import print_table
    from ..terminal import print_json

    path = _source(options.source)
    settings = _target(options.target)
    copied = asyncio.run(_copy(path, settings))
    if options.json:
        print_json({"from": str(path), "copied": dict(copied)})
        return 0
    print_table(("what", "copied"), [(name, str(count)) for name, count in copied.items()])
    print(
        f"\nNext: start the engine with BACKEND=postgres and the same POSTGRES_ settings; what was in flight goes on "
        f"there.\nDo not start it on {path} again, or the same executions run twice. Keep the file as a backup."
    )
    return 0


def _source(text: str) -> Path:
    from pathlib import Path

    from ..errors import UsageError

    scheme, _, name = text.partition(":")
    if scheme != "sqlite" or not name:
        raise UsageError("--from is written sqlite:FILE, such as sqlite:workflow-engine.db")
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"--from: there is no file {path}")
    return path


def _target(text: str) -> Settings:
    from ....config import load_settings
    from ..errors import UsageError

    if text == "postgres":
        return load_settings({"backend": "postgres"})
    if not text.startswith(("postgresql://", "postgres://")):
        raise UsageError(
            "--to is a URL that begins with postgresql://, or the word postgres for the settings' database"
        )
    return load_settings({"backend": "postgres", "postgres_url": text})


async def _copy(path: Path, settings: Settings) -> Mapping[str, int]:
    """Copy while the file is locked: no engine runs on it."""
    from ...clock import SystemClock
    from ...parts import postgres_address
    from ...store.postgres_import import import_tables
    from ...store.sqlite import SqliteStore
    from ...store.sqlite_export import export_tables

    clock = SystemClock()
    source = SqliteStore(path, clock)
    await source.open()
    try:
        return await import_tables(
            export_tables(path), postgres_address(settings), clock, partitions=settings.partitions
        )
    finally:
        await source.close()
