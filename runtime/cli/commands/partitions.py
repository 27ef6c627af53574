"""`workflow-engine partitions`: who owns which executions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_server

if TYPE_CHECKING:
    from ..options import Commands

COLUMNS = ("partition", "owner", "version", "expires in", "unserved for")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "partitions",
        help="list the partitions and who owns them",
        description="List the partitions, the replica that owns each, what is left of its lease, and how long an "
        "execution has waited where nobody does.",
    )
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print every partition."""
    from ..server import server_of
    from ..tables import print_table, seconds
    from ..terminal import print_json

    listed = server_of(options).get("/v1/partitions")
    if options.json:
        print_json(listed)
        return 0

    def row(item: Any) -> tuple[Any, ...]:
        times = seconds(item["expires_in_seconds"]), seconds(item["unserved_seconds"])
        return (item["partition"], item["owner"], item["version"], *times)

    print_table(COLUMNS, map(row, listed["items"]), whole=("partition", "owner", "version"))
    return 0
