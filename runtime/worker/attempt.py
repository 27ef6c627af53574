"""One attempt of a node: resolve its configuration, run its handler, and say how it ended."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from ...plugins.context import NodeContext, Services
from ...plugins.errors import PermanentError, RetryAfter
from ...plugins.handler import Handler
from ..core.graph import Graph
from ..core.json_text import InvalidJson, encode
from ..core.limits import MAX_ATTEMPT_INPUT_BYTES
from ..core.machine import AttemptError, Execution
from ..core.problem import join_path
from ..core.queue import Delivery
from ..core.shape import describe_error
from ..core.template import TemplateFailed
from .failure import ConfigInvalid, OpenFailed, describe_bad_output, describe_failure
from .threads import NoThread, Threads
from .warm import Warm

log = logging.getLogger(__name__)

AttemptResult = tuple[bytes | None, AttemptError | None]
"""(output as JSON text, None) or (None, error)."""


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


class Tools(NamedTuple):
    """What the attempts of a process are run with. `plain`: the services for plain functions, in threads."""

    services: Services
    plain: Services
    warm: Warm
    threads: Threads
    max_output_bytes: int


class Attempt(NamedTuple):
    """An attempt that begins."""

    delivery: Delivery
    handler: Handler
    inputs: AttemptInputs
    context: NodeContext


def begin(delivery: Delivery, handler: Handler, tools: Tools, deadline: float) -> Attempt:
    """Begin an attempt; its time is up at `deadline`, by `Services.monotonic`."""
    execution, node, attempt = delivery
    graph = execution.graph
    services = tools.plain if handler.is_plain else tools.services
    inputs = AttemptInputs(execution, node)
    context = NodeContext(
        execution_id=execution.execution_id,
        node_id=graph.node_ids[node],
        handler=handler.name,
        attempt=attempt,
        timeout_seconds=graph.timeouts_seconds[node],
        deadline=deadline,
        input_text=execution.input_text,
        dependency_outputs=inputs.dependency_outputs,
        services=services,
    )
    return Attempt(delivery, handler, inputs, context)


def run_attempt(attempt: Attempt, tools: Tools) -> Awaitable[AttemptResult]:
    """Run the handler in this process; returns (output as JSON text, None) or (None, error).

    Whatever the handler raises ends here, except what only the caller can judge: `CancelledError`
    and `GeneratorExit`.
    """
    return _run_in_thread(attempt, tools) if attempt.handler.is_plain else _run_on_loop(attempt, tools)


async def _run_on_loop(attempt: Attempt, tools: Tools) -> AttemptResult:
    handler = attempt.handler
    try:
        config = resolve_config(attempt.delivery, handler, attempt.inputs)
        run = handler.run if handler.make is None else tools.warm.get(handler) or await tools.warm.open(handler)
        result = await run(config, attempt.context)
    except (asyncio.CancelledError, GeneratorExit):
        attempt.context.cancelled.set()
        raise
    except BaseException as error:
        return _failed(attempt, error)
    return _output(handler, result, tools.max_output_bytes)


async def _run_in_thread(attempt: Attempt, tools: Tools) -> AttemptResult:
    handler = attempt.handler
    try:
        run = handler.run if handler.make is None else tools.warm.get(handler) or await tools.warm.open(handler)
    except OpenFailed as error:
        return _failed(attempt, error)

    def work() -> AttemptResult:
        try:
            result = run(resolve_config(attempt.delivery, handler, attempt.inputs), attempt.context)
        except BaseException as error:
            return _failed(attempt, error)
        return _output(handler, result, tools.max_output_bytes)

    try:
        return await tools.threads.run(handler.name, work, attempt.context.cancelled.set)
    except NoThread as error:
        return None, AttemptError("worker_failed", str(error), True)


def _failed(attempt: Attempt, error: BaseException) -> AttemptResult:
    _log_surprise(attempt.delivery, error)
    return None, describe_failure(error)


def resolve_config(delivery: Delivery, handler: Handler, inputs: AttemptInputs) -> Any:
    """The configuration as the handler gets it. Raises what is wrong with it."""
    execution, node, _ = delivery
    config = execution.graph.configs[node].renderer.render(inputs)
    return config if handler.config_model is None else _validated(handler, config)


def _output(handler: Handler, result: Any, max_output_bytes: int) -> AttemptResult:
    try:
        if handler.output_model is not None:
            result = _dumped(handler.output_model, result)
        return encode(result, max_output_bytes), None
    except BaseException as error:
        # Nothing is awaited here: whatever is raised comes from the result's own methods.
        return None, describe_bad_output(error)


def _dumped(model: type[BaseModel], result: Any) -> Any:
    """A result as JSON values, by the model that it was declared with."""
    try:
        made = result if isinstance(result, model) else model.model_validate(result)
        # By the declared model, whatever class the result is of: others have seen its schema.
        return model.__pydantic_serializer__.to_python(made, mode="json", by_alias=True)
    except ValidationError as error:
        faults = [
            f"{join_path('output', detail['loc'])} {describe_error(detail, model)}"
            for detail in error.errors(include_url=False)
        ]
        raise InvalidJson("; ".join(faults)) from None


def _log_surprise(delivery: Delivery, error: BaseException) -> None:
    """The trace of what a handler did not raise on purpose: for whoever has to mend the handler."""
    if isinstance(error, (PermanentError, RetryAfter, TemplateFailed, ConfigInvalid, OpenFailed)):
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
