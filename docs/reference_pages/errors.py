"""The problems that the engine reports, from the classes and the table that they are made of.

A remedy is written here for each code; `tests/documentation` compares the codes with those in the code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from workflow_engine.runtime.api import problems
from workflow_engine.runtime.api.errors import RequestRefused
from workflow_engine.runtime.errors import (
    BackendError,
    BrokerUnavailable,
    CallerError,
    EngineError,
    PartitionLost,
    SetupError,
)

from .markdown import anchor, code

REMEDIES: dict[str, str] = {
    "bad-request": "Correct what `errors` names: a body that is no JSON, an unknown field, a query parameter.",
    "broker-unavailable": "Nothing to do: what needs Redis waits for it, and the rest goes on.",
    "cross-site-request": "Call the API from its own pages, or from a program; a page of another site cannot.",
    "dead-letter-not-found": "The message says why it is none: it runs, it was requeued, it was discarded.",
    "definition-not-found": "Check the name and the version; definitions are stored by a submit.",
    "execution-conflict": "Look at the execution's state first; one that runs cannot be triggered again, and only one "
    "that has FAILED can be requeued, once.",
    "execution-not-found": "Check the id. Executions that ended long ago may have been deleted by retention.",
    "function-failed": "Read `error`. The call is a dead letter, which can be requeued; a new call does it all again.",
    "function-not-found": "Use a name that the message has, or install the plugin that has it where nodes are run.",
    "forbidden": "Use a key with the scope that the message names.",
    "host-not-allowed": "Call it by a name of the machine, such as `localhost`, or require API keys.",
    "idempotency-conflict": "Use a new `Idempotency-Key` for a new request; the same key is for the same request.",
    "internal-error": "A fault of the engine: its log has the trace. Please report it.",
    "invalid-definition": "Correct the definition at each path of `errors`.",
    "invalid-input": "Correct the parameters at each path of `errors`; the definition's `input_schema` says what fits.",
    "key-not-found": "Check the id in the list of keys; one that was revoked cannot be revoked again.",
    "method-not-allowed": "Use a method of the `Allow` header.",
    "node-not-found": "Use the id of one of the nodes that the message has.",
    "not-found": "Check the address; the reference lists every endpoint.",
    "overloaded": "Send the request again after `Retry-After`; send fewer at the same time.",
    "partition-lost": "Nothing to do: another process has taken over this partition, and goes on with it.",
    "payload-too-large": "Send less: the message says how much is allowed.",
    "refused-by-plugin": "Mend what `detail` names; the plugin that serves the route says what it takes.",
    "request-timeout": "Send the request faster, or in smaller ones; `API_REQUEST_TIMEOUT` sets the time.",
    "setup": "Read the message: it names what is missing or taken, such as the port.",
    "shutting-down": "Send the request again, to this process once it is back or to another one.",
    "store-outcome-unknown": "Look whether it was done, or send it again with the same `Idempotency-Key`.",
    "store-unavailable": "Send the request again after `Retry-After`; see that the disk is not full.",
    "store-unusable": "Read the message: the file is locked by another process, damaged, or of a newer version.",
    "unauthenticated": "Send a valid key: `Authorization: Bearer wfe_...`. Ask for a new one if it has expired.",
    "unsupported-media-type": "Send `Content-Type: application/json`.",
}

# Not of an exception of ours: what the HTTP server refuses before a route sees the request, and what nobody expected.
_SERVER_PROBLEMS = {"internal-error": 500, "method-not-allowed": 405, "not-found": 404}

# Never raised themselves: what is, is of a class below them.
_BRANCHES = (EngineError, CallerError, BackendError, RequestRefused)


class Entry(NamedTuple):
    """One problem. `status` is None when it is never an HTTP answer."""

    code: str
    status: int | None
    title: str


def entries() -> list[Entry]:
    """Every problem, by its code."""
    own = [_entry(kind) for kind in _kinds(EngineError) if kind not in _BRANCHES]
    served = [Entry(name, status, problems.TITLES[status]) for name, status in _SERVER_PROBLEMS.items()]
    return sorted({entry.code: entry for entry in [*own, *served]}.values())


def render() -> str:
    """A section for each, under an anchor that stays."""
    return "\n\n".join(_section(entry) for entry in entries())


def _kinds(base: type[EngineError]) -> Iterator[type[EngineError]]:
    yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)


def _entry(kind: type[EngineError]) -> Entry:
    title = " ".join((kind.__doc__ or "").split()).split(":")[0].rstrip(".")
    if issubclass(kind, (SetupError, PartitionLost, BrokerUnavailable)):
        return Entry(kind.code, None, title)
    return Entry(kind.code, problems.status_of(kind), title)


def _section(entry: Entry) -> str:
    uri = problems.PROBLEM_TYPE_PREFIX + entry.code
    where = f"HTTP {entry.status}, `type` {code(uri)}" if entry.status else "On the command line and in the log only"
    return "\n\n".join(
        (anchor(f"problem-{entry.code}"), f"### {entry.code}", f"{where}. {entry.title}.", REMEDIES[entry.code])
    )
