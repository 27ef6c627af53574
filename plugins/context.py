"""What a handler is given beside its configuration: which attempt it is, and what came before."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import ClientSession


class NodeContext:
    """One attempt's surroundings. Made for each attempt; the values it hands out are the handler's own.

    `idempotency_key` is the same for every delivery of an attempt, and different for the next attempt.
    """

    __slots__ = (
        "_dependency_outputs",
        "_http",
        "_input_text",
        "attempt",
        "execution_id",
        "node_id",
        "timeout_seconds",
    )

    def __init__(
        self,
        *,
        execution_id: str,
        node_id: str,
        attempt: int,
        timeout_seconds: float,
        input_text: bytes,
        dependency_outputs: Callable[[], Sequence[tuple[str, bytes]]],
        http: Callable[[], ClientSession],
    ) -> None:
        self.execution_id = execution_id
        self.node_id = node_id
        self.attempt = attempt
        self.timeout_seconds = timeout_seconds
        self._input_text = input_text
        self._dependency_outputs = dependency_outputs
        self._http = http

    @property
    def idempotency_key(self) -> str:
        """`execution/node/attempt`: send it along with anything that must not happen twice."""
        return f"{self.execution_id}/{self.node_id}/{self.attempt}"

    @property
    def parameters(self) -> dict[str, Any]:
        """The workflow's input parameters, parsed anew at each call."""
        parsed: dict[str, Any] = json.loads(self._input_text)
        return parsed

    @property
    def inputs(self) -> Mapping[str, Any]:
        """`{dependency id: its output}` in the order of `dependencies`, parsed anew at each call."""
        return {node_id: json.loads(output) for node_id, output in self._dependency_outputs()}

    @property
    def http(self) -> ClientSession:
        """The shared HTTP session; it refuses addresses that the operator has not allowed."""
        return self._http()
