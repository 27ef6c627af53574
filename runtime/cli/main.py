"""The command line: `workflow-engine COMMAND`.

Each command is a module of `commands/`, which adds its own parser. What a command needs is imported when it
runs, so that `--version`, `--help` and completion answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from .commands import COMMANDS
from .errors import EXIT_CODES, USAGE_ERROR, with_reported_errors


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code. Raises `SystemExit` where argparse does."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = build_parser(next((word for word in given if not word.startswith("-")), None))
    options = parser.parse_args(given)
    if options.version:
        from .version import version_text

        print(version_text())
        return 0
    if options.command is None:
        parser.print_help(sys.stderr)
        return USAGE_ERROR
    return with_reported_errors(lambda: int(options.execute(options)))


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations, which the next option could make ambiguous, and names what is near a wrong word."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, allow_abbrev=False)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from ..core.problem import did_you_mean

            choices = [str(choice) for choice in action.choices]
            hint = did_you_mean(str(value), choices) or f"; there are {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"there is no {value!r}{hint}")


def build_parser(command_given: str | None = None) -> argparse.ArgumentParser:
    """The parser of every command; `execute` of what it parses runs the command.

    `command_given`: the command that is looked for among the plugins' if the engine does not have it.
    """
    codes = "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES)
    parser = _Parser(
        prog="workflow-engine",
        description="A workflow orchestration engine. Settings come from the environment.",
        epilog=f"exit codes:\n{codes}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="store_true", help="print the versions of the engine, its plugin API, Python and the system"
    )
    commands: Any = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", prog=parser.prog)
    for command in COMMANDS:
        command.register(commands)
    if command_given is not None and command_given not in commands.choices:
        from .plugin_commands import add_plugin_command

        add_plugin_command(commands, command_given)
    return parser
