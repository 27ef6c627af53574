"""Dead letters: executions that FAILED and that nobody has dealt with. Look at them, requeue them, discard them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aiohttp import web

from ..core.machine import AttemptRow
from ..dead_letters import DealtWith
from ..engine import Engine
from ..errors import DeadLetterNotFound, ExecutionConflict, ExecutionNotFound, IdempotencyConflict, NotAccepting
from . import models
from .bodies import AttemptsQuery, DeadLettersRequest, ListDeadLettersQuery, NothingRequest
from .execution_routes import execution_item
from .pages import cursor_of_id, id_of_cursor, page
from .responses import json_response
from .routing import Answer, Call, JsonBody, Route, Scope
from .submit_routes import EXECUTION_LINKS
from .values import format_moment

REQUEUE_BYTES = 1024
MANY_BYTES = 16 * 1024
MANY_EXAMPLE = {"error_type": "timeout", "limit": 100}


class DeadLetterRoutes:
    """`/v1/dead-letters`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [*self._reading(), *self._dealing(), *self._dealing_with_many()]

    def _reading(self) -> Sequence[Route]:
        return [
            Route(
                method="GET",
                path="/v1/dead-letters",
                scope=Scope.READ,
                operation="list_dead_letters",
                handler=self.list_letters,
                tag="dead-letters",
                summary="List dead letters",
                description="Executions that FAILED and were neither requeued nor discarded, newest first. "
                "`next_cursor` leads to the next page.",
                query=ListDeadLettersQuery,
                answers={200: Answer(description="a page", model=models.ExecutionPage)},
            ),
            Route(
                method="GET",
                path="/v1/dead-letters/{execution_id}",
                scope=Scope.READ,
                operation="dead_letter",
                handler=self.letter,
                tag="dead-letters",
                summary="A dead letter with its history",
                description="The node that failed is in `error`. Attempts come the last one first; `next_cursor` leads "
                "to earlier ones.",
                query=AttemptsQuery,
                answers={200: Answer(description="the letter", model=models.DeadLetter)},
                errors=(ExecutionNotFound, DeadLetterNotFound),
            ),
        ]

    def _dealing(self) -> Sequence[Route]:
        return [
            Route(
                method="POST",
                path="/v1/dead-letters/{execution_id}/requeue",
                scope=Scope.RUN,
                operation="requeue",
                handler=self.requeue,
                tag="dead-letters",
                summary="Requeue a dead letter",
                description="Starts a new execution of the same definition with the same inputs. Nodes that have "
                "completed stay completed, with their outputs; the others run, from their first attempt on. It is done "
                "once: later requests are answered 409, which names the execution that the letter was requeued as.",
                body=JsonBody(model=NothingRequest, max_bytes=REQUEUE_BYTES, optional=True),
                answers={
                    202: Answer(
                        description="the execution that was started", model=models.Requeued, links=EXECUTION_LINKS
                    )
                },
                errors=(ExecutionNotFound, ExecutionConflict, IdempotencyConflict, NotAccepting),
                idempotent=True,
            ),
            Route(
                method="DELETE",
                path="/v1/dead-letters/{execution_id}",
                scope=Scope.RUN,
                operation="discard",
                handler=self.discard,
                tag="dead-letters",
                summary="Discard a dead letter",
                description="It is listed no more. The execution stays what it is, until retention deletes it.",
                answers={204: Answer(description="it is discarded")},
                errors=(ExecutionNotFound, ExecutionConflict, NotAccepting),
            ),
        ]

    def _dealing_with_many(self) -> Sequence[Route]:
        body = JsonBody(model=DeadLettersRequest, max_bytes=MANY_BYTES, example=MANY_EXAMPLE)
        return [
            Route(
                method="POST",
                path="/v1/dead-letters/requeue",
                scope=Scope.ADMIN,
                operation="requeue_many",
                handler=self.requeue_many,
                tag="dead-letters",
                summary="Requeue dead letters by filter",
                description="Requeues the newest dead letters that meet every condition of the body. To go on, send "
                "the same with `cursor`: what has failed again meanwhile is not requeued a second time.",
                body=body,
                answers={200: Answer(description="how many", model=models.RequeuedMany)},
                errors=(NotAccepting,),
            ),
            Route(
                method="POST",
                path="/v1/dead-letters/discard",
                scope=Scope.ADMIN,
                operation="discard_many",
                handler=self.discard_many,
                tag="dead-letters",
                summary="Discard dead letters by filter",
                description="Discards the newest dead letters that meet every condition of the body. To go on, send "
                "the same with `cursor`.",
                body=body,
                answers={200: Answer(description="how many", model=models.DiscardedMany)},
                errors=(NotAccepting,),
            ),
        ]

    async def list_letters(self, call: Call) -> web.Response:
        """A page of dead letters."""
        query: ListDeadLettersQuery = call.query
        found = await self._engine.dead_letters.list(
            query.wanted, before=id_of_cursor(query.cursor), limit=query.limit + 1
        )
        return json_response(
            200, page(found, query.limit, execution_item, lambda item: cursor_of_id(item.execution_id))
        )

    async def letter(self, call: Call) -> web.Response:
        """One dead letter, with a page of its attempts."""
        query: AttemptsQuery = call.query
        below = None if query.cursor is None else int(query.cursor)
        letter = await self._engine.dead_letters.read(call.path("execution_id"), below=below, limit=query.limit + 1)
        attempts = page(letter.attempts, query.limit, _attempt, lambda row: str(row.sequence))
        return json_response(
            200,
            {
                **execution_item(letter.execution),
                "attempts": attempts["items"],
                "next_cursor": attempts["next_cursor"],
            },
        )

    async def requeue(self, call: Call) -> web.Response:
        """Carry a dead letter on."""
        letter_id = call.path("execution_id")
        execution_id = await self._engine.dead_letters.requeue(letter_id, call.claim)
        return json_response(
            202,
            {"execution_id": execution_id, "retry_of": letter_id, "message": "Workflow requeued successfully"},
        )

    async def discard(self, call: Call) -> web.Response:
        """Be done with a dead letter."""
        await self._engine.dead_letters.discard(call.path("execution_id"))
        return web.Response(status=204)

    async def requeue_many(self, call: Call) -> web.Response:
        """Carry on all dead letters that meet a filter."""
        body: DeadLettersRequest = call.body
        done = await self._engine.dead_letters.requeue_many(
            body.wanted, before=id_of_cursor(body.cursor), limit=body.limit
        )
        return json_response(200, {"requeued": done.number, "next_cursor": _cursor(done)})

    async def discard_many(self, call: Call) -> web.Response:
        """Be done with all dead letters that meet a filter."""
        body: DeadLettersRequest = call.body
        done = await self._engine.dead_letters.discard_many(
            body.wanted, before=id_of_cursor(body.cursor), limit=body.limit
        )
        return json_response(200, {"discarded": done.number, "next_cursor": _cursor(done)})


def _cursor(done: DealtWith) -> str | None:
    return None if done.go_on_behind is None else cursor_of_id(done.go_on_behind)


def _attempt(row: AttemptRow) -> dict[str, object]:
    return {
        "node_id": row.node_id,
        "attempt": row.attempt,
        "state": row.state,
        "started_at": format_moment(row.started_at),
        "finished_at": format_moment(row.finished_at),
        "error": None if row.error is None else json.loads(row.error),
    }
