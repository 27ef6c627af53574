"""Recomputes a stored execution from its rows and says which invariants do not hold: the rules of the audit command."""

from __future__ import annotations

from workflow_engine.runtime.core.audit import judge
from workflow_engine.runtime.core.graph import Graph
from workflow_engine.runtime.ports import LoadedExecution


def broken_invariants(loaded: LoadedExecution, graph: Graph, *, clocks_agree: bool = False) -> list[str]:
    """Every invariant that this execution breaks; empty when it is sound. `clocks_agree`: all processes have one."""
    return [str(finding) for finding in judge(loaded, graph, clocks_agree=clocks_agree)]
