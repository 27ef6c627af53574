"""Settings: every environment variable, typed, documented and validated.

Its names are imported when they are asked for: who only needs `client.py` does not load pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import check_supported, setting_warnings
    from .settings import Settings, SettingsError, load_settings

__all__ = ["Settings", "SettingsError", "check_supported", "load_settings", "setting_warnings"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = ".checks" if name in ("check_supported", "setting_warnings") else ".settings"
    return getattr(import_module(module, __name__), name)
