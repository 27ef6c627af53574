"""`workflow-engine config`: the settings that are in effect, and where each came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ...config import Settings, SettingsError, check_supported, load_settings, setting_warnings
from ...config.effective import EffectiveSetting, effective_settings
from ...plugins.discovery import PluginError, discover
from ..process import plugin_settings
from .errors import report

WIDEST_CHARACTERS = 10_000


def show_config(overrides: Mapping[str, Any], *, as_json: bool) -> int:
    """Print every setting as `serve` would use it with `overrides`; warnings go to standard error. Returns 0."""
    settings = load_settings(overrides)
    shown = effective_settings(settings, overrides)
    warnings = _warnings(settings)
    if as_json:
        document = {"settings": [setting._asdict() for setting in shown], "warnings": warnings}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _print_table(shown)
    for warning in warnings:
        report(f"warning: {warning}")
    return 0


def _warnings(settings: Settings) -> list[str]:
    """What stops a start, what a user may have meant otherwise."""
    warnings = []
    try:
        check_supported(settings)
    except SettingsError as error:
        warnings += str(error).splitlines()
    try:
        handlers: Sequence[str] = list(discover(plugin_settings(settings)))
    except PluginError as error:
        return [*warnings, str(error)]
    return warnings + setting_warnings(settings, handlers)


def _print_table(shown: Sequence[EffectiveSetting]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("variable", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    group = None
    for setting in shown:
        if setting.group != group:
            group = setting.group
            table.add_row()
            table.add_row(f"[bold]{group}[/bold]")
        table.add_row(setting.variable, _text(setting.value), setting.origin)
    # Into a file or a pipe, nothing is folded: it is for other programs too.
    Console(width=None if sys.stdout.isatty() else WIDEST_CHARACTERS).print(table)


def _text(value: bool | int | float | str | None) -> str:
    from rich.markup import escape

    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else escape(str(value))
