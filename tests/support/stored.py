"""What a PostgreSQL database holds of executions, recomputed from its rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager

from audit import broken_invariants

from workflow_engine.config import load_settings
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.graph import compile_graph
from workflow_engine.runtime.core.json_text import decode
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.parts import build_store, node_defaults
from workflow_engine.runtime.ports import ExecutionFilter, LoadedExecution, Store

AT_ONCE = 500


async def count_running(variables: Mapping[str, str]) -> int:
    """How many executions run, by the database that the variables name; a thousand at most."""
    async with _store(variables) as store:
        running = ExecutionFilter(states=frozenset({WorkflowState.RUNNING}))
        return len(await store.list_executions(running, None, 1_000))


async def load_sound(variables: Mapping[str, str], ids: Collection[str]) -> Mapping[str, LoadedExecution]:
    """These executions, by id. Each is there, and keeps every invariant."""
    found: dict[str, LoadedExecution] = {}
    broken = []
    async with _store(variables) as store:
        graphs = {}
        wanted = sorted(ids)
        for start in range(0, len(wanted), AT_ONCE):
            for loaded in await store.load(wanted[start : start + AT_ONCE]):
                definition_id = loaded.record.definition_id
                if definition_id not in graphs:
                    definition = await store.read_definition(definition_id)
                    assert definition is not None
                    graphs[definition_id] = compile_graph(decode(definition.body), node_defaults(load_settings()))
                broken += broken_invariants(loaded, graphs[definition_id], clocks_agree=True)
                found[loaded.record.execution_id] = loaded
    assert broken == []
    assert found.keys() == set(ids), "an acknowledged submit is lost"
    return found


@asynccontextmanager
async def _store(variables: Mapping[str, str]) -> AsyncIterator[Store]:
    store = build_store(load_settings({name.lower(): value for name, value in variables.items()}), SystemClock())
    await store.open()
    try:
        yield store
    finally:
        await store.close()
