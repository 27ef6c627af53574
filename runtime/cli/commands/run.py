"""`workflow-engine run FILE`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_demo, add_file, add_inputs, add_json, add_plugins_dir

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("run", help="run a workflow file once, here, and print its result")
    add_file(parser)
    add_inputs(parser)
    add_plugins_dir(parser)
    add_demo(parser)
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Run it to its end."""
    from ..run import run_file

    given = {"demo_mode": options.demo or None, "plugins_dir": options.plugins_dir}
    overrides = {name: value for name, value in given.items() if value is not None}
    return run_file(options.file, options.input, overrides, as_json=options.json)
