"""Fixtures of the unit tests."""

from __future__ import annotations

import os

import pytest

from workflow_engine.config import Settings
from workflow_engine.config.families import FAMILIES


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without any of the engine's variables."""
    prefixes = tuple(family.prefix for family in FAMILIES)
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name.upper().startswith(prefixes):
            monkeypatch.delenv(name)
