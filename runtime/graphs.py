"""Compiled definitions, kept in memory as long as there is room."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Protocol

from .core.declared import Declared
from .core.graph import Graph, NodeDefaults, compile_graph
from .ports import DefinitionRecord

MAX_CACHED_BYTES = 32 * 1024 * 1024
"""Of definitions' JSON; a compiled one takes a few times that."""


class ReadsDefinitions(Protocol):
    """Where definitions are: a store, or what only reads one."""

    async def read_definition(self, definition_id: str) -> DefinitionRecord | None:
        """One definition."""


FindDeclared = Callable[[Collection[str]], Awaitable[Mapping[str, Declared]]]


async def _nothing_declared(_handlers: Collection[str]) -> Mapping[str, Declared]:
    return {}


class Graphs:
    """Graphs by definition id. Definitions never change; what handlers declare is as it was when a graph was made."""

    def __init__(
        self, store: ReadsDefinitions, defaults: NodeDefaults, declared: FindDeclared = _nothing_declared
    ) -> None:
        """`declared`: what handlers declare, as far as that is known when a definition is compiled."""
        self._store = store
        self._defaults = defaults
        self._declared = declared
        self._graphs: OrderedDict[str, tuple[Graph, int]] = OrderedDict()
        self._bytes = 0

    async def get(self, definition_id: str) -> Graph:
        """The graph of a stored definition. Raises `LookupError` when there is no such definition."""
        kept = self._graphs.get(definition_id)
        if kept is not None:
            self._graphs.move_to_end(definition_id)
            return kept[0]
        record = await self._store.read_definition(definition_id)
        if record is None:
            raise LookupError(f"there is no definition {definition_id}")
        document = json.loads(record.body)
        graph = self.compile(document, await self.declared_for(document))
        self.keep(definition_id, graph, len(record.body))
        return graph

    def kept(self, definition_id: str) -> Graph | None:
        """The graph of a stored definition, if it is in memory."""
        kept = self._graphs.get(definition_id)
        return None if kept is None else kept[0]

    async def declared_for(self, document: Mapping[str, Any]) -> Mapping[str, Declared]:
        """What the handlers of a valid definition declare. Raises `StoreUnavailable`."""
        return await self._declared({node["handler"] for node in document["dag"]["nodes"]})

    def compile(self, document: Mapping[str, Any], declared: Mapping[str, Declared]) -> Graph:
        """The graph of a valid definition. Touches nothing of this object: safe in a thread."""
        return compile_graph(document, self._defaults, declared)

    def keep(self, definition_id: str, graph: Graph, body_bytes: int) -> None:
        """Keep a graph; when there is too much, those go that nobody has asked for the longest."""
        if definition_id in self._graphs:
            return
        self._graphs[definition_id] = (graph, body_bytes)
        self._bytes += body_bytes
        while self._bytes > MAX_CACHED_BYTES and len(self._graphs) > 1:
            _, (_, freed_bytes) = self._graphs.popitem(last=False)
            self._bytes -= freed_bytes
