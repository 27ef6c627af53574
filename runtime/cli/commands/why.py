"""`workflow-engine why ID [NODE]`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_id, add_server, text

if TYPE_CHECKING:
    from ..http_client import HttpClient
    from ..options import Commands

MOST_NODES = 50


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "why",
        help="say why a node does not run",
        description="Say what a node waits for: others, its retry, a worker that has its handler, its turn. Without "
        f"NODE, of each node of the execution that has not begun, the first {MOST_NODES} of them.",
    )
    add_id(parser)
    parser.add_argument("node", nargs="?", type=text, metavar="NODE", help="the node's id")
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print what each waits for."""
    from ..server import server_of
    from ..tables import moment, print_table
    from ..terminal import print_json

    server = server_of(options)
    nodes = [_read(server, options.id, name) for name in _names(server, options.id, options.node)]
    if options.json:
        print_json({"items": nodes})
        return 0
    rows = []
    for node in nodes:
        waiting = node["waiting"]
        message = "" if waiting is None else waiting["message"]
        until = "" if waiting is None or waiting["until"] is None else f": {moment(waiting['until'])}"
        rows.append((node["node_id"], node["state"], message + until))
    print_table(("node", "state", "why it does not run"), rows, whole=("node",))
    return 0


def _names(server: HttpClient, execution_id: str, node: str | None) -> list[str]:
    from ..server import in_path

    if node is not None:
        return [node]
    states = server.get(f"/v1/workflows/{in_path(execution_id)}")["node_states"]
    return [name for name, state in states.items() if state in ("PENDING", "QUEUED")][:MOST_NODES]


def _read(server: HttpClient, execution_id: str, node: str) -> Any:
    from ..server import in_path

    return server.get(f"/v1/workflows/{in_path(execution_id)}/nodes/{in_path(node)}")
