"""A handler that fails until it is mended."""

from __future__ import annotations

from collections import Counter
from typing import Any

from workflow_engine.plugins import NodeContext, PermanentError, handler


class Fragile:
    """A handler "fragile", which fails for good, and a handler "step", which does not. Both count their attempts."""

    def __init__(self) -> None:
        self.mended = False
        self.attempts: Counter[tuple[str, str]] = Counter()
        """By (execution id, node id)."""

        @handler("fragile")
        async def fragile(_config: dict[str, Any], context: NodeContext) -> Any:
            """Fail until mended."""
            self.attempts[context.execution_id, context.node_id] += 1
            if not self.mended:
                raise PermanentError("broken", error_type="fragile_thing")
            return context.parameters

        @handler("step")
        async def step(_config: dict[str, Any], context: NodeContext) -> str:
            """Say where this is."""
            self.attempts[context.execution_id, context.node_id] += 1
            return context.node_id

        self.handlers = [fragile, step]

    def attempted(self, execution_id: str) -> dict[str, int]:
        """How many attempts there were of each node of an execution."""
        return {node: count for (each, node), count in self.attempts.items() if each == execution_id}


# `first` and `last` are around a node that fails.
FRAGILE: dict[str, Any] = {
    "name": "fragile",
    "dag": {
        "nodes": [
            {"id": "first", "handler": "step"},
            {"id": "thing", "handler": "fragile", "dependencies": ["first"]},
            {"id": "last", "handler": "output", "dependencies": ["first", "thing"]},
        ]
    },
}
