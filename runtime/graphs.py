"""Compiled definitions, kept in memory as long as there is room."""

from __future__ import annotations

import json
from collections import OrderedDict

from .core.graph import Graph, NodeDefaults, compile_graph
from .ports import Store

MAX_CACHED_NODES = 200_000


class Graphs:
    """Graphs by definition id. Definitions never change, so what is cached is never wrong."""

    def __init__(self, store: Store, defaults: NodeDefaults) -> None:
        self._store = store
        self._defaults = defaults
        self._graphs: OrderedDict[str, Graph] = OrderedDict()
        self._nodes = 0

    async def get(self, definition_id: str) -> Graph:
        """The graph of a stored definition. Raises `LookupError` when there is no such definition."""
        graph = self._graphs.get(definition_id)
        if graph is not None:
            self._graphs.move_to_end(definition_id)
            return graph
        record = await self._store.read_definition(definition_id)
        if record is None:
            raise LookupError(f"there is no definition {definition_id}")
        return self.add(definition_id, json.loads(record.body))

    def add(self, definition_id: str, document: dict[str, object]) -> Graph:
        """Compile a valid definition and keep it."""
        graph = self._graphs.get(definition_id)
        if graph is None:
            graph = compile_graph(document, self._defaults)
            self._graphs[definition_id] = graph
            self._nodes += graph.size
            while self._nodes > MAX_CACHED_NODES and len(self._graphs) > 1:
                _, oldest = self._graphs.popitem(last=False)
                self._nodes -= oldest.size
        return graph
