"""The settings as they are in effect: each with its value, and where that came from. Secrets are masked."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from typing import Any, NamedTuple

from pydantic import SecretStr

from .addresses import MASK, PARTS_OF, mask_url
from .families import FAMILIES, Family
from .settings import Settings
from .tables import setting_groups, text_of

# Settings that are decided by others while they are not set: the property that decides, and by what.
_DERIVED = {
    "api_keys_required": ("keys_required", "ENVIRONMENT and API_HOST"),
    "http_allow_private": ("allow_private_addresses", "ENVIRONMENT"),
    "plugins_allow": ("allowed_plugins", "ENVIRONMENT"),
}


class EffectiveSetting(NamedTuple):
    """One variable. `value` is what a JSON document can hold; `origin` says where it came from."""

    group: str
    variable: str
    value: bool | int | float | str | None
    origin: str


def effective_settings(settings: Settings, overrides: Container[str]) -> list[EffectiveSetting]:
    """Every setting of `settings`, by group; `overrides` names the fields that the command line gave."""
    origins = _Origins(settings, overrides)
    families = {family.title: family for family in FAMILIES}
    effective: list[EffectiveSetting] = []
    for group in setting_groups():
        if group.title in families:
            effective += _members(group.title, families[group.title], settings, origins)
            continue
        for row in group.rows:
            name = row.variable.lower()
            value, origin = origins.value_and_origin(name)
            effective.append(EffectiveSetting(group.title, row.variable, _shown(name, value), origin))
    return effective


class _Origins:
    """Where each value came from."""

    def __init__(self, settings: Settings, overrides: Container[str]) -> None:
        self._settings = settings
        self._overrides = overrides
        self._environment = {name.upper() for name in os.environ}
        self._by_url = {
            name: url_name.upper()
            for url_name, read in PARTS_OF.items()
            if (url := getattr(settings, url_name)) is not None
            for name in read(url.get_secret_value())
        }

    def value_and_origin(self, name: str) -> tuple[Any, str]:
        value = getattr(self._settings, name)
        if value is None and name in _DERIVED:
            attribute, by = _DERIVED[name]
            return getattr(self._settings, attribute), by
        if name in self._overrides:
            return value, "command line"
        return value, self.of_variable(name.upper()) if name not in self._by_url else self._by_url[name]

    def of_variable(self, variable: str) -> str:
        return "environment" if variable in self._environment else "default"


def _members(title: str, family: Family, settings: Settings, origins: _Origins) -> Iterator[EffectiveSetting]:
    for suffix, seconds in getattr(settings, family.field).items():
        variable = family.prefix + suffix
        yield EffectiveSetting(title, variable, seconds, origins.of_variable(variable))


def _shown(name: str, value: Any) -> bool | int | float | str | None:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if name.endswith("_url"):
        return mask_url(text_of(value))
    return MASK if isinstance(value, SecretStr) else text_of(value)
