"""What settings mean together: what cannot start with this version."""

from __future__ import annotations

from .kinds import ROLES
from .settings import Settings, SettingsError


def check_supported(settings: Settings) -> None:
    """Raise `SettingsError` for a backend or roles that this version does not have."""
    problems = []
    if settings.backend != "embedded":
        problems.append(
            f"BACKEND: {settings.backend} is not there yet; this version has the embedded backend only, "
            "so leave it unset or set it to embedded"
        )
    if settings.runtime_roles != ROLES:
        problems.append(
            f"RUNTIME_ROLES: {','.join(settings.runtime_roles)} needs the backend distributed, which is not there yet; "
            "this version has the embedded backend only, so leave it unset or set it to all"
        )
    if problems:
        raise SettingsError("\n".join(problems))
