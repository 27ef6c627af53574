"""`workflow-engine completion SHELL`: a script that completes commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..options import path

if TYPE_CHECKING:
    from ..options import Commands

SHELLS = ("bash", "zsh", "fish")


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands in a shell",
        description="""bash: eval "$(workflow-engine completion bash)" in ~/.bashrc;
zsh: workflow-engine completion zsh > a folder of $fpath/_workflow-engine;
fish: workflow-engine completion fish > ~/.config/fish/completions/workflow-engine.fish""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print the script, which is made from the parser."""
    import shtab

    from ..main import build_parser

    parser = build_parser()
    for action in _actions(parser):
        if action.type is path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, options.shell))
    return 0


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
