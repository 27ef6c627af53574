"""What the API writes to PostgreSQL: executions created and triggered, many in one statement."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from ...sql import load_queries
from ..errors import BackendError, IdempotencyConflict
from ..failpoints import failpoint
from ..grouping import Grouped
from ..ports import DefinitionVersion, IdempotencyClaim, NewDefinition, NewExecution
from .postgres_connections import Connections
from .postgres_errors import translate


class _Create(NamedTuple):
    definition: NewDefinition | str
    execution: NewExecution
    claim: IdempotencyClaim | None


class _Trigger(NamedTuple):
    execution_id: str
    input_text: bytes
    started_at: int
    claim: IdempotencyClaim | None


class _Requeue(NamedTuple):
    execution_id: str
    new: NewExecution
    claim: IdempotencyClaim | None


class ApiWrites:
    """Groups creations with creations and triggers with triggers; a bad one fails alone."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._queries = load_queries("postgres")
        self._creations: Grouped[_Create] = Grouped(
            self._create, size_bytes=lambda item: len(item.execution.input_text or b"")
        )
        self._triggers: Grouped[_Trigger] = Grouped(self._trigger, size_bytes=lambda item: len(item.input_text))

    async def create(
        self, definition: NewDefinition | str, execution: NewExecution, claim: IdempotencyClaim | None
    ) -> tuple[str, str]:
        """As `Store.create_execution`."""
        created: tuple[str, str] = await self._creations.ask(_Create(definition, execution, claim))
        return created

    async def trigger(
        self, execution_id: str, input_text: bytes, started_at: int, claim: IdempotencyClaim | None
    ) -> str | None:
        """As `Store.trigger`."""
        if "\0" in execution_id:  # no row has it: PostgreSQL takes none
            return None
        triggered: str | None = await self._triggers.ask(_Trigger(execution_id, input_text, started_at, claim))
        return triggered

    async def requeue(self, execution_id: str, new: NewExecution, claim: IdempotencyClaim | None) -> str | None:
        """As `Store.requeue`: one statement, whatever there is to copy."""
        if "\0" in execution_id:  # no row has it: PostgreSQL takes none
            return None
        failpoint("store.requeue.before")
        rows = await self._connections.write(
            self._queries["requeue"],
            execution_id,
            new.execution_id,
            new.partition,
            new.created_at,
            *(claim or (None, None, None)),
        )
        failpoint("store.requeue.after")
        requeued = (new.execution_id, "") if rows else None
        [answer] = await self._with_claims([_Requeue(execution_id, new, claim)], {0: requeued})
        if isinstance(answer, Exception):
            raise answer
        return None if answer is None else str(answer[0])

    async def define(self, definition: NewDefinition, created_at: int) -> DefinitionVersion:
        """As `Store.define`."""
        async with self._transaction() as connection:
            return await self._ensure_definition(connection, definition, created_at)

    async def close(self) -> None:
        """Finish what was asked for."""
        await self._creations.close()
        await self._triggers.close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Any]:
        """A connection in a transaction of several statements, with its errors in the port's words."""
        connection = await self._connections.acquire()
        try:
            async with connection.transaction():
                yield connection
                failpoint("store.transaction.commit")
        except Exception as error:
            raise translate(error, writing=True) from error
        finally:
            await self._connections.release(connection)

    async def _ensure_definition(
        self, connection: Any, definition: NewDefinition, created_at: int
    ) -> DefinitionVersion:
        key = (definition.name, definition.digest)
        rows = await connection.fetch(self._queries["find_digest"], *key)
        if not rows:
            await connection.execute(self._queries["lock_name"], definition.name)
            rows = await connection.fetch(self._queries["find_digest"], *key)
        if not rows:
            values = (definition.definition_id, *key, definition.body, created_at)
            rows = await connection.fetch(self._queries["insert_definition"], *values)
        return DefinitionVersion(*rows[0])

    async def _create(self, items: Sequence[_Create]) -> Sequence[Any]:
        answers: dict[int, Any] = {}
        ids: dict[tuple[str, str], str] = {}
        known: dict[int, _Create] = {}
        for place, item in enumerate(items):
            if isinstance(item.definition, NewDefinition):
                key = (item.definition.name, item.definition.digest)
                if key not in ids:
                    answers[place] = await self._define_and_create(item)
                    if not isinstance(answers[place], Exception | None):
                        ids[key] = answers[place][1]
                    continue
                known[place] = item._replace(definition=ids[key])
            else:
                known[place] = item
        answers |= await _each_alone_if_refused(
            known, lambda places: self._create_together({place: known[place] for place in places})
        )
        return await self._with_claims(items, answers)

    async def _define_and_create(self, item: _Create) -> Any:
        """A definition that is not known to be stored, and an execution of it: both or neither.

        None when the claim was made before; what went wrong, as a value.
        """
        assert isinstance(item.definition, NewDefinition)
        try:
            if item.claim is not None and await self._made([item.claim]):
                return None
            async with self._transaction() as connection:
                defined = await self._ensure_definition(connection, item.definition, item.execution.created_at)
                stored = item._replace(definition=defined.definition_id)
                rows = await connection.fetch(self._queries["create_executions"], *_creation_columns([stored]))
                return (item.execution.execution_id, defined.definition_id) if rows else None
        except Exception as error:
            return error

    async def _create_together(self, items: Mapping[int, _Create]) -> Mapping[int, Any]:
        """Executions of stored definitions in one statement; None for those whose claim was made before."""
        failpoint("store.create.before")
        rows = await self._connections.write(self._queries["create_executions"], *_creation_columns([*items.values()]))
        failpoint("store.create.after")
        created = {row[0] for row in rows}
        return {
            place: (item.execution.execution_id, item.definition) if item.execution.execution_id in created else None
            for place, item in items.items()
        }

    async def _trigger(self, items: Sequence[_Trigger]) -> Sequence[Any]:
        answers = await _each_alone_if_refused(
            range(len(items)), lambda places: self._trigger_together({place: items[place] for place in places})
        )
        return [
            answer if answer is None or isinstance(answer, Exception | str) else answer[0]
            for answer in await self._with_claims(items, answers)
        ]

    async def _trigger_together(self, items: Mapping[int, _Trigger]) -> Mapping[int, Any]:
        """One statement; None for those that were not PENDING, or whose claim was made before."""
        failpoint("store.trigger.before")
        rows = await self._connections.write(
            self._queries["trigger_executions"],
            [item.execution_id for item in items.values()],
            [item.input_text for item in items.values()],
            [item.started_at for item in items.values()],
            *_claim_columns(item.claim for item in items.values()),
        )
        failpoint("store.trigger.after")
        triggered = {row[0] for row in rows}
        return {
            place: item.execution_id if number in triggered else None
            for number, (place, item) in enumerate(items.items(), 1)
        }

    async def _with_claims(
        self, items: Sequence[_Create | _Trigger | _Requeue], answers: Mapping[int, Any]
    ) -> Sequence[Any]:
        """The answers, and for what did nothing: the ids that its claim has, or the conflict."""
        unanswered = [claim for place, item in enumerate(items) if answers[place] is None and (claim := item.claim)]
        made = await self._made(unanswered) if unanswered else {}
        result = []
        for place, item in enumerate(items):
            answer, claim = answers[place], item.claim
            if answer is None and claim is not None and claim.key in made:
                fingerprint, execution_id, definition_id = made[claim.key]
                same = fingerprint == claim.fingerprint
                answer = (execution_id, definition_id) if same else IdempotencyConflict()
            result.append(answer)
        return result

    async def _made(self, claims: Sequence[IdempotencyClaim]) -> Mapping[str, tuple[str, str, str]]:
        """By key, for claims that were made before: (fingerprint, execution id, definition id)."""
        rows = await self._connections.read(self._queries["find_claims"], [claim.key for claim in claims])
        return {row[0]: (row[1], row[2], row[3]) for row in rows}


async def _each_alone_if_refused(
    places: Iterable[int], together: Callable[[Sequence[int]], Awaitable[Mapping[int, Any]]]
) -> dict[int, Any]:
    """Do all together; when their data is refused, each alone, so that only the culprit fails."""
    asked = list(places)
    if not asked:
        return {}
    try:
        return dict(await together(asked))
    except BackendError:
        raise
    except (asyncpg.PostgresError, asyncpg.DataError, ValueError, OverflowError) as error:
        if len(asked) == 1:
            return {asked[0]: error}
    answers: dict[int, Any] = {}
    for place in asked:
        try:
            answers |= await _each_alone_if_refused([place], together)
        except BackendError as error:
            answers[place] = error
    return answers


def _creation_columns(items: Sequence[_Create]) -> Sequence[Sequence[Any]]:
    return [
        [item.execution.execution_id for item in items],
        [item.definition for item in items],
        [item.execution.partition for item in items],
        [item.execution.input_text for item in items],
        [item.execution.created_at for item in items],
        *_claim_columns(item.claim for item in items),
    ]


def _claim_columns(claims: Iterable[IdempotencyClaim | None]) -> Sequence[Sequence[Any]]:
    rows = [(None, None, None) if claim is None else tuple(claim) for claim in claims]
    return [[row[column] for row in rows] for column in range(3)]
