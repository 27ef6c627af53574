"""`workflow-engine history ID`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_id, add_page, add_server

if TYPE_CHECKING:
    from ..options import Commands

COLUMNS = ("time", "what", "node", "attempt", "")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "history",
        help="print what has happened to an execution, in order",
        description="Print every event of an execution, by time. What runs now is there when it has ended.",
    )
    add_id(parser)
    add_page(parser)
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print the events."""
    from ..pages import read_pages, show_page
    from ..server import in_path, server_of

    page = read_pages(server_of(options), f"/v1/workflows/{in_path(options.id)}/history", options, {})
    return show_page(page, COLUMNS, map(_row, page["items"]), as_json=options.json, whole=("time", "what", "node"))


def _row(event: Any) -> tuple[Any, ...]:
    details = event["details"]
    error = details.get("error")
    words = [str(details[name]) for name in ("state", "retry_at") if name in details]
    if error is not None:
        words.append(f"{error['type']}: {error['message']}")
    if details.get("effective") is False:
        words.append("without effect: it had ended")
    what = event["event"].replace("_", " ")
    return event["at"], what, event.get("node_id"), event.get("attempt"), "  ".join(words)
