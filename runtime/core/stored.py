"""Rows as they are stored, for rules that only look at them: what the records of the ports have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .machine import AttemptRow, Suspicion
from .state import WorkflowState


class StoredExecution(Protocol):
    """An execution's row: `ExecutionRecord` of the ports."""

    @property
    def execution_id(self) -> str: ...
    @property
    def definition_id(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def state(self) -> WorkflowState: ...
    @property
    def input_text(self) -> bytes | None: ...
    @property
    def error(self) -> str | None: ...
    @property
    def created_at(self) -> int: ...
    @property
    def started_at(self) -> int | None: ...
    @property
    def completed_at(self) -> int | None: ...
    @property
    def parked_until(self) -> int | None: ...
    @property
    def retry_of(self) -> str | None: ...
    @property
    def resolution(self) -> str | None: ...


class StoredCancel(Protocol):
    """A cancel's row: `CommandRecord` of the ports."""

    @property
    def command_id(self) -> int: ...
    @property
    def created_at(self) -> int: ...
    @property
    def consumed(self) -> bool: ...
    @property
    def sequence(self) -> int | None: ...


class History(Protocol):
    """Everything that is stored of an execution, as of one moment: `LoadedExecution` of the ports.

    Attempts by sequence. Of inputs and outputs it matters only whether they are there, but to `judge_retry`.
    """

    @property
    def record(self) -> StoredExecution: ...
    @property
    def attempts(self) -> Sequence[AttemptRow]: ...
    @property
    def commands(self) -> Sequence[StoredCancel]: ...
    @property
    def suspicions(self) -> Sequence[Suspicion]: ...
