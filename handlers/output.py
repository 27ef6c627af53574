"""`output`: where a workflow's results come together."""

from __future__ import annotations

from typing import Any

from ..plugins import NodeContext, handler


@handler("output")
async def output_handler(_config: dict[str, Any], context: NodeContext) -> Any:
    """Gather the outputs of the dependencies: `{dependency id: its output}`."""
    return dict(context.inputs)
