"""What the API answers, as the OpenAPI document shows it. Bodies that it takes are in `bodies.py`.

Answers are written as plain dictionaries; the tests hold them to these models.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from ..core.history import EventKind
from ..core.state import NodeState, WorkflowState

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
Id = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
RetryOf = Annotated[Id | None, Field(description="the dead letter that this one carries on; missing if there is none")]


class AnswerModel(BaseModel):
    """An answer has these keys and no others."""

    model_config = ConfigDict(extra="forbid")


class ProblemError(AnswerModel):
    """One thing that is wrong."""

    path: str = Field(description="where it is, such as `dag.nodes[3].config.url` or `query.limit`")
    message: str = Field(description="what is wrong and how to mend it")


class ProblemDocument(BaseModel):
    """What is wrong (RFC 9457). `errors` is missing when there is nothing to point at; `execution_id` and `error` are
    there when a function failed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"required": ["type", "title", "status", "detail"]})

    type: str = Field(description="`urn:workflow-engine:problem:` and a code that never changes")
    title: str = Field(description="the kind of problem, for people")
    status: int = Field(description="the HTTP status")
    detail: str = Field(description="this very problem, for people")
    errors: list[ProblemError] = Field(default_factory=list, description="each thing that is wrong")
    execution_id: Id | None = Field(default=None, description="of the call of a function that failed")
    error: dict[str, Any] | None = Field(
        default=None,
        description="of a function that failed: node_id, type, message, attempt; null when it was cancelled",
    )


class Submitted(AnswerModel):
    """A definition and a new execution of it."""

    workflow_definition_id: Id
    execution_id: Id
    message: str


class Called(Submitted):
    """A call of a function that has not ended. `Location` is its execution."""

    waiting: str | None = Field(description="why it does not run, if no live worker has it; only known after a `wait`")


class Triggered(AnswerModel):
    """The execution that was started."""

    execution_id: Id
    message: str


class CancelRequested(AnswerModel):
    """An execution that was asked to stop."""

    execution_id: Id
    state: WorkflowState = Field(description="CANCELLED at once when it was PENDING; RUNNING until it has stopped")
    message: str


class CancelledMany(AnswerModel):
    """What came of cancelling by filter."""

    cancelled: int = Field(description="PENDING ones, which are CANCELLED now")
    requested: int = Field(description="RUNNING ones, which were asked to stop")
    more: bool = Field(description="whether others meet the filter; call again")


class ExecutionStatus(AnswerModel):
    """An execution and its nodes as they stand."""

    id: Id
    state: WorkflowState
    started_at: Time | None
    completed_at: Time | None
    node_states: dict[str, NodeState] = Field(description="each node's state, by its id")
    error: dict[str, Any] | None = Field(description="of the node that failed: node_id, type, message, attempt")
    retry_of: RetryOf = None
    waiting: dict[str, str] = Field(
        default_factory=dict,
        description="by its id, each node whose handler no live worker has, in words; missing if there is none",
    )


class NodeWaiting(AnswerModel):
    """What a node waits for: the first thing in its way."""

    for_: Literal["trigger", "predecessors", "cancel", "partition", "retry", "handler", "limit", "slot"] = Field(
        alias="for"
    )
    message: str = Field(description="the same in words")
    nodes: list[str] = Field(description="its predecessors that have not completed, if it waits for those")
    until: Time | None = Field(description="when its retry is due, if it waits for that")


class NodeStatus(AnswerModel):
    """A node of an execution as it stands."""

    execution_id: Id
    node_id: str
    handler: str
    state: NodeState
    attempt: int = Field(description="the number of its current or last attempt; 0 before the first one")
    waiting: NodeWaiting | None = Field(description="why it does not run; null when it does, or has ended")
    progress: float | str | None = Field(
        description="what its attempt says of itself: a share from 0 to 1, or a text; null unless it runs here"
    )


class ExecutionResults(AnswerModel):
    """What an execution came to."""

    id: Id
    state: WorkflowState
    output_data: Any = Field(description="the exit nodes' output; null until the execution is COMPLETED")
    completed_at: Time | None
    error: dict[str, Any] | None = Field(description="of the node that failed: node_id, type, message, attempt")


class ExecutionItem(AnswerModel):
    """An execution in a list."""

    id: Id
    state: WorkflowState
    workflow_definition_id: Id
    name: str = Field(description="of its definition")
    version: int = Field(description="of its definition")
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    error: dict[str, Any] | None = Field(description="of the node that failed: node_id, type, message, attempt")
    retry_of: RetryOf = None


class DefinitionItem(AnswerModel):
    """A version of a definition."""

    workflow_definition_id: Id
    name: str
    version: int
    digest: str = Field(description="SHA-256 of the definition's canonical JSON")
    created_at: Time


class DefinitionDocument(DefinitionItem):
    """A version of a definition, with its content."""

    definition: dict[str, Any] = Field(description="its content, with the keys of each object in alphabetical order")


NextCursor = Annotated[str | None, Field(description="`cursor` of the next page; null when this is the last one")]


class ExecutionPage(AnswerModel):
    """Executions, newest first."""

    items: list[ExecutionItem]
    next_cursor: NextCursor


class Attempt(AnswerModel):
    """One attempt of a node that has ended."""

    node_id: str
    attempt: int = Field(description="its number, from 1")
    state: NodeState
    started_at: Time | None = Field(description="null when it was cancelled")
    finished_at: Time
    error: dict[str, Any] | None = Field(description="why it failed: node_id, type, message, attempt")


class HistoryEvent(AnswerModel):
    """Something that happened to an execution."""

    at: Time
    event: EventKind
    node_id: str | None = Field(default=None, description="missing for what concerns the whole execution")
    attempt: int | None = Field(default=None, description="as `node_id`")
    details: dict[str, Any] = Field(
        description="`error` of what failed, `retry_at` of a retry, `state` of the end, `effective` of a cancel"
    )


class EventPage(AnswerModel):
    """Events of an execution, the first one first."""

    items: list[HistoryEvent]
    next_cursor: NextCursor


class TimelineItem(AnswerModel):
    """An attempt that has ended."""

    node_id: str
    attempt: int = Field(description="its number, from 1")
    state: NodeState
    queued_at: Time = Field(description="when everything that it waited for was there")
    started_at: Time | None = Field(description="null when it ended before it began")
    finished_at: Time
    retry_at: Time | None = Field(description="when the next attempt was due; null without one")
    error: dict[str, Any] | None


class TimelinePage(AnswerModel):
    """Attempts, in the order of their ends."""

    items: list[TimelineItem]
    next_cursor: NextCursor


class TraceDocument(RootModel[dict[str, Any]]):
    """`resourceSpans` as in OTLP/HTTP's JSON, or `data` as in Jaeger's."""


class DeadLetter(ExecutionItem):
    """An execution that FAILED, with a page of its attempts, the last one first."""

    attempts: list[Attempt]
    next_cursor: NextCursor


class Requeued(AnswerModel):
    """What a dead letter was requeued as."""

    execution_id: Id = Field(description="of the execution that carries it on")
    retry_of: Id = Field(description="of the dead letter")
    message: str


class RequeuedMany(AnswerModel):
    """What came of requeueing by filter."""

    requeued: int
    next_cursor: Annotated[str | None, Field(description="`cursor` to go on with; null when there are no more")]


class DiscardedMany(AnswerModel):
    """What came of discarding by filter."""

    discarded: int
    next_cursor: Annotated[str | None, Field(description="`cursor` to go on with; null when there are no more")]


class DefinitionPage(AnswerModel):
    """Definitions."""

    items: list[DefinitionItem]
    next_cursor: NextCursor


class Change(AnswerModel):
    """One value that differs. `old` is missing for what was added, `new` for what was removed."""

    path: str = Field(description="where, such as `dag.nodes[2].config.url`: in the newer version if it is there")
    old: Any = None
    new: Any = None

    model_config = ConfigDict(extra="forbid", json_schema_extra={"required": ["path"]})


class NodeChange(AnswerModel):
    """A node that is in both versions and differs."""

    id: str
    changes: list[Change]


class DefinitionDiff(AnswerModel):
    """How one version of a definition differs from another."""

    name: str
    from_version: int
    to_version: int
    added_nodes: list[str] = Field(description="ids of nodes that only the second version has")
    removed_nodes: list[str] = Field(description="ids of nodes that only the first version has")
    changed_nodes: list[NodeChange]
    changes: list[Change] = Field(description="what differs outside the nodes")


class Validation(AnswerModel):
    """Whether a definition may be stored, and why not."""

    valid: bool
    errors: list[ProblemError]


class BulkAnswer(BaseModel):
    """The answer to one line: `execution_id`, or `problem`."""

    line: int = Field(description="the number of the line, from 1")
    execution_id: Id | None = None
    problem: ProblemDocument | None = None


class FunctionItem(AnswerModel):
    """A node type, which is a function that may be called."""

    name: str
    description: str
    config_schema: dict[str, Any] | None = Field(description="JSON Schema of its config; null when it takes anything")
    output_schema: dict[str, Any] | None = Field(
        description="JSON Schema of its output; null when that may be anything"
    )
    distribution: str | None = Field(description="the package that it came with, if known")
    version: str | None = Field(description="of that package")
    declared: dict[str, Any] = Field(
        description="what else it declares, as far as it does: lane, timeout_seconds, stale_timeout_seconds, retry, "
        "max_running_per_process, max_running, rate_limit"
    )
    workers: list[str] = Field(description="the ids of the live replicas that run it")
    running: int = Field(description="how many attempts run, as far as the process that answers can tell")
    queued: int = Field(
        description="how many attempts wait in the process that answers for a worker; of very many, the first 10,000 "
        "are counted"
    )


class FunctionOutput(RootModel[Any]):
    """What a function returns: any JSON value."""


class FunctionList(AnswerModel):
    """The node types that there are."""

    items: list[FunctionItem]


class PartitionItem(AnswerModel):
    """A partition as the store has it."""

    partition: int
    owner: str | None = Field(description="the id of the replica that owns it, or did last; null when nobody does")
    version: int = Field(description="goes up with every commit and every change of hands")
    expires_in_seconds: float | None = Field(
        description="what is left of the owner's lease, negative when it has run out; null without an owner, and when "
        "it never does"
    )
    unserved_seconds: float | None = Field(
        description="how long its oldest execution that is ready to run has waited for somebody to own the partition; "
        "null when nothing waits, or somebody does"
    )


class PartitionList(AnswerModel):
    """Every partition, by number."""

    items: list[PartitionItem]
    oldest_unserved_seconds: float | None = Field(description="the longest `unserved_seconds`; null when all is served")


class AttemptItem(AnswerModel):
    """An attempt that a replica runs, has taken, or still has to hand in."""

    execution_id: Id
    node_id: str | None = Field(description="null when the process that answers does not own the execution")
    attempt: int


class WorkerItem(AnswerModel):
    """A replica by what it last said of itself."""

    id: str
    host: str
    version: str = Field(description="of the engine")
    started_at: Time
    alive: bool = Field(
        description="whether it said so within WORKER_HEARTBEAT_TIMEOUT, in a checkpoint within three times "
        "ORCHESTRATOR_CHECKPOINT_INTERVAL"
    )
    age_seconds: float = Field(description="how long ago it said so")
    roles: list[Literal["api", "orchestrator", "worker"]]
    handlers: list[str] = Field(description="the node types that it runs")
    slots: int = Field(description="how many attempts it runs at a time; 0 without the role worker")
    free_slots: int
    partitions: int = Field(description="how many partitions it owns")
    attempts: list[AttemptItem]


class WorkerList(AnswerModel):
    """Every replica, by id."""

    source: Literal["heartbeats", "checkpoints"] = Field(
        description="heartbeats come through Redis, checkpoints from the database; of itself, a process tells what is "
        "so now"
    )
    items: list[WorkerItem]


class Key(AnswerModel):
    """An API key; its text is not kept."""

    id: Id
    name: str
    scope: Literal["read", "run", "admin"]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None


class CreatedKey(Key):
    """A new API key with its text, which is shown this once."""

    key: str


class KeyList(AnswerModel):
    """Every API key, oldest first."""

    items: list[Key]


class HealthServices(AnswerModel):
    """Each part in one word (healthy, degraded, unhealthy), and what there is to say of it."""

    redis: str
    postgres: str
    store: str
    orchestrator: str
    workers: str
    plugins: str


class Health(AnswerModel):
    """How this process is, and what it sees of the others."""

    status: Literal["healthy", "degraded", "unhealthy"] = Field(
        description="degraded: work goes on, but something is missing, such as Redis, or a worker"
    )
    version: str
    services: HealthServices


class Alive(AnswerModel):
    """This process answers."""

    status: Literal["alive"]


class Ready(AnswerModel):
    """Whether this process takes work."""

    status: Literal["ready", "not ready"]
    reason: str | None = Field(description="why it is not ready")
