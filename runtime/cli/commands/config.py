"""`workflow-engine config`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_json, add_serve_settings, given_settings

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("config", help="print the settings in effect, and where each came from")
    add_serve_settings(parser)
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print the settings."""
    from ..config_command import show_config

    return show_config(given_settings(options), as_json=options.json)
