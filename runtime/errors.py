"""The error tree of the runtime: one base, one branch for whose fault it is, a stable code for each.

A class's docstring is its title. `code` is part of the API (the last part of a problem's `type`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from .core.problem import Problem, did_you_mean, show

MAX_NAMES_SHOWN = 50


class EngineError(Exception):
    """The engine could not do what was asked."""

    code: ClassVar[str] = "internal-error"
    problems: Sequence[Problem] = ()


class CallerError(EngineError):
    """The request is at fault: the same request will fail again."""

    code: ClassVar[str] = "bad-request"


class InvalidDefinition(CallerError):
    """The workflow definition is not valid"""

    code: ClassVar[str] = "invalid-definition"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the definition")
        self.problems = tuple(problems)


class InvalidInput(CallerError):
    """The input is not valid"""

    code: ClassVar[str] = "invalid-input"

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the input")
        self.problems = tuple(problems)


class PayloadTooLarge(CallerError):
    """The payload is too large"""

    code: ClassVar[str] = "payload-too-large"


class ExecutionNotFound(CallerError):
    """There is no such execution"""

    code: ClassVar[str] = "execution-not-found"

    def __init__(self, execution_id: str) -> None:
        super().__init__(f"there is no execution with the id {execution_id[:100]!r}")


class DefinitionNotFound(CallerError):
    """There is no such definition"""

    code: ClassVar[str] = "definition-not-found"

    def __init__(self, name: str, version: int | None = None) -> None:
        wanted = f"version {version} of the definition" if version is not None else "definition with the name"
        super().__init__(f"there is no {wanted} {name[:100]!r}")


class NodeNotFound(CallerError):
    """There is no such node"""

    code: ClassVar[str] = "node-not-found"

    def __init__(self, node_id: str, known: Sequence[str]) -> None:
        there = ", ".join(known[:MAX_NAMES_SHOWN]) + ("" if len(known) <= MAX_NAMES_SHOWN else ", ...")
        super().__init__(f"the execution has no node {show(node_id)}{did_you_mean(node_id, known)}; there are {there}")


class FunctionNotFound(CallerError):
    """There is no such function"""

    code: ClassVar[str] = "function-not-found"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        there = ", ".join(names[:MAX_NAMES_SHOWN]) + ("" if len(names) <= MAX_NAMES_SHOWN else ", ...")
        super().__init__(f"no handler is called {show(name)}{did_you_mean(name, names)}; there are {there}")


class DeadLetterNotFound(CallerError):
    """There is no such dead letter"""

    code: ClassVar[str] = "dead-letter-not-found"


class ExecutionConflict(CallerError):
    """The execution's state does not allow this"""

    code: ClassVar[str] = "execution-conflict"


class IdempotencyConflict(CallerError):
    """The idempotency key was used for another request"""

    code: ClassVar[str] = "idempotency-conflict"

    def __init__(self) -> None:
        super().__init__("this Idempotency-Key came with another request before; use a new key for a new request")


class BackendError(EngineError):
    """Something the engine depends on is at fault: the same request may succeed later."""

    code: ClassVar[str] = "unavailable"


class StoreUnavailable(BackendError):
    """The store cannot take this now"""

    code: ClassVar[str] = "store-unavailable"


class StoreOutcomeUnknown(BackendError):
    """The store did not say whether it has taken this"""

    code: ClassVar[str] = "store-outcome-unknown"


class BrokerUnavailable(BackendError):
    """What replicas talk through does not answer"""

    code: ClassVar[str] = "broker-unavailable"


class Overloaded(BackendError):
    """The engine has as much in hand as it takes at a time"""

    code: ClassVar[str] = "overloaded"


class NotAccepting(BackendError):
    """The engine is shutting down"""

    code: ClassVar[str] = "shutting-down"


class SetupError(EngineError):
    """The engine cannot start like this"""

    code: ClassVar[str] = "setup"


class StoreUnusable(SetupError):
    """The database cannot be used"""

    code: ClassVar[str] = "store-unusable"


class PartitionLost(EngineError):
    """Another process has taken this partition: what this one still wanted to commit is not valid any more"""

    code: ClassVar[str] = "partition-lost"
