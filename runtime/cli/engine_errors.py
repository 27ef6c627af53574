"""The errors of the engine that a command may meet, as the command line tells them."""

from __future__ import annotations

from ...config import SettingsError
from ...plugins.discovery import PluginError
from ..errors import CallerError, EngineError
from .errors import FAILURE, USAGE_ERROR, CommandError


def as_command_error(error: Exception) -> CommandError | None:
    """The error in words and with its exit code; None when it is none that a command expects."""
    if isinstance(error, SettingsError | PluginError):
        return CommandError(str(error), USAGE_ERROR)
    if isinstance(error, EngineError):
        code = USAGE_ERROR if isinstance(error, CallerError) else FAILURE
        return CommandError(f"{(type(error).__doc__ or '').strip()}: {error}", code, error.problems)
    return None
