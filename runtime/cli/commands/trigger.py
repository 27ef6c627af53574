"""`workflow-engine trigger ID`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_id, add_inputs, add_server, add_wait

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("trigger", help="start an execution that was submitted, or one that has ended anew")
    add_id(parser)
    add_inputs(parser)
    add_wait(parser)
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Trigger it; prints the id of the execution that was started, or waits for its results."""
    from ..files import parse_inputs
    from ..server import in_path, server_of
    from ..waiting import check_wait, follow_up

    check_wait(options)
    server = server_of(options)
    body = {"input_params": parse_inputs(options.input)}
    return follow_up(server, server.post(f"/v1/workflow/trigger/{in_path(options.id)}", body, creates=True), options)
