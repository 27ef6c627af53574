"""`workflow-engine call NAME`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_server, seconds, text, whole

if TYPE_CHECKING:
    from ..options import Commands

OPTIONS = ("timeout_seconds", "max_retries", "initial_delay", "max_delay")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "call",
        help="call a function: run one handler durably",
        description="Run one handler durably, without a workflow, and print its output. Its configuration is taken as "
        "it is: there are no templates in it.",
    )
    parser.add_argument("name", type=text, metavar="NAME", help="the function, as `handlers` lists it")
    parser.add_argument(
        "--config",
        type=text,
        metavar="JSON",
        help="its configuration; @FILE reads it from a file, - from standard input",
    )
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a field of the configuration; the value is JSON where it can be, else text",
    )
    parser.add_argument(
        "--attempt-timeout", type=seconds, dest="timeout_seconds", metavar="SECONDS", help="longest time of one attempt"
    )
    parser.add_argument("--max-retries", type=whole, metavar="N", help="attempts after the first one")
    parser.add_argument("--initial-delay", type=seconds, metavar="SECONDS", help="time before the first retry")
    parser.add_argument("--max-delay", type=seconds, metavar="SECONDS", help="longest time before a retry")
    parser.add_argument(
        "--no-wait", dest="wait", action="store_false", help="do not wait for its end: print the id of the execution"
    )
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="wait at most so long")
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Call it; prints its output, or the id of the execution."""
    from ..errors import UsageError
    from ..server import in_path, server_of
    from ..waiting import follow_up

    if options.timeout is not None and not options.wait:
        raise UsageError("--timeout does not go with --no-wait")
    query = {name: value for name in OPTIONS if (value := getattr(options, name)) is not None}
    server = server_of(options)
    path = f"/v1/functions/{in_path(options.name)}"
    return follow_up(server, server.post(path, _config(options), query=query, creates=True), options)


def _config(options: argparse.Namespace) -> dict[str, Any]:
    """The configuration, with the fields that were given in place of its own."""
    from ..errors import UsageError
    from ..files import parse_inputs, read_json

    config = {} if options.config is None else read_json("--config", options.config)
    if not isinstance(config, dict):
        raise UsageError("--config: must be a JSON object")
    return {**config, **parse_inputs(options.field, "--field")}
