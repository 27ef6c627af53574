"""How the command line tells what went wrong: on standard error, in words, with an exit code."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...config import Settings, SettingsError, setting_warnings
from ...plugins.discovery import PluginError
from .. import failpoints
from ..errors import CallerError, EngineError

log = logging.getLogger(__name__)

FAILURE = 1
USAGE_ERROR = 2
CANCELLED = 130


class UsageError(Exception):
    """The command was called in a way that cannot work."""


@dataclass
class Outcome:
    """The exit code, once it is known."""

    code: int = FAILURE


@contextmanager
def reporting_errors() -> Iterator[Outcome]:
    """Turn expected errors into a message and an exit code; anything else is a fault and shows its trace."""
    outcome = Outcome()
    try:
        yield outcome
    except (UsageError, SettingsError, PluginError) as error:
        outcome.code = USAGE_ERROR
        report(str(error))
    except KeyboardInterrupt:
        outcome.code = CANCELLED
    except EngineError as error:
        outcome.code = USAGE_ERROR if isinstance(error, CallerError) else FAILURE
        report(f"{(type(error).__doc__ or '').strip()}: {error}")
        for problem in error.problems:
            report(f"  {problem.path}: {problem.message}")


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


def report(message: str) -> None:
    """A line on standard error."""
    print(message, file=sys.stderr)
