"""`workflow-engine trace ID`: where the time of an execution went."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ..options import add_id, add_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..options import Commands

COLUMNS = ("node", "attempt", "state", "waited", "ran", "")
WIDTH_CHARACTERS = 48
WAITS, RUNS = ".", "="


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "trace",
        help="draw when each attempt waited and ran",
        description="Draw a line for each attempt that has ended, over the time of the execution: dots while it "
        "waited, a bar while it ran. --json and --jaeger print the trace's spans instead.",
    )
    add_id(parser)
    parser.add_argument("--jaeger", action="store_true", help="print the trace as Jaeger's page takes it")
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Draw, or print the spans."""
    from ..pages import read_pages
    from ..server import in_path, server_of
    from ..tables import print_table
    from ..terminal import print_json

    server = server_of(options)
    execution = f"/v1/workflows/{in_path(options.id)}"
    if options.json or options.jaeger:
        print_json(server.get(f"{execution}/trace", {"format": "jaeger" if options.jaeger else "otlp"}))
        return 0
    everything = argparse.Namespace(limit=sys.maxsize, cursor=None)
    attempts = read_pages(server, f"{execution}/timeline", everything)["items"]
    if not attempts:
        print("no attempt has ended yet")
        return 0
    began = min(_milliseconds(each["queued_at"]) for each in attempts)
    ended = max(_milliseconds(each["finished_at"]) for each in attempts)
    attempts.sort(key=lambda each: (each["queued_at"], each["finished_at"]))
    rows = [_row(each, began, max(1.0, ended - began)) for each in attempts]
    print(f"trace {options.id.replace('-', '')}, {_text(ended - began)}\n")
    print_table(COLUMNS, rows, whole=COLUMNS)
    return 0


def _row(attempt: Any, began: float, length: float) -> Sequence[Any]:
    queued, ended = _milliseconds(attempt["queued_at"]), _milliseconds(attempt["finished_at"])
    started = ended if attempt["started_at"] is None else _milliseconds(attempt["started_at"])
    first, middle, last = (round((each - began) / length * WIDTH_CHARACTERS) for each in (queued, started, ended))
    # What took less than a character's time is seen all the same.
    line = " " * first + WAITS * (middle - first) + RUNS * max(1, last - middle)
    return (
        attempt["node_id"],
        attempt["attempt"],
        attempt["state"],
        _text(started - queued),
        None if attempt["started_at"] is None else _text(ended - started),
        line,
    )


def _milliseconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp() * 1000


def _text(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.3f} s"
