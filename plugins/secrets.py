"""Secrets of handlers, where no plugin knows them: from the environment, and from a folder of files."""

from __future__ import annotations

import os
import re
from pathlib import Path

PREFIX = "WORKFLOW_ENGINE_SECRET_"
"""Of the variables: the secret `stripe-key` is in WORKFLOW_ENGINE_SECRET_STRIPE_KEY."""

SECRET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def variable_of(name: str) -> str:
    """The variable that a secret may be in."""
    return PREFIX + name.upper().replace("-", "_").replace(".", "_")


def find_secret(name: str, folder: Path | None) -> str | None:
    """The secret of this name; of a file without the line feed at its end. None: nobody has set it.

    Raises `OSError` and `UnicodeError` for a file that cannot be read.
    """
    value = os.environ.get(variable_of(name))
    if value is not None or folder is None:
        return value
    try:
        return (folder / name).read_text("utf-8").removesuffix("\n")
    except FileNotFoundError:
        return None
