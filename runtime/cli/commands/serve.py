"""`workflow-engine serve`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_serve_settings, given_settings

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("serve", help="run the API, the orchestrator and the worker, or some of them")
    add_serve_settings(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from ..serve import serve

    return serve(given_settings(options))
