"""What the commands that run the engine do before it starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ...config import Settings, setting_warnings
from .. import failpoints
from .errors import UsageError

log = logging.getLogger(__name__)


def check_failpoints(settings: Settings) -> None:
    """Raise `UsageError` for failpoints that cannot be read: the settings take them as any text."""
    try:
        failpoints.configure(settings.failpoints)
    except ValueError as error:
        raise UsageError(str(error)) from None


def warn_of_settings(settings: Settings, handlers: Iterable[str]) -> None:
    """Log what a user may have meant otherwise. `handlers` are the names of the handlers there are."""
    for warning in setting_warnings(settings, handlers):
        log.warning("%s", warning)
