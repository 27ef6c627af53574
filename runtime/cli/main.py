"""The command line: `workflow-engine serve`, `run` and `config`.

Imports are kept inside the commands, so that `--version` and `--help` answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.version:
        from ... import __version__

        print(f"workflow-engine {__version__}")
        return 0
    if options.command is None:
        _parser().print_help(sys.stderr)
        return USAGE_ERROR
    from .errors import reporting_errors

    with reporting_errors() as outcome:
        outcome.code = options.execute(options)
    return outcome.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="workflow-engine", description="A workflow orchestration engine. Settings come from the environment."
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the API, the orchestrator and the workers in this process")
    _add_serve_options(serve)
    serve.set_defaults(execute=_serve)
    run = commands.add_parser("run", help="run a workflow file once, here, and print its result")
    run.add_argument("file", type=Path, help="the workflow definition as JSON")
    run.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input parameter; the value is JSON where it can be, else text",
    )
    run.add_argument("--demo", action="store_true", help="mock the external and LLM handlers (DEMO_MODE)")
    run.set_defaults(execute=_run)
    config = commands.add_parser("config", help="print the settings in effect, and where each came from")
    _add_serve_options(config)
    config.add_argument("--json", action="store_true", help="print one JSON document")
    config.set_defaults(execute=_config)
    return parser


def _add_serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (API_HOST)")
    parser.add_argument("--port", type=int, help="port to listen on; 0 picks a free one (API_PORT)")
    parser.add_argument("--demo", action="store_true", help="mock the external and LLM handlers (DEMO_MODE)")


def _given_settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings that options of `serve` stand for, by field."""
    given = {"api_host": options.host, "api_port": options.port, "demo_mode": options.demo or None}
    return {name: value for name, value in given.items() if value is not None}


def _serve(options: argparse.Namespace) -> int:
    from .serve import serve

    return serve(_given_settings(options))


def _run(options: argparse.Namespace) -> int:
    from .run import run_file

    return run_file(options.file, options.input, demo=options.demo)


def _config(options: argparse.Namespace) -> int:
    from .config_command import show_config

    return show_config(_given_settings(options), as_json=options.json)
