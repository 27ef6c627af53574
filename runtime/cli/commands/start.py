"""`workflow-engine start NAME`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_inputs, add_server, add_wait, count, text

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("start", help="start an execution of a stored definition")
    parser.add_argument("name", type=text, metavar="NAME", help="the definition's name")
    parser.add_argument(
        "--version", type=count, dest="definition_version", metavar="N", help="its version (the latest)"
    )
    add_inputs(parser)
    add_wait(parser)
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Start it; prints the id of the execution, or waits for its results."""
    from ..files import parse_inputs
    from ..server import in_path, server_of
    from ..waiting import check_wait, follow_up

    check_wait(options)
    server = server_of(options)
    query = {} if options.definition_version is None else {"version": options.definition_version}
    body = {"input_params": parse_inputs(options.input)}
    path = f"/v1/definitions/{in_path(options.name)}/executions"
    return follow_up(server, server.post(path, body, query=query, creates=True), options)
