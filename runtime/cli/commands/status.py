"""`workflow-engine status ID`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..options import add_id, add_server

if TYPE_CHECKING:
    from ..http_client import HttpClient
    from ..options import Commands

LOOK_SECONDS = 1.0


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("status", help="print the state of an execution and of its nodes")
    add_id(parser)
    parser.add_argument("--follow", action="store_true", help="report each change until it has ended")
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print where it stands now, or at its end."""
    from ..server import server_of
    from ..terminal import print_json

    server = server_of(options)
    status = _follow(server, options.id) if options.follow else _read(server, options.id)
    if options.json:
        print_json(status)
    else:
        _show(status)
    return 0


def _read(server: HttpClient, execution_id: str) -> Mapping[str, Any]:
    from ..server import in_path

    status: Mapping[str, Any] = server.get(f"/v1/workflows/{in_path(execution_id)}")
    return status


def _follow(server: HttpClient, execution_id: str) -> Mapping[str, Any]:
    """Report the nodes' changes on standard error until the end; the last status."""
    from ..errors import report
    from ..waiting import EXIT_CODES, read_results

    shown: dict[str, str] = {}
    while True:
        status = _read(server, execution_id)
        for node_id, state in _changes(status, shown):
            report(f"{state:<9}  {node_id}")
        if status["state"] in EXIT_CODES:
            return status
        # The answer comes when the execution ends, or after this time.
        read_results(server, execution_id, LOOK_SECONDS)


def _changes(status: Mapping[str, Any], shown: dict[str, str]) -> Iterator[tuple[str, str]]:
    for node_id, state in status["node_states"].items():
        if shown.get(node_id, "PENDING") != state:
            shown[node_id] = state
            yield node_id, state


def _show(status: Mapping[str, Any]) -> None:
    from ...core.problem import printable
    from ..errors import report
    from ..tables import moment, print_table
    from ..waiting import failure

    print(printable(f"{status['id']}  {status['state']}"))
    for name in ("started", "completed"):
        if status[f"{name}_at"] is not None:
            print(printable(f"{name:<9}  {moment(status[f'{name}_at'])}"))
    print()
    waiting = status.get("waiting") or {}
    rows = [(node_id, state, waiting.get(node_id, "")) for node_id, state in status["node_states"].items()]
    if waiting:
        print_table(("node", "state", ""), rows)
    else:
        print_table(("node", "state"), (row[:2] for row in rows))
    if status["error"] is not None:
        report(failure(status["error"]))
