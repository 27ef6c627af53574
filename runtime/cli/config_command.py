"""`workflow-engine config`: the settings that are in effect, and where each came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...config import Settings, SettingsError, check_supported, load_settings, setting_warnings
from ...config.effective import EffectiveSetting, effective_settings
from ...plugins.discovery import PluginError, discover
from ..parts import plugin_settings
from .errors import report
from .tables import print_table
from .terminal import print_json


def show_config(overrides: Mapping[str, Any], *, as_json: bool) -> int:
    """Print every setting as `serve` would use it with `overrides`; warnings go to standard error. Returns 0."""
    settings = load_settings(overrides)
    shown = effective_settings(settings, overrides)
    warnings = _warnings(settings)
    if as_json:
        document = {"settings": [setting._asdict() for setting in shown], "warnings": warnings}
        print_json(document)
    else:
        print_table(("variable", "value", "from"), _rows(shown))
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
        catalogue = discover(plugin_settings(settings))
    except PluginError as error:
        return [*warnings, str(error)]
    return [*warnings, *catalogue.notices, *setting_warnings(settings, catalogue)]


def _rows(shown: Sequence[EffectiveSetting]) -> Iterator[tuple[object, ...]]:
    """Each setting, under its group's title."""
    group = None
    for setting in shown:
        if setting.group != group:
            group = setting.group
            yield ()
            yield (group.upper(),)
        value = str(setting.value).lower() if isinstance(setting.value, bool) else setting.value
        yield setting.variable, value, setting.origin
