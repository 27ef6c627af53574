"""What hooks are given and what they return: plain values, nothing of the engine's inside."""

from __future__ import annotations

import argparse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel

CallerScope = Literal["read", "run", "admin"]
"""What a caller may do; each includes the ones before it."""

RouteScope = Literal["public", "read", "run", "admin"]
"""What a caller of a route needs; `public`: nothing, not even a key."""

MAX_ROUTE_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineProcess:
    """The process that a plugin is loaded in. `settings` are the effective settings by lower-case name."""

    replica: str
    roles: tuple[str, ...]
    engine_version: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of a node; `number` counts from 1. `workflow` is the name of the definition."""

    execution_id: str
    workflow: str
    node_id: str
    handler: str
    number: int

    @property
    def idempotency_key(self) -> str:
        """`execution/node/attempt`, as handlers get it."""
        return f"{self.execution_id}/{self.node_id}/{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptOutcome:
    """How an attempt ended. `output_bytes` is the size of its output as JSON; None when it failed.

    `error_type` and `error_message` are as users see them in `error`; None when it did not fail.
    """

    seconds: float
    output_bytes: int | None
    error_type: str | None = None
    error_message: str | None = None

    @property
    def failed(self) -> bool:
        """Whether it has an error."""
        return self.error_type is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedExecution:
    """An execution that has ended: `state` is `COMPLETED`, `FAILED` or `CANCELLED`."""

    execution_id: str
    workflow: str
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as far as it can say who sends it. `headers` are by lower-case name, each with its first value."""

    method: str
    path: str
    headers: Mapping[str, str]
    remote: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCaller:
    """Who sends a request: a name that is theirs alone, and what they may do."""

    name: str
    scope: CallerScope


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCall:
    """A request to a plugin's route. `query` and `body` are instances of the route's models; None without one.

    `path` holds the parts of the path by name. `caller` is None where the route is public.
    """

    path: Mapping[str, str]
    query: Any
    body: Any
    caller: ApiCaller | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginRoute:
    """A route of the API, at `/v1/plugins/{distribution}` and this `path`, such as `/invoices/{id}`.

    `run(call)` returns an instance of `answer`, or any JSON value without that model; None is answered 204. It raises
    `RouteRefused` for what the caller has done wrong.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    run: Callable[[PluginCall], Awaitable[Any]]
    scope: RouteScope
    summary: str
    description: str = ""
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None


class RouteRefused(Exception):
    """A plugin's route refuses a request: answered with `status` (400 to 499) and this message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        if not 400 <= status <= 499:
            raise ValueError(f"RouteRefused: status must be from 400 to 499, not {status}")
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginCommand:
    """A command: `workflow-engine NAME`. `run` is given what `arguments` has declared, and returns the exit code."""

    name: str
    help: str
    run: Callable[[argparse.Namespace], int]
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _parser: None
