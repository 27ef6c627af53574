"""The checks of `doctor`: each looks at one part of a setup and says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from ....config import Settings, SettingsError, load_settings
from . import access, database, network, postgres, redis, setup
from .finding import Finding, error

Check = Callable[[Settings], Iterator[Finding]]

CHECKS: Sequence[tuple[str, Check]] = (
    ("settings", setup.check_settings),
    ("plugins", setup.check_plugins),
    ("limits", setup.check_open_files),
    ("database", database.check_file),
    ("database", database.check_space),
    ("database", postgres.check_server),
    ("redis", redis.check_server),
    ("schema", database.check_schema),
    ("clock", database.check_clock),
    ("port", network.check_port),
    ("server", network.check_server),
    ("keys", access.check_keys),
    ("production", access.check_production),
    ("llm", access.check_llm),
)


def examine(overrides: Mapping[str, object]) -> list[Finding]:
    """What every check found, in order. `overrides` are settings that go before the environment."""
    findings = list(setup.check_versions())
    try:
        settings = load_settings(overrides)
    except SettingsError as bad:
        lines = str(bad).splitlines()
        return findings + [error("settings", line, "Set it to what is allowed, or unset it.") for line in lines]
    for name, check in CHECKS:
        try:
            findings += check(settings)
        except Exception as fault:
            findings.append(error(name, f"cannot be checked: {type(fault).__name__}: {fault}", None))
    return findings
