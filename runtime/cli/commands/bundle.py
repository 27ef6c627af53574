"""`workflow-engine bundle`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import path

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "bundle",
        help="make a binary with plugins inside; only the binary itself can do that",
        description="Writes this binary to another file, with plugins inside. It needs no Python, and no network.",
    )
    parser.add_argument(
        "--plugin",
        type=path,
        nargs="+",
        action="extend",
        required=True,
        metavar="WHEEL",
        help="the wheel of a plugin, or of what a plugin needs",
    )
    parser.add_argument("-o", "--output", type=path, required=True, metavar="FILE", help="the binary to write")
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Write the binary, and say what is in it."""
    from ..bundle import make_bundle, running_binary

    bundle = make_bundle(running_binary(), options.plugin, options.output)
    print(f"{options.output} ({options.output.stat().st_size / 1e6:.1f} MB) has {', '.join(map(str, bundle.wheels))}")
    if bundle.left_out:
        print(f"left out, since every binary has them: {', '.join(map(str, bundle.left_out))}")
    return 0
