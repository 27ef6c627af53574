"""The bodies and queries that the API takes. `WorkflowDefinition` is in `runtime/core/definition.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..core.definition import NO_NUL
from ..core.limits import MAX_DELAY_SECONDS, MAX_RETRIES, MAX_TIMEOUT_SECONDS
from ..core.state import WorkflowState
from ..ports import DeadLetterFilter, ExecutionFilter
from .values import (
    DEFAULT_PAGE_ITEMS,
    NUMBER,
    WHOLE_NUMBER,
    DefinitionName,
    Moment,
    PageSize,
    Version,
    WaitSeconds,
)

MAX_CANCELLED_AT_ONCE = 1000
MAX_LETTERS_AT_ONCE = 1000

States = Annotated[list[WorkflowState], Field(description="only executions in one of these states")]


class TriggerRequest(BaseModel):
    """The input of an execution."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input_params: dict[str, Any] = Field(default_factory=dict, description="the workflow's input parameters")


class FunctionConfig(BaseModel):
    """The configuration of a handler, as `/v1/functions/{name}` describes it. It is taken literally."""

    model_config = ConfigDict(extra="allow")


class NothingRequest(BaseModel):
    """Nothing: an empty object, or no body at all."""

    model_config = ConfigDict(extra="forbid")


class CancelManyRequest(BaseModel):
    """Which executions to cancel: those that meet every condition. Without any: all of them."""

    model_config = ConfigDict(extra="forbid")

    states: States = Field(default_factory=list)
    name: DefinitionName | None = Field(default=None, description="of the definition, exactly")
    created_from: Moment | None = Field(default=None, description="created then or later")
    created_before: Moment | None = Field(default=None, description="created earlier")
    limit: Annotated[int, Field(ge=1, le=MAX_CANCELLED_AT_ONCE, description="how many at most"), WHOLE_NUMBER] = (
        MAX_CANCELLED_AT_ONCE
    )

    @property
    def wanted(self) -> ExecutionFilter:
        """The conditions as the engine takes them."""
        return ExecutionFilter(frozenset(self.states), self.name, self.created_from, self.created_before)


class DeadLetterConditions(BaseModel):
    """Which dead letters are meant: those that meet every condition."""

    model_config = ConfigDict(extra="forbid")

    name: DefinitionName | None = Field(default=None, description="of the definition, exactly")
    error_type: str | None = Field(default=None, min_length=1, description="`type` of the failed node's error, exactly")
    created_from: Moment | None = Field(default=None, description="the execution was created then or later")
    created_before: Moment | None = Field(default=None, description="the execution was created earlier")

    @property
    def wanted(self) -> DeadLetterFilter:
        """The conditions as the engine takes them."""
        return DeadLetterFilter(self.name, self.error_type, self.created_from, self.created_before)


class DeadLettersRequest(DeadLetterConditions):
    """Which dead letters to deal with: those that meet every condition. Without any: all of them."""

    limit: Annotated[int, Field(ge=1, le=MAX_LETTERS_AT_ONCE, description="how many at most"), WHOLE_NUMBER] = (
        MAX_LETTERS_AT_ONCE
    )
    cursor: str | None = Field(
        default=None, pattern="^[0-9a-f]{32}$", description="`next_cursor` of the answer before this one"
    )


class KeyRequest(BaseModel):
    """A key to make."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=256, pattern=NO_NUL, description="whose it is or what it is for")
    scope: Literal["read", "run", "admin"] = Field(description="what it allows; each includes the ones before it")
    expires_at: Moment | None = Field(default=None, description="when it ends; never unless given")


class Query(BaseModel):
    """Query parameters."""

    model_config = ConfigDict(extra="forbid")


class WaitQuery(Query):
    """How long to wait for the end."""

    wait: WaitSeconds = Field(default=0.0, description="seconds to wait for the execution to end")


class ListExecutionsQuery(Query):
    """Which executions to list."""

    state: States = Field(default_factory=list)
    name: DefinitionName | None = Field(default=None, description="of the definition, exactly")
    created_from: Moment | None = Field(default=None, description="created then or later")
    created_before: Moment | None = Field(default=None, description="created earlier")
    limit: PageSize = DEFAULT_PAGE_ITEMS
    cursor: str | None = Field(
        default=None, pattern="^[0-9a-f]{32}$", description="`next_cursor` of the page before this one"
    )

    @property
    def wanted(self) -> ExecutionFilter:
        """The conditions as the engine takes them."""
        return ExecutionFilter(frozenset(self.state), self.name, self.created_from, self.created_before)


class ListDeadLettersQuery(DeadLetterConditions):
    """Which dead letters to list."""

    limit: PageSize = DEFAULT_PAGE_ITEMS
    cursor: str | None = Field(
        default=None, pattern="^[0-9a-f]{32}$", description="`next_cursor` of the page before this one"
    )


class AttemptsQuery(Query):
    """Which attempts to show."""

    limit: PageSize = DEFAULT_PAGE_ITEMS
    cursor: str | None = Field(
        default=None, pattern="^[1-9][0-9]{0,8}$", description="`next_cursor` of the page before this one"
    )


class HistoryQuery(Query):
    """Which part of a history to show."""

    limit: PageSize = DEFAULT_PAGE_ITEMS
    cursor: str | None = Field(
        default=None, pattern="^[1-9][0-9]{0,8}$", description="`next_cursor` of the page before this one"
    )

    @property
    def first(self) -> int:
        """The place of the first item, from 0."""
        return 0 if self.cursor is None else int(self.cursor)

    @property
    def last(self) -> int:
        """The place behind the last item."""
        return self.first + self.limit


class TraceQuery(Query):
    """How to write a trace."""

    format: Literal["otlp", "jaeger"] = Field(
        default="otlp", description="`otlp`: as OTLP/HTTP takes it; `jaeger`: as Jaeger's page takes it under Upload"
    )


class ListDefinitionsQuery(Query):
    """Which definitions to list."""

    limit: PageSize = DEFAULT_PAGE_ITEMS
    cursor: str | None = Field(
        default=None,
        max_length=2000,
        pattern="^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2,3})?$",
        description="`next_cursor` of the page before this one",
    )


class ListVersionsQuery(Query):
    """Which versions to list."""

    limit: PageSize = DEFAULT_PAGE_ITEMS
    cursor: str | None = Field(
        default=None, pattern="^[1-9][0-9]{0,8}$", description="`next_cursor` of the page before this one"
    )


class VersionQuery(Query):
    """Which version is meant."""

    version: Version | None = Field(default=None, description="the latest unless given")


class StartQuery(VersionQuery, WaitQuery):
    """Which version to start, and how long to wait for the end."""


class CallQuery(WaitQuery):
    """How long to wait for the end of a call, and how it is tried. What is left out is as the handler declares it, or
    as the settings say. Calls with other options than usual are executions of another version of the definition."""

    timeout_seconds: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_SECONDS), NUMBER] | None = Field(
        default=None, description="longest time of one attempt"
    )
    max_retries: Annotated[int, Field(ge=0, le=MAX_RETRIES), WHOLE_NUMBER] | None = Field(
        default=None, description="attempts after the first one"
    )
    initial_delay: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS), NUMBER] | None = Field(
        default=None, description="seconds before the first retry"
    )
    max_delay: Annotated[float, Field(ge=0, le=MAX_DELAY_SECONDS), NUMBER] | None = Field(
        default=None, description="longest delay, in seconds"
    )

    @property
    def options(self) -> Mapping[str, Any]:
        """What was given of how it is tried, as fields of a node."""
        if self.model_fields_set <= {"wait"}:
            return {}
        retry = self.model_dump(include={"max_retries", "initial_delay", "max_delay"}, exclude_none=True)
        timeout = {} if self.timeout_seconds is None else {"timeout_seconds": self.timeout_seconds}
        return {**timeout, "retry_config": retry} if retry else timeout


class DiffQuery(Query):
    """Which versions to compare."""

    from_version: Version = Field(alias="from", description="the version to compare with")
    to_version: Version = Field(alias="to", description="the version to compare")
