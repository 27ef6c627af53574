"""What the commands that talk to a server read from the environment. Imports no settings, so it is there at once."""

from __future__ import annotations

import os
from typing import NamedTuple

URL_VARIABLE = "WORKFLOW_ENGINE_URL"
KEY_VARIABLE = "WORKFLOW_ENGINE_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"


class ClientSettings(NamedTuple):
    """Where the server is, and the API key for it; None for what is not set."""

    url: str | None
    api_key: str | None


def client_settings() -> ClientSettings:
    """The client's settings from the environment. A variable that is set to nothing says nothing."""
    return ClientSettings(os.environ.get(URL_VARIABLE) or None, os.environ.get(KEY_VARIABLE) or None)
