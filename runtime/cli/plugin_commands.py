"""The commands of plugins. They are looked for when a command is given that the engine does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...config import SettingsError, load_settings
from ...plugins.discovery import PluginError, discover
from ...plugins.offers import commands_of
from ..parts import plugin_settings
from .errors import report

if TYPE_CHECKING:
    from .options import Commands


def add_plugin_command(commands: Commands, name: str) -> None:
    """Add the command of this name, if a plugin has it. What keeps plugins from being loaded is reported."""
    try:
        catalogue = discover(plugin_settings(load_settings()))
        found = commands_of(catalogue.plugins, list(commands.choices))
    except (SettingsError, PluginError) as error:
        report(f"commands of plugins cannot be looked up: {error}")
        return
    command = found.get(name)
    if command is not None:
        parser = commands.add_parser(name, help=command.help, description=command.help)
        command.arguments(parser)
        parser.set_defaults(execute=command.run)
