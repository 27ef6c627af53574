"""Options that several commands share. Light: it is imported to parse any command."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

STATES = ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED")


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def add_server(parser: argparse.ArgumentParser) -> None:
    """`--url`, `--api-key-file` and `--json`: of every command that talks to a server."""
    parser.add_argument("--url", help="the server (WORKFLOW_ENGINE_URL; http://127.0.0.1:8000)")
    parser.add_argument(
        "--api-key-file",
        type=path,
        metavar="FILE",
        help="file that holds the API key (the key itself may be in WORKFLOW_ENGINE_API_KEY)",
    )
    add_json(parser)


def add_file(parser: argparse.ArgumentParser) -> None:
    """`FILE`, a workflow definition."""
    parser.add_argument(
        "file", type=path, metavar="FILE", help="the workflow definition as JSON; - reads it from standard input"
    )


def add_id(parser: argparse.ArgumentParser) -> None:
    """`ID`, of an execution."""
    parser.add_argument("id", type=text, metavar="ID", help="the execution's id")


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """`--input`, any number of times."""
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input parameter; the value is JSON where it can be, else text",
    )


def add_serve_settings(parser: argparse.ArgumentParser) -> None:
    """Options that stand for settings of `serve`."""
    parser.add_argument("--host", help="address to listen on (API_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 picks a free one (API_PORT)")
    parser.add_argument(
        "--roles", type=text, help="what this process does: all, or some of api,orchestrator,worker (RUNTIME_ROLES)"
    )
    add_plugins_dir(parser)
    add_demo(parser)


def add_plugins_dir(parser: argparse.ArgumentParser) -> None:
    """`--plugins-dir`."""
    parser.add_argument(
        "--plugins-dir",
        type=path,
        metavar="DIR",
        help="folder that `pip install --target` has filled, searched for plugins too (PLUGINS_DIR)",
    )


def add_demo(parser: argparse.ArgumentParser) -> None:
    """`--demo`."""
    parser.add_argument("--demo", action="store_true", help="mock the external and LLM handlers (DEMO_MODE)")


def given_settings(options: argparse.Namespace) -> dict[str, object]:
    """The settings that options of `add_serve_settings` stand for, by field."""
    given = {"api_host": options.host, "api_port": options.port, "demo_mode": options.demo or None}
    given |= {"runtime_roles": options.roles, "plugins_dir": options.plugins_dir}
    return {name: value for name, value in given.items() if value is not None}


def add_wait(parser: argparse.ArgumentParser) -> None:
    """`--wait` and `--timeout`."""
    parser.add_argument("--wait", action="store_true", help="wait until it has ended, and print its results")
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS", help="wait at most so long")


def add_filter(parser: argparse.ArgumentParser) -> None:
    """Which executions are meant."""
    parser.add_argument(
        "--state", action="append", choices=STATES, default=[], help="only in this state; may be given several times"
    )
    add_conditions(parser)


def add_conditions(parser: argparse.ArgumentParser) -> None:
    """Which executions are meant, whatever their states."""
    parser.add_argument("--name", type=text, help="only of the definition with this name")
    parser.add_argument(
        "--created-from", type=text, metavar="TIME", help="only created at this time or later: 2026-01-31T09:00:00Z"
    )
    parser.add_argument("--created-before", type=text, metavar="TIME", help="only created before this time")


def filters(options: argparse.Namespace) -> dict[str, object]:
    """What was given of the options of `add_conditions`, by the API's names."""
    given = {"name": options.name, "created_from": options.created_from, "created_before": options.created_before}
    return {name: value for name, value in given.items() if value is not None}


def add_page(parser: argparse.ArgumentParser) -> None:
    """`--limit` and `--cursor`."""
    parser.add_argument("--limit", type=count, default=50, help="how many at most (50)")
    parser.add_argument("--cursor", type=text, help="go on behind an earlier list, which says how")


def path(value: str) -> Path:
    """The path of a file."""
    from pathlib import Path

    return Path(value)


def text(value: str) -> str:
    """A text that is not empty."""
    if not value:
        raise argparse.ArgumentTypeError("an empty text names nothing")
    return value


def count(value: str) -> int:
    """A whole number above 0."""
    if not value.isascii() or not value.isdecimal() or int(value) < 1:
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number above 0")
    return int(value)


def whole(value: str) -> int:
    """A whole number of at least 0."""
    if not value.isascii() or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"{value!r} is not a whole number")
    return int(value)


def seconds(value: str) -> float:
    """A time of at least 0."""
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds")
    return number
