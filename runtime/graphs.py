"""Compiled definitions, kept in memory as long as there is room."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

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
        graph = self.compile(json.loads(record.body))
        self.keep(definition_id, graph)
        return graph

    def compile(self, document: Mapping[str, Any]) -> Graph:
        """The graph of a valid definition. Touches nothing of this object: safe in a thread."""
        return compile_graph(document, self._defaults)

    def keep(self, definition_id: str, graph: Graph) -> None:
        """Keep a graph, and let the ones go that were not asked for the longest when there are too many nodes."""
        if definition_id in self._graphs:
            return
        self._graphs[definition_id] = graph
        self._nodes += graph.size
        while self._nodes > MAX_CACHED_NODES and len(self._graphs) > 1:
            _, oldest = self._graphs.popitem(last=False)
            self._nodes -= oldest.size
