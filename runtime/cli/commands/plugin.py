"""`workflow-engine plugin`: what is installed, whether a plugin is good, what its handlers do."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ..options import add_json, add_plugins_dir, text

if TYPE_CHECKING:
    from ....plugins.discovery import Catalogue
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    group = commands.add_parser("plugin", help="list plugins, check one, print the documentation of its handlers")
    verbs = group.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True, prog=group.prog)
    listing = verbs.add_parser("list", help="every plugin here: what it has, or why it is not loaded")
    add_plugins_dir(listing)
    add_json(listing)
    listing.set_defaults(execute=list_plugins)
    check = verbs.add_parser(
        "check",
        help="find what would keep a plugin from being loaded, and what its users would miss",
        description="Check a plugin beside all others that are installed. It need not be installed itself.",
    )
    check.add_argument(
        "target",
        type=text,
        metavar="PATH_OR_DIST",
        help="a project's folder, a wheel, a Python file, a folder filled by pip, or the name of an installed package",
    )
    add_plugins_dir(check)
    add_json(check)
    check.set_defaults(execute=check_plugin)
    docs = verbs.add_parser("docs", help="print the documentation of handlers, made from their code")
    docs.add_argument("name", nargs="?", type=text, metavar="NAME", help="of a handler or of a package (all)")
    docs.add_argument("--format", choices=("text", "markdown"), default="text", help="how it is written (text)")
    add_plugins_dir(docs)
    docs.set_defaults(execute=print_docs)


def list_plugins(options: argparse.Namespace) -> int:
    """Print each plugin with its state."""
    from ..errors import report
    from ..tables import print_table
    from ..terminal import print_json

    catalogue = _discover(options)
    items = [
        {
            "distribution": plugin.origin.distribution,
            "version": plugin.origin.version,
            "entry_point": plugin.entry_point,
            "state": plugin.state,
            "handlers": [handler.name for handler in plugin.handlers],
            "hooks": list(plugin.hooks),
            "reason": plugin.reason,
        }
        for plugin in catalogue.plugins
    ]
    if options.json:
        print_json({"items": items})
        return 0
    columns = ("distribution", "version", "entry point", "state", "handlers", "hooks", "reason")
    rows = [tuple(", ".join(cell) if isinstance(cell, list) else cell for cell in item.values()) for item in items]
    print_table(columns, rows, whole=columns[:4])
    for notice in catalogue.notices:
        if notice.startswith("PLUGINS_DIR"):
            report(notice)
    return 0


def check_plugin(options: argparse.Namespace) -> int:
    """Print what was found; 1 when something would stop the start."""
    from ....plugins.sources import add_folder
    from ....plugins.targets import load_target
    from ..checks.plugin import check_plugin
    from ..errors import FAILURE
    from ..main import build_parser
    from ..terminal import print_json
    from .doctor import print_findings

    settings = _settings(options)
    if settings["plugins_dir"] is not None:
        add_folder(settings["plugins_dir"])
    commands = command_names(build_parser())
    plugins = load_target(options.target, settings)
    findings = [finding for plugin in plugins for finding in check_plugin(plugin, settings, commands)]
    if options.json:
        print_json({"findings": [finding._asdict() for finding in findings]})
    else:
        print_findings(findings)
    return FAILURE if any(finding.level == "error" for finding in findings) else 0


def print_docs(options: argparse.Namespace) -> int:
    """Print the documentation of the handlers that are meant."""
    from ...core.problem import did_you_mean, printable
    from ..errors import UsageError
    from ..handler_pages import handler_page

    records = _discover(options).records
    wanted = [each for each in records if options.name in (None, each.name, each.distribution)]
    if not wanted:
        known = {record.name for record in records} | {record.distribution or "" for record in records}
        raise UsageError(f"there is no handler and no package {options.name!r}{did_you_mean(options.name, known)}")
    pages = [handler_page(record, markdown=options.format == "markdown") for record in wanted]
    for line in "\n\n\n".join(pages).split("\n"):
        print(printable(line))
    return 0


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """The settings as plugins see them; one that is broken is looked at, and stops nothing."""
    from ....config import load_settings
    from ...parts import plugin_settings

    given = {} if options.plugins_dir is None else {"plugins_dir": options.plugins_dir}
    return {**plugin_settings(load_settings(given)), "plugins_on_error": "skip"}


def _discover(options: argparse.Namespace) -> Catalogue:
    from ....plugins.discovery import discover

    return discover(_settings(options))


def command_names(parser: argparse.ArgumentParser) -> list[str]:
    """The engine's own commands."""
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return list(commands.choices)
