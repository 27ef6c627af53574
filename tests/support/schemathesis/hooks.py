"""What schemathesis must be told to speak to this API: how JSON lines are sent, and what it must leave alone."""

from __future__ import annotations

import os
from typing import Any

import schemathesis

OWN_KEY_ID = os.environ["SCHEMATHESIS_OWN_KEY_ID"]


@schemathesis.serializer("application/x-ndjson")
def json_lines(_context: Any, value: Any) -> bytes:
    """Lines as text, as the schema says; anything else is sent as it prints."""
    return str(value).encode("utf-8", "surrogatepass")


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: Any) -> None:
    """It finds the key it uses in the list of keys; revoking that one would end the run in 401s. And it has no
    patience: what may wait for minutes waits for a moment."""
    if (case.path_parameters or {}).get("key_id") == OWN_KEY_ID:
        case.path_parameters["key_id"] = "00000000-0000-7000-8000-000000000000"
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and 0.1 < wait <= 300:
        case.query["wait"] = 0.1
