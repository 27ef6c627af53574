"""`workflow-engine workers`: the replicas and what they run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_server

if TYPE_CHECKING:
    from ..options import Commands

COLUMNS = ("replica", "alive", "as of", "host", "version", "roles", "partitions", "free slots", "handlers")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "workers",
        help="list the replicas and what they run",
        description="The replicas of the last minutes, as they last said of themselves by a heartbeat; where there are "
        "none (with the backend postgres, or while Redis does not answer) by what they have written to the database. "
        "--json says which, and has the attempts that each runs.",
    )
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print every replica."""
    from ..server import server_of
    from ..tables import print_table
    from ..terminal import print_json

    listed = server_of(options).get("/v1/workers")
    if options.json:
        print_json(listed)
        return 0
    print_table(COLUMNS, map(_row, listed["items"]), whole=("replica", "alive", "free slots"))
    return 0


def _row(item: Any) -> tuple[Any, ...]:
    from ..tables import seconds

    return (
        item["id"],
        "yes" if item["alive"] else "no",
        f"{seconds(item['age_seconds'])} ago",
        item["host"],
        item["version"],
        ", ".join(item["roles"]),
        item["partitions"],
        f"{item['free_slots']} of {item['slots']}",
        ", ".join(item["handlers"]),
    )
