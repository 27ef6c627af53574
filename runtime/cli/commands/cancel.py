"""`workflow-engine cancel`: one execution, or all that meet a filter."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_filter, add_server, filters, text

if TYPE_CHECKING:
    from ..http_client import HttpClient
    from ..options import Commands

MOST_ROUNDS = 1000
PAUSE_SECONDS = 0.1


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "cancel",
        help="cancel an execution, or all that meet a filter",
        description="Cancel the execution ID; without it, every PENDING and RUNNING one that meets the filter.",
    )
    parser.add_argument("id", type=text, metavar="ID", nargs="?", help="the execution's id")
    add_filter(parser)
    parser.add_argument("--all", action="store_true", help="every execution, when there is no other filter")
    parser.add_argument("--yes", action="store_true", help="do not ask before cancelling by filter")
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Ask for the cancellation; a RUNNING execution stops soon after."""
    from ..confirmation import confirm
    from ..errors import UsageError
    from ..server import server_of

    wanted = filters(options) | ({"states": options.state} if options.state else {})
    if options.id is not None and (wanted or options.all):
        raise UsageError("cancel either one execution, by its ID, or many, by a filter")
    if options.id is None and not wanted and not options.all:
        raise UsageError("give the execution's ID, or a filter such as --name, or --all")
    server = server_of(options)
    if options.id is not None:
        return _cancel_one(server, options)
    if not options.yes:
        confirm("cancel", "PENDING and RUNNING execution", wanted)
    return _cancel_many(server, wanted, as_json=options.json)


def _cancel_one(server: HttpClient, options: argparse.Namespace) -> int:
    from ...core.problem import printable
    from ..server import in_path
    from ..terminal import print_json

    answer = server.post(f"/v1/workflows/{in_path(options.id)}/cancel")
    if options.json:
        print_json(answer)
    elif answer["state"] == "CANCELLED":
        print(printable(f"{answer['execution_id']} is CANCELLED"))
    else:
        print(printable(f"{answer['execution_id']} was asked to stop"))
    return 0


def _cancel_many(server: HttpClient, wanted: dict[str, Any], *, as_json: bool) -> int:
    """Ask until no more are left. A RUNNING one that takes its time is asked again."""
    from ...clock import block
    from ..errors import FAILURE, report
    from ..terminal import print_json

    total = {"cancelled": 0, "requested": 0, "more": True}
    for _ in range(MOST_ROUNDS):
        answer = server.post("/v1/workflows/cancel", wanted)
        total["cancelled"] += answer["cancelled"]
        total["requested"] += answer["requested"]
        total["more"] = answer["more"]
        if not answer["more"]:
            break
        block(PAUSE_SECONDS)
    if as_json:
        print_json(total)
    else:
        print(f"{total['cancelled']} cancelled before they started, {total['requested']} asked to stop")
    if total["more"]:
        report("there are more, which do not stop: try again later")
    return FAILURE if total["more"] else 0
