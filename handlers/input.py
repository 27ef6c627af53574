"""`input`: where a workflow begins."""

from __future__ import annotations

from typing import Any

from ..plugins import NodeContext, handler


@handler("input")
async def input_handler(_config: dict[str, Any], context: NodeContext) -> Any:
    """Pass on the parameters that the execution was triggered with."""
    return context.parameters
