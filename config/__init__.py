"""Settings: every environment variable, typed, documented and validated."""

from .checks import check_supported, setting_warnings
from .settings import Settings, SettingsError, load_settings

__all__ = ["Settings", "SettingsError", "check_supported", "load_settings", "setting_warnings"]
