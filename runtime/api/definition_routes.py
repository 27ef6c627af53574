"""Definitions: store, check, list, compare."""

from __future__ import annotations

import json
from collections.abc import Sequence

from aiohttp import web

from ..core.definition import WorkflowDefinition
from ..core.definition_diff import diff_definitions
from ..definitions import off_loop
from ..engine import Engine
from ..errors import DefinitionNotFound, InvalidDefinition, NotAccepting, PayloadTooLarge
from ..ports import DefinitionRecord, DefinitionVersion
from . import models
from .bodies import DiffQuery, ListDefinitionsQuery, ListVersionsQuery, VersionQuery
from .options import ApiOptions
from .pages import cursor_of_name, name_of_cursor, page
from .responses import bytes_response, json_response
from .routing import Answer, Call, JsonBody, Route, Scope
from .submit_routes import EXAMPLE
from .values import format_moment

TAG = "definitions"
LINKS = dict.fromkeys(("definition", "list_versions", "diff", "start", "start_bulk"), ("name", "name"))


class DefinitionRoutes:
    """Definitions and their versions."""

    def __init__(self, engine: Engine, options: ApiOptions) -> None:
        self._engine = engine
        self._body = JsonBody(
            model=WorkflowDefinition, max_bytes=options.max_definition_bytes, engine_checks=True, example=EXAMPLE
        )

    def routes(self) -> Sequence[Route]:
        """The routes."""
        return [*self._storing(), *self._reading()]

    def _storing(self) -> Sequence[Route]:
        return [
            Route(
                method="POST",
                path="/v1/definitions",
                scope=Scope.RUN,
                operation="define",
                handler=self.define,
                tag=TAG,
                summary="Store a definition",
                description="Without an execution. The same name and content again are the same version; the same "
                "name with other content becomes its next version.",
                body=self._body,
                answers={
                    200: Answer(description="it was there already", model=models.DefinitionItem, links=LINKS),
                    201: Answer(description="it was stored", model=models.DefinitionItem, links=LINKS),
                },
                errors=(InvalidDefinition, NotAccepting),
            ),
            Route(
                method="POST",
                path="/v1/definitions/validate",
                scope=Scope.READ,
                operation="validate",
                handler=self.validate,
                tag=TAG,
                summary="Check a definition",
                description="Says what storing it would say, and stores nothing.",
                body=self._body,
                answers={200: Answer(description="what is wrong, if anything is", model=models.Validation)},
            ),
        ]

    def _reading(self) -> Sequence[Route]:
        return [
            Route(
                method="GET",
                path="/v1/definitions",
                scope=Scope.READ,
                operation="list_definitions",
                handler=self.list_definitions,
                tag=TAG,
                summary="List definitions",
                description="The latest version of each name, ordered by name.",
                query=ListDefinitionsQuery,
                answers={200: Answer(description="a page", model=models.DefinitionPage)},
            ),
            Route(
                method="GET",
                path="/v1/definitions/{name}",
                scope=Scope.READ,
                operation="definition",
                handler=self.definition,
                tag=TAG,
                summary="A definition with its content",
                query=VersionQuery,
                answers={200: Answer(description="the definition", model=models.DefinitionDocument)},
                errors=(DefinitionNotFound,),
            ),
            Route(
                method="GET",
                path="/v1/definitions/{name}/versions",
                scope=Scope.READ,
                operation="list_versions",
                handler=self.list_versions,
                tag=TAG,
                summary="List the versions of a definition",
                description="Newest first.",
                query=ListVersionsQuery,
                answers={200: Answer(description="a page", model=models.DefinitionPage)},
                errors=(DefinitionNotFound,),
            ),
            Route(
                method="GET",
                path="/v1/definitions/{name}/diff",
                scope=Scope.READ,
                operation="diff",
                handler=self.diff,
                tag=TAG,
                summary="Compare two versions of a definition",
                query=DiffQuery,
                answers={200: Answer(description="how they differ", model=models.DefinitionDiff)},
                errors=(DefinitionNotFound,),
            ),
        ]

    async def define(self, call: Call) -> web.Response:
        """Store a definition."""
        defined = await self._engine.define(call.body)
        return json_response(201 if defined.new else 200, _item(defined.stored))

    async def validate(self, call: Call) -> web.Response:
        """Every problem of a definition."""
        try:
            problems = await self._engine.definitions.problems(call.body)
        except PayloadTooLarge as error:
            # Its canonical text may be longer than the one that was sent.
            return json_response(200, {"valid": False, "errors": [{"path": "$", "message": str(error)}]})
        errors = [{"path": problem.path, "message": problem.message} for problem in problems]
        return json_response(200, {"valid": not errors, "errors": errors})

    async def list_definitions(self, call: Call) -> web.Response:
        """A page of definitions."""
        query: ListDefinitionsQuery = call.query
        found = await self._engine.definitions.list(after=name_of_cursor(query.cursor), limit=query.limit + 1)
        return json_response(200, page(found, query.limit, _item, lambda item: cursor_of_name(item.name)))

    async def definition(self, call: Call) -> web.Response:
        """A definition with its content, put in as it is: it is JSON already."""
        query: VersionQuery = call.query
        record = await self._engine.definitions.read(call.path("name"), query.version)
        head = json.dumps(_item(record))[:-1]
        return bytes_response(200, head.encode() + b', "definition": ' + record.body + b"}\n")

    async def list_versions(self, call: Call) -> web.Response:
        """A page of a definition's versions."""
        query: ListVersionsQuery = call.query
        below = None if query.cursor is None else int(query.cursor)
        found = await self._engine.definitions.versions(call.path("name"), below=below, limit=query.limit + 1)
        return json_response(200, page(found, query.limit, _item, lambda item: str(item.version)))

    async def diff(self, call: Call) -> web.Response:
        """How two versions differ."""
        query: DiffQuery = call.query
        name = call.path("name")
        before = await self._engine.definitions.read(name, query.from_version)
        after = await self._engine.definitions.read(name, query.to_version)

        def compare() -> bytes:
            diff = diff_definitions(json.loads(before.body), json.loads(after.body))
            versions = {"name": name, "from_version": query.from_version, "to_version": query.to_version}
            return json.dumps({**versions, **diff}).encode() + b"\n"

        return bytes_response(200, await off_loop(len(before.body) + len(after.body), compare))


def _item(item: DefinitionVersion | DefinitionRecord) -> dict[str, object]:
    return {
        "workflow_definition_id": item.definition_id,
        "name": item.name,
        "version": item.version,
        "digest": item.digest,
        "created_at": format_moment(item.created_at),
    }
