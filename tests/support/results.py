"""What the engine would answer for an execution in memory."""

from __future__ import annotations

from workflow_engine.runtime.core.machine import Execution, combine_exit_outputs
from workflow_engine.runtime.core.state import WorkflowState


def output_data(execution: Execution) -> bytes | None:
    """The results as JSON text; None until the execution is COMPLETED."""
    if execution.state is not WorkflowState.COMPLETED:
        return None
    graph = execution.graph
    return combine_exit_outputs([(graph.node_ids[node], execution.outputs[node] or b"null") for node in graph.exits])
