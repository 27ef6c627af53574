"""Definitions as the engine's door takes and shows them: checked, named by their digest, versioned by name."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from .clock import Clock
from .core.definition import validate_definition
from .core.json_text import canonical
from .core.problem import Problem
from .errors import BackendError, DefinitionNotFound, InvalidDefinition, PayloadTooLarge
from .graphs import Graphs
from .known_handlers import KnownHandlers
from .ports import DefinitionRecord, DefinitionVersion, NewDefinition, Store

MAX_REMEMBERED = 50_000
LARGE_BYTES = 64 * 1024

Key = TypeVar("Key")
Value = TypeVar("Value")
Result = TypeVar("Result")


class Recent(Generic[Key, Value]):
    """The last few thousand facts that never change, such as which definition an execution is of."""

    def __init__(self) -> None:
        self._known: OrderedDict[Key, Value] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """What is known of `key`."""
        return self._known.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Remember this; when there is too much, the oldest is forgotten."""
        self._known[key] = value
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)


class Checked(NamedTuple):
    """A definition that may be stored: `reference` is its id when it is known to be, else the definition to store."""

    reference: NewDefinition | str
    digest: str
    body: bytes
    document: Mapping[str, Any]


class Defined(NamedTuple):
    """A stored definition, and whether it is new: not an earlier one of the same name and content."""

    stored: DefinitionVersion
    new: bool


class Definitions:
    """Check, store, look up. Safe to call concurrently from one event loop."""

    def __init__(
        self,
        *,
        store: Store,
        graphs: Graphs,
        handlers: KnownHandlers,
        clock: Clock,
        max_bytes: int,
    ) -> None:
        """`max_bytes` bounds a definition's JSON text."""
        self.handlers = handlers
        self._store = store
        self._graphs = graphs
        self._clock = clock
        self._max_bytes = max_bytes
        self._id_of_digest: Recent[str, str] = Recent()
        self._versions: Recent[tuple[str, int], DefinitionVersion] = Recent()

    async def check(self, document: Any) -> Checked:
        """A decoded `WorkflowDefinition` that may be stored.

        Raises `InvalidDefinition`, `PayloadTooLarge`, and `StoreUnavailable` where the store has to be asked.
        """
        digest, body = self._digest(document)
        if self._id_of_digest.get(digest) is None:
            checks = await self.handlers.checks(document)
            outputs = self.handlers.outputs
            problems = await off_loop(len(body), lambda: validate_definition(document, checks, outputs))
            if problems:
                raise InvalidDefinition(problems)
        return self._referred(digest, body, document)

    def own(self, document: Mapping[str, Any]) -> Checked:
        """A definition that the engine makes itself, which is as it must be."""
        return self._referred(*self._digest(document), document)

    def _referred(self, digest: str, body: bytes, document: Mapping[str, Any]) -> Checked:
        known = self._id_of_digest.get(digest)
        reference = known or NewDefinition(self._clock.new_id(), document["name"], digest, body)
        return Checked(reference, digest, body, document)

    async def keep(self, checked: Checked, definition_id: str) -> None:
        """Remember a definition that has been stored: the next one like it is not checked again."""
        if isinstance(checked.reference, NewDefinition):
            try:
                declared = await self._graphs.declared_for(checked.document)
            except BackendError:
                return  # it is stored; whoever needs it compiles it
            graph = await off_loop(len(checked.body), lambda: self._graphs.compile(checked.document, declared))
            self._graphs.keep(definition_id, graph, len(checked.body))
            self._id_of_digest.put(checked.digest, definition_id)

    async def define(self, document: Any) -> Defined:
        """Store a definition without an execution; returns the stored one, which may be an earlier one.

        Raises `InvalidDefinition` with every problem, `PayloadTooLarge`, `StoreUnavailable`.
        """
        checked = await self.check(document)
        new = NewDefinition(self._clock.new_id(), document["name"], checked.digest, checked.body)
        stored = await self._store.define(new, self._clock.now())
        await self.keep(checked, stored.definition_id)
        return Defined(stored, stored.definition_id == new.definition_id)

    async def problems(self, document: Any) -> Sequence[Problem]:
        """Every problem of a definition; empty when it may be stored."""
        try:
            await self.check(document)
        except InvalidDefinition as error:
            return error.problems
        return ()

    async def find(self, name: str, version: int | None = None) -> DefinitionVersion:
        """A version of a name; the latest without `version`. Raises `DefinitionNotFound`."""
        # A version never changes and is never deleted; which one is the latest does.
        known = None if version is None else self._versions.get((name, version))
        if known is not None:
            return known
        found = await self._store.find_definition(name, version)
        if found is None:
            raise DefinitionNotFound(name, version)
        self._versions.put((name, found.version), found)
        return found

    async def read(self, name: str, version: int | None = None) -> DefinitionRecord:
        """The same with its body. Raises `DefinitionNotFound`."""
        found = await self._store.read_definition((await self.find(name, version)).definition_id)
        if found is None:
            raise DefinitionNotFound(name, version)
        return found

    async def list(self, *, after: str | None, limit: int) -> Sequence[DefinitionVersion]:
        """The latest version of each name behind `after`, ordered by name."""
        return await self._store.list_definitions(after, limit)

    async def versions(self, name: str, *, below: int | None, limit: int) -> Sequence[DefinitionVersion]:
        """The versions of a name below `below`, newest first. Raises `DefinitionNotFound` for an unknown name."""
        found = await self._store.list_versions(name, below, limit)
        if not found:
            await self.find(name)
        return found

    def _digest(self, document: Any) -> tuple[str, bytes]:
        try:
            body = canonical(document)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidDefinition([Problem("$", f"is not JSON: {error}")]) from None
        if len(body) > self._max_bytes:
            raise PayloadTooLarge(f"the definition has {len(body)} bytes; at most {self._max_bytes} are allowed")
        return hashlib.sha256(body).hexdigest(), body


async def off_loop(size_bytes: int, work: Callable[[], Result]) -> Result:
    """Do what takes time in proportion to a text: for a large one in a thread, so that others go on."""
    if size_bytes <= LARGE_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(None, work)
