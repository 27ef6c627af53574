"""Recomputes a stored execution from its rows and says which invariants do not hold.

The invariants, as the simulation and the chaos tests name them: I1 what was accepted ends; I2 nothing acknowledged
is lost; I5 one accepted outcome an attempt; I6 attempts are numbered without gaps, and not too many; I7 a node
starts only when everything it waits for is committed; I8 an attempt does not start twice at a time; I13 an
execution's row is the fold of its rows, whose sequence is dense; I14 a terminal state is final; I19 every cancel is
consumed.
"""

from __future__ import annotations

from workflow_engine.runtime.core.graph import Graph
from workflow_engine.runtime.core.machine import fold
from workflow_engine.runtime.core.state import IllegalTransition, NodeState
from workflow_engine.runtime.ports import LoadedExecution


def broken_invariants(loaded: LoadedExecution, graph: Graph) -> list[str]:
    """Every invariant that this execution breaks; empty when it is sound."""
    record, rows, commands, _ = loaded
    broken = []
    effective = [command.sequence for command in commands if command.sequence is not None]
    sequences = sorted([row.sequence for row in rows] + effective)
    if sequences != list(range(1, len(sequences) + 1)):
        broken.append(f"I13 the sequence of {record.execution_id} is not dense: {sequences}")
    numbers: dict[str, list[int]] = {}
    completed_at: dict[str, int] = {}
    for row in rows:
        numbers.setdefault(row.node_id, []).append(row.attempt)
        if row.state is NodeState.COMPLETED:
            completed_at[row.node_id] = row.sequence
    for node_id, attempts in numbers.items():
        most = graph.retry_policies[graph.index_of[node_id]].max_retries + 1
        if attempts != list(range(1, len(attempts) + 1)) or len(attempts) > most:
            broken.append(f"I6 the attempts of {node_id} in {record.execution_id} are {attempts}, at most {most}")
    for row in rows:
        for dependency in graph.dependencies[graph.index_of[row.node_id]]:
            if completed_at.get(graph.node_ids[dependency], row.sequence) >= row.sequence:
                broken.append(f"I7 {row.node_id} in {record.execution_id} ran before {graph.node_ids[dependency]}")
    if record.started_at is None:
        return broken
    try:
        folded = fold(record.execution_id, graph, b"{}", rows, effective[0] if effective else None)
    except IllegalTransition as error:
        return [*broken, f"I13 the rows of {record.execution_id} contradict each other: {error}"]
    if (folded.state, folded.error) != (record.state, record.error):
        broken.append(f"I13 {record.execution_id} is {record.state}, its rows say {folded.state}")
    return broken
