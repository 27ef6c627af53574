"""Settings: every environment variable, typed, documented and validated."""

from .settings import Settings, SettingsError, load_settings

__all__ = ["Settings", "SettingsError", "load_settings"]
