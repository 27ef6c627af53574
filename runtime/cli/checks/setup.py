"""Versions, settings, plugins, limits of the system."""

from __future__ import annotations

import platform
import resource
import sqlite3
from collections.abc import Iterator

from .... import __version__
from ....config import Settings, SettingsError, check_supported, setting_warnings
from ....plugins.discovery import PluginError, discover
from ...parts import plugin_settings
from ...store.sqlite import OLDEST_SQLITE
from .finding import Finding, error, ok, warning

SPARE_DESCRIPTORS = 100


def check_versions() -> Iterator[Finding]:
    """The engine's, Python's and SQLite's version."""
    yield ok("versions", f"workflow-engine {__version__}, Python {platform.python_version()}")
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE[:2]))
        yield error(
            "versions", f"SQLite {sqlite3.sqlite_version} is too old", f"Use a Python that has {needed} or newer."
        )
    else:
        yield ok("versions", f"SQLite {sqlite3.sqlite_version}")


def check_settings(settings: Settings) -> Iterator[Finding]:
    """What this version does not have, what is nearly a setting, what fails on purpose."""
    found = []
    try:
        check_supported(settings)
    except SettingsError as unsupported:
        found += [error("settings", line, None) for line in str(unsupported).splitlines()]
    for line in setting_warnings(settings, _handlers(settings)):
        found.append(warning("settings", line, "Correct the variable, or unset it."))
    if settings.failpoints:
        found.append(warning("settings", "FAILPOINTS is set: this process fails on purpose", "Unset it."))
    yield from found or [ok("settings", "every variable is known, every value is allowed")]


def check_plugins(settings: Settings) -> Iterator[Finding]:
    """Whether every plugin loads."""
    try:
        catalogue = discover(plugin_settings(settings))
    except PluginError as bad:
        yield error("plugins", str(bad), "Run workflow-engine plugin list.")
    else:
        for notice in catalogue.notices:
            yield warning("plugins", notice, "Run workflow-engine plugin list.")
        yield ok("plugins", f"{len(catalogue)} handlers: {', '.join(sorted(catalogue))}")


def check_open_files(settings: Settings) -> Iterator[Finding]:
    """Whether the process may open as many connections as the settings allow."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.api_max_concurrent_requests + settings.worker_concurrency + SPARE_DESCRIPTORS
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        yield warning(
            "limits",
            f"a process may open {allowed} files; API_MAX_CONCURRENT_REQUESTS and WORKER_CONCURRENCY may need {needed}",
            f"Run ulimit -n {needed} before, or lower them.",
        )
    else:
        yield ok("limits", f"a process may open {allowed} files" if allowed >= 0 else "any number of open files")


def _handlers(settings: Settings) -> list[str]:
    try:
        return list(discover(plugin_settings(settings)))
    except PluginError:
        # Its own check says so; without its handlers, variables named after them look unknown.
        return []
