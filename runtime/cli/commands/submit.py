"""`workflow-engine submit FILE`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_file, add_server

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("submit", help="store a workflow file at the server, with an execution to trigger")
    add_file(parser)
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Submit the file; prints the ids of the definition and of the PENDING execution."""
    from ...core.problem import printable
    from ..errors import CommandError, report
    from ..files import locate, read_definition
    from ..server import server_of
    from ..terminal import print_json

    server = server_of(options)
    file = read_definition(options.file)
    try:
        submitted = server.post("/v1/workflow", file.text, creates=True)
    except CommandError as error:
        if not error.problems:
            raise
        raise locate(error, file) from None
    if options.json:
        print_json(submitted)
        return 0
    execution_id = printable(str(submitted["execution_id"]))
    print(execution_id)
    report(f"submitted; start it: workflow-engine trigger {execution_id}")
    return 0
