"""`workflow-engine list`: the executions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_filter, add_page, add_server, filters

if TYPE_CHECKING:
    from ..options import Commands

COLUMNS = ("execution", "state", "definition", "created")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("list", help="list executions, newest first")
    add_filter(parser)
    add_page(parser)
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print the executions that meet the filter."""
    from ..pages import read_pages, show_page
    from ..server import server_of
    from ..tables import moment

    page = read_pages(server_of(options), "/v1/workflows", options, filters(options) | {"state": options.state})
    rows = (
        (item["id"], item["state"], f"{item['name']} v{item['version']}", moment(item["created_at"]))
        for item in page["items"]
    )
    return show_page(page, COLUMNS, rows, as_json=options.json, whole=("execution", "state", "created"))
