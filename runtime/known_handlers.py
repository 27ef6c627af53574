"""The handlers that a definition may name: those that are here, and those that other processes have.

A handler that is here is checked by itself. Of one that is only elsewhere the store has the JSON Schema, which is what
its configurations are held to.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .clock import Clock
from .core.config_schema import SchemaCheck, usable_schema
from .core.declared import NOTHING, Declared, read_declared
from .core.definition import ConfigCheck, named_handlers
from .core.output_schema import output_schemas
from .errors import FunctionNotFound
from .ports import CatalogueStore, HandlerRecord

BELIEVED_SECONDS = 5.0
KNOWN_MILLISECONDS = 30 * 86_400_000
"""How long a handler is known that no process says to have any more: its workers may be away for a holiday. What
names it waits for them."""


class KnownHandlers:
    """What is here, and what the store knows of others: read when it is wanted, and believed for a few seconds."""

    def __init__(
        self,
        *,
        here: Sequence[HandlerRecord],
        config_checks: Mapping[str, ConfigCheck],
        store: CatalogueStore,
        clock: Clock,
        run_elsewhere: bool,
    ) -> None:
        """`here` and `config_checks`: the handlers of this process. `run_elsewhere`: whether other processes run nodes
        of what this one is given; without, what they have is of no use, and not read."""
        self._here = {record.name: record for record in here}
        self._config_checks = config_checks
        self._store = store
        self._clock = clock
        self._run_elsewhere = run_elsewhere
        self._elsewhere: Mapping[str, HandlerRecord] = {}
        self._read_at = -math.inf
        self._reading = asyncio.Lock()
        self._schemas: dict[str, Mapping[str, Any] | None] = {}
        self._outputs: Mapping[str, Mapping[str, Any]] | None = None
        self._declared: dict[str, Declared] = {}

    async def checks(self, document: object) -> Mapping[str, ConfigCheck]:
        """The handlers that this definition may name, each with the check of its configurations.

        What it names and nobody is known to have is looked up once more. Raises `StoreUnavailable`.
        """
        return await self._checks(named_handlers(document))

    @property
    def outputs(self) -> Mapping[str, Mapping[str, Any]]:
        """The JSON Schemas of outputs by handler, of those that are known and that declare one."""
        if self._outputs is None:
            known = {**self._elsewhere, **self._here}
            self._outputs = output_schemas((name, record.output_schema) for name, record in known.items())
        return self._outputs

    async def declared(self, names: Collection[str]) -> Mapping[str, Declared]:
        """What these handlers declare, as far as they are known. Raises `StoreUnavailable`."""
        if self._run_elsewhere and not self._here.keys() >= set(names):
            await self._read(self._clock.monotonic() - BELIEVED_SECONDS)
        return {name: self.declared_of(name) for name in names}

    def declared_of(self, name: str) -> Declared:
        """What a handler declares, by what was read last."""
        if name not in self._declared:
            record = self._here.get(name) or self._elsewhere.get(name)
            self._declared[name] = NOTHING if record is None else read_declared(record.declared)
        return self._declared[name]

    async def _checks(self, named: set[str]) -> Mapping[str, ConfigCheck]:
        wanted = named.difference(self._config_checks) if self._run_elsewhere else ()
        if not wanted:
            return self._config_checks
        asked_at = self._clock.monotonic()
        elsewhere = await self._read(asked_at - BELIEVED_SECONDS)
        if not wanted.issubset(elsewhere):
            elsewhere = await self._read(asked_at)
        checks = {name: SchemaCheck(self._schema(record)) for name, record in elsewhere.items()}
        return {**checks, **self._config_checks}

    async def check_of(self, name: str) -> ConfigCheck:
        """The check of one handler's configurations. Raises `FunctionNotFound`, `StoreUnavailable`."""
        check = self._config_checks.get(name)
        if check is None:
            checks = await self._checks({name})
            check = checks.get(name)
            if check is None:
                raise FunctionNotFound(name, checks)
        return check

    async def record(self, name: str) -> HandlerRecord:
        """One of them. Raises `FunctionNotFound`, `StoreUnavailable`."""
        await self.check_of(name)
        return self._here.get(name) or self._elsewhere[name]

    async def records(self) -> Sequence[HandlerRecord]:
        """All of them, by name. Raises `StoreUnavailable`."""
        elsewhere: Mapping[str, HandlerRecord] = {}
        if self._run_elsewhere:
            elsewhere = await self._read(self._clock.monotonic() - BELIEVED_SECONDS)
        return sorted({**elsewhere, **self._here}.values())

    async def _read(self, since: float) -> Mapping[str, HandlerRecord]:
        """What the store said after `since`, on the monotonic clock. Of many that ask at a time, one reads."""
        async with self._reading:
            if self._read_at < since:
                read_at = self._clock.monotonic()
                found = await self._store.list_handlers(self._clock.now() - KNOWN_MILLISECONDS)
                self._elsewhere = {record.name: record for record in found}
                self._read_at = read_at
                self._schemas = {}
                self._outputs = None
                self._declared = {}
            return self._elsewhere

    def _schema(self, record: HandlerRecord) -> Mapping[str, Any] | None:
        if record.name not in self._schemas:
            self._schemas[record.name] = usable_schema(record.config_schema)
        return self._schemas[record.name]
