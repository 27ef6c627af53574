"""A route as one value: what it is called, who may call it, what it takes and what it answers.

Registration, authorisation, validation and the OpenAPI document are all made from this value, so they
cannot differ. A route without a scope cannot be written down.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from ..errors import EngineError
from ..ports import IdempotencyClaim


class Scope(StrEnum):
    """What a caller may do. Each scope includes the ones before it."""

    PUBLIC = "public"
    READ = "read"
    RUN = "run"
    ADMIN = "admin"

    def includes(self, needed: Scope) -> bool:
        """Whether a caller with this scope may call a route that needs `needed`."""
        return _RANK[self] >= _RANK[needed]


_RANK: Mapping[Scope, int] = {scope: rank for rank, scope in enumerate(Scope)}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the id of a key (or a word for everybody), and its scope."""

    name: str
    scope: Scope


class NoQuery(BaseModel):
    """No query parameters."""

    model_config = ConfigDict(extra="forbid")


class Call:
    """A request that its route has admitted. `query` and `body` are instances of the route's models.

    `body` is decoded JSON where the route leaves the checking to the engine, None without a body. `claim`
    is there when the request has an `Idempotency-Key` and the route takes it.
    """

    __slots__ = ("body", "claim", "principal", "query", "request")

    def __init__(self, request: web.Request, principal: Principal, query: Any, body: Any) -> None:
        self.request = request
        self.principal = principal
        self.query = query
        self.body = body
        self.claim: IdempotencyClaim | None = None

    def path(self, name: str) -> str:
        """A part of the path."""
        return self.request.match_info[name]

    def is_waited_for(self) -> bool:
        """Whether the client is still there."""
        return self.request.transport is not None


Handler = Callable[[Call], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonBody:
    """A JSON body of at most `max_bytes`. `optional`: none at all counts as `{}`.

    `engine_checks`: the handler gets decoded JSON, since the engine validates against the same model and
    more, and reports everything at once. `example` is one that is valid.
    """

    model: type[BaseModel]
    max_bytes: int
    optional: bool = False
    engine_checks: bool = False
    example: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinesBody:
    """A body of JSON lines, each an instance of `line`, which the handler reads as a stream."""

    line: type[BaseModel]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What an answer of one status holds: an instance of `model`, or lines of such; None for an empty one.

    `links`: what may be called next. For each operation, its path parameter and the answer's key that holds it.
    """

    description: str
    model: Any = None
    lines: bool = False
    links: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One operation of the API. `errors` are what it raises beyond what every route of its kind may raise.

    `idempotent`: it takes an `Idempotency-Key`. `counted`: it is one of the requests that are bounded;
    health is not, so that it can be asked under overload. `documented`: it stands in the OpenAPI document.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    scope: Scope
    operation: str
    handler: Handler
    summary: str
    tag: str
    description: str = ""
    query: type[BaseModel] = NoQuery
    body: JsonBody | LinesBody | None = None
    answers: Mapping[int, Answer] = field(default_factory=dict)
    errors: tuple[type[EngineError], ...] = ()
    idempotent: bool = False
    counted: bool = True
    documented: bool = True
