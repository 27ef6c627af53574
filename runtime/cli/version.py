"""What `workflow-engine --version` prints: what a plugin has to fit."""

from __future__ import annotations

import os
import platform
import sys

from ... import __version__
from ..core.plugin_api import PLUGIN_API_VERSION


def version_text() -> str:
    """The engine, the plugin API, Python and the system, a line each."""
    form = ", frozen into a binary" if getattr(sys, "frozen", False) else ""
    return "\n".join(
        (
            f"workflow-engine {__version__}",
            f"plugin API {PLUGIN_API_VERSION}",
            f"{platform.python_implementation()} {platform.python_version()}{form}",
            ", ".join(filter(None, (f"{platform.system()} {platform.machine()}", _c_library()))),
        )
    )


def _c_library() -> str | None:
    """Its name and version, such as "glibc 2.36"; None for another than that."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None
