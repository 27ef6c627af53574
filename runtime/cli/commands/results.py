"""`workflow-engine results ID`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_id, add_server, add_wait

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("results", help="print the output of an execution")
    add_id(parser)
    add_wait(parser)
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print the output; the exit code says how the execution ended, or that it has not."""
    from ..server import server_of
    from ..waiting import check_wait, read_results, show_results, wait_for_results

    check_wait(options)
    server = server_of(options)
    if options.wait:
        results = wait_for_results(server, options.id, options.timeout)
    else:
        results = read_results(server, options.id)
    return show_results(results, as_json=options.json)
