"""One attempt of a node: resolve its configuration, run its handler, and say how it ended."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ...plugins.context import NodeContext
from ...plugins.errors import PermanentError, RetryAfter
from ...plugins.handler import Handler
from ..core.graph import Graph
from ..core.json_text import encode
from ..core.limits import MAX_ATTEMPT_INPUT_BYTES
from ..core.machine import AttemptError, Execution
from ..core.problem import join_path
from ..core.queue import Delivery
from ..core.shape import describe_error
from ..core.template import TemplateFailed
from .failure import ConfigInvalid, describe_bad_output, describe_failure

if TYPE_CHECKING:
    from aiohttp import ClientSession

log = logging.getLogger(__name__)


class AttemptInputs:
    """What one attempt can see of its execution: parameters and the outputs of its ancestors.

    The scope of its templates. Values are parsed when asked for, for this attempt alone, so that no
    handler can change what another one gets.
    """

    __slots__ = ("_execution", "_graph", "_node", "_parameters", "_parsed", "_parsed_bytes")

    def __init__(self, execution: Execution, node: int) -> None:
        self._execution = execution
        self._graph: Graph = execution.graph
        self._node = node
        self._parameters: Mapping[str, Any] | None = None
        self._parsed: dict[str, Any] = {}
        self._parsed_bytes = 0

    def parameters(self) -> Mapping[str, Any]:
        if self._parameters is None:
            self._parameters = json.loads(self._execution.input_text)
        assert self._parameters is not None
        return self._parameters

    def has_output(self, node_id: str) -> bool:
        return self._graph.descends_from_input_node(self._node)

    def output(self, node_id: str) -> Any:
        if node_id not in self._parsed:
            output = self._execution.outputs[self._graph.index_of[node_id]]
            assert output is not None, f"{node_id} is an ancestor, so its output is there"
            self._account(len(output))
            self._parsed[node_id] = json.loads(output)
        return self._parsed[node_id]

    def dependency_outputs(self) -> Sequence[tuple[str, bytes]]:
        """The outputs of the direct dependencies, as JSON text."""
        node_ids, outputs = self._graph.node_ids, self._execution.outputs
        found = [(node_ids[index], outputs[index] or b"null") for index in self._graph.dependencies[self._node]]
        self._account(sum(len(output) for _, output in found))
        return found

    def _account(self, size_bytes: int) -> None:
        """Refuse to parse more than an attempt may: it would hold up everything else in this process."""
        self._parsed_bytes += size_bytes
        if self._parsed_bytes > MAX_ATTEMPT_INPUT_BYTES:
            raise PermanentError(
                f"the outputs that this node uses have more than {MAX_ATTEMPT_INPUT_BYTES} bytes of JSON together",
                error_type="inputs_too_large",
            )


async def run_attempt(
    delivery: Delivery, handler: Handler, http: Callable[[], ClientSession], max_output_bytes: int
) -> tuple[bytes | None, AttemptError | None]:
    """Run the handler; returns (output as JSON text, None) or (None, error).

    Whatever the handler raises ends here, except what only the caller can judge: `CancelledError`
    and `GeneratorExit`.
    """
    execution, node, attempt = delivery
    graph = execution.graph
    inputs = AttemptInputs(execution, node)
    context = NodeContext(
        execution_id=execution.execution_id,
        node_id=graph.node_ids[node],
        attempt=attempt,
        timeout_seconds=graph.timeouts_seconds[node],
        input_text=execution.input_text,
        dependency_outputs=inputs.dependency_outputs,
        http=http,
    )
    try:
        config = graph.configs[node].renderer.render(inputs)
        if handler.config_model is not None:
            config = _validated(handler, config)
        arguments = (config, context) if handler.make is None else (handler.make(), config, context)
        result = handler.run(*arguments) if handler.lane != "thread" else asyncio.to_thread(handler.run, *arguments)
        if inspect.isawaitable(result):
            result = await result
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as error:
        _log_surprise(delivery, error)
        return None, describe_failure(error)
    try:
        return encode(result, max_output_bytes), None
    except BaseException as error:
        # Nothing is awaited here: whatever is raised comes from the result's own methods.
        return None, describe_bad_output(error)


def _log_surprise(delivery: Delivery, error: BaseException) -> None:
    """The trace of what a handler did not raise on purpose: for whoever has to mend the handler."""
    if isinstance(error, (PermanentError, RetryAfter, TemplateFailed, ConfigInvalid)):
        return
    graph, node = delivery.execution.graph, delivery.node
    log.warning(
        "handler %s raised %s in node %s",
        graph.handlers[node],
        type(error).__name__,
        graph.node_ids[node],
        exc_info=error,
        extra={"execution_id": delivery.execution.execution_id, "attempt": delivery.attempt},
    )


def _validated(handler: Handler, config: Any) -> Any:
    assert handler.config_model is not None
    try:
        return handler.config_model.model_validate(config)
    except ValidationError as error:
        faults = [
            f"{join_path('config', detail['loc'])} {describe_error(detail, handler.config_model)}"
            for detail in error.errors(include_url=False)
        ]
        raise ConfigInvalid("; ".join(faults)) from None
