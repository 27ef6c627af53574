"""The size limits are those of the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.errors import PayloadTooLarge

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


async def test_the_largest_input(start_runtime: Make, start_workflow: Make) -> None:
    runtime = await start_runtime(max_input_bytes=LIMIT_BYTES)
    nodes = [{"id": "a", "handler": "input"}]
    fits = LIMIT_BYTES - len('{"a":""}')

    assert await start_workflow(runtime, nodes, {"a": "x" * fits})
    with pytest.raises(PayloadTooLarge, match=f"^input_params: .*{LIMIT_BYTES} "):
        await start_workflow(runtime, nodes, {"a": "x" * (fits + 1)})


async def test_the_largest_definition(start_runtime: Make) -> None:
    runtime = await start_runtime(max_definition_bytes=LIMIT_BYTES)
    nodes = [{"id": "a", "handler": "input"}]

    assert await runtime.engine.submit({"name": "a", "dag": {"nodes": nodes}, "description": "x" * (LIMIT_BYTES - 200)})
    with pytest.raises(PayloadTooLarge, match=f"at most {LIMIT_BYTES} are allowed"):
        await runtime.engine.submit({"name": "a", "dag": {"nodes": nodes}, "description": "x" * LIMIT_BYTES})
