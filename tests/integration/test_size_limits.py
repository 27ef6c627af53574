"""The size limits are those of the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workflow_engine.plugins import NodeContext, handler

Make = Callable[..., Any]

LIMIT_BYTES = 2_000


@handler("text")
async def text(config: dict[str, Any], _context: NodeContext) -> str:
    """A text of so many characters."""
    return "x" * int(config["characters"])


async def test_the_largest_output_of_a_node(start_runtime: Make, run_workflow: Make) -> None:
    runtime = await start_runtime(handlers=[text], max_node_output_bytes=LIMIT_BYTES)

    def nodes(characters: int) -> list[dict[str, Any]]:
        return [{"id": "a", "handler": "text", "config": {"characters": characters}}]

    fits = await run_workflow(runtime, nodes(LIMIT_BYTES - 2))
    fails = await run_workflow(runtime, nodes(LIMIT_BYTES - 1))

    assert fits.state == "COMPLETED"
    assert fails.state == "FAILED"
    assert fails.error["type"] == "output_too_large"
    assert fails.error["message"].endswith(f"more than {LIMIT_BYTES} bytes of JSON")
