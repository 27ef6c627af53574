"""The states of executions and nodes with their transitions, from the tables that the engine uses."""

from __future__ import annotations

from workflow_engine.runtime.core.state import NODE_TRANSITIONS, WORKFLOW_TRANSITIONS, mermaid_diagram

_EXECUTION_MEANINGS = {
    "PENDING": "Submitted, not triggered yet.",
    "RUNNING": "Triggered; at least one node has not ended.",
    "COMPLETED": "Every node has completed; the output is there.",
    "FAILED": "A node failed for good; its error is the execution's.",
    "CANCELLED": "Cancelled on request.",
}
_NODE_MEANINGS = {
    "PENDING": "It waits for its dependencies, or for the time of its next attempt.",
    "QUEUED": "Its attempt may start as soon as a worker has a free slot.",
    "RUNNING": "A worker runs its attempt. After a crash it is QUEUED again, with the same attempt number.",
    "COMPLETED": "An attempt succeeded; the output is stored.",
    "FAILED": "Its last attempt failed for good.",
    "CANCELLED": "It will not run any more: the execution failed or was cancelled.",
}


def render() -> str:
    """Both tables, as a list of meanings and a diagram."""
    return "\n\n".join(
        (
            "## Executions",
            _meanings(_EXECUTION_MEANINGS, list(WORKFLOW_TRANSITIONS)),
            f"```mermaid\n{mermaid_diagram(WORKFLOW_TRANSITIONS)}\n```",
            "## Nodes",
            _meanings(_NODE_MEANINGS, list(NODE_TRANSITIONS)),
            f"```mermaid\n{mermaid_diagram(NODE_TRANSITIONS)}\n```",
        )
    )


def _meanings(meanings: dict[str, str], states: list[str]) -> str:
    if list(meanings) != [str(state) for state in states]:
        raise ValueError(f"the states are {states}, described are {list(meanings)}")
    return "\n\n".join(f"`{state}`\n: {meaning}" for state, meaning in meanings.items())
