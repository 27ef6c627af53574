"""The handlers with which a workflow begins and ends."""

from __future__ import annotations

from collections.abc import Sequence

from workflow_engine.handlers.input import input_handler
from workflow_engine.handlers.output import output_handler
from workflow_engine.plugins import NodeContext
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.worker.tools import make_tools, no_secrets


def make_context(input_text: bytes = b"{}", dependency_outputs: Sequence[tuple[str, bytes]] = ()) -> NodeContext:
    def no_session() -> None:
        raise AssertionError("neither handler calls anybody")

    return NodeContext(
        execution_id="e",
        node_id="n",
        handler="h",
        attempt=1,
        timeout_seconds=1.0,
        input_text=input_text,
        dependency_outputs=lambda: dependency_outputs,
        services=make_tools(
            http=no_session,  # type: ignore[arg-type]
            secret=no_secrets,
            clock=SystemClock(),
            max_output_bytes=1000,
        ).services,
    )


async def test_input_returns_the_parameters() -> None:
    context = make_context(b'{"user_id": 123, "nested": {"a": [1, null]}}')
    assert await input_handler.run({}, context) == {"user_id": 123, "nested": {"a": [1, None]}}


async def test_output_returns_the_dependencies_in_order() -> None:
    context = make_context(dependency_outputs=[("b", b'{"x": 1}'), ("a", b"null")])
    result = await output_handler.run({}, context)
    assert result == {"b": {"x": 1}, "a": None}
    assert list(result) == ["b", "a"]


async def test_output_without_dependencies() -> None:
    assert await output_handler.run({}, make_context()) == {}


def test_both_are_described() -> None:
    assert (input_handler.name, output_handler.name) == ("input", "output")
    assert input_handler.description and output_handler.description
