"""A function on call: one handler run durably, as an execution of a definition of one node that the engine makes.

The configuration is the execution's input, which a template hands over as one value: so all calls of a function with
the same options are executions of one definition, and what looks like a template in a configuration is text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FUNCTION_PREFIX = "function:"
"""Begins the names of these definitions, and of no others."""
CALL_NODE = "call"
WHOLE_INPUT = "{{ input }}"


def function_definition(handler: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The definition of a handler's calls. `options`: of a node's fields, `timeout_seconds` and `retry_config`."""
    node = {"id": CALL_NODE, "handler": handler, "config": WHOLE_INPUT, **options}
    return {"name": FUNCTION_PREFIX + handler, "dag": {"nodes": [node]}}
