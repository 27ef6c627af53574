"""`workflow-engine handlers`: the node types."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_server

if TYPE_CHECKING:
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "handlers",
        help="list the handlers installed here, or at a server",
        description="List the handlers installed here; with --url or WORKFLOW_ENGINE_URL those of the server.",
    )
    add_server(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print each handler's name, what it does and what its configuration takes."""
    from ..server import server_of, server_url
    from ..tables import print_table
    from ..terminal import print_json

    listed = server_of(options).get("/v1/functions") if server_url(options) else {"items": _installed()}
    if options.json:
        print_json(listed)
        return 0
    rows = ((item["name"], _summary(item["description"]), _keys(item["config_schema"])) for item in listed["items"])
    print_table(("handler", "what it does", "configuration"), rows, whole=("handler",))
    return 0


def _installed() -> list[dict[str, object]]:
    from ....config import load_settings
    from ....plugins.discovery import discover
    from ...api.function_routes import function_item
    from ...parts import plugin_settings

    return [function_item(record) for record in discover(plugin_settings(load_settings())).records]


def _summary(description: Any) -> str:
    """The first paragraph of a description, in one line."""
    return " ".join(str(description).partition("\n\n")[0].split())


def _keys(schema: Any) -> str:
    """The keys of a configuration; those that must be there with a star."""
    if not isinstance(schema, dict):
        return "any"
    needed = schema.get("required", [])
    return ", ".join(f"{name}*" if name in needed else name for name in schema.get("properties", {})) or "none"
