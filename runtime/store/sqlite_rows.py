"""Rows of SQLite as the records of the port, and lists as SQLite takes them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..core.machine import AttemptRow
from ..core.state import NodeState, WorkflowState
from ..ports import CommandRecord, ExecutionRecord, ExecutionSummary, KeyRecord, LoadedExecution


def assemble_loaded(rows: Iterable[Sequence[Any]]) -> Sequence[LoadedExecution]:
    """Sort the rows of `load_executions` into executions, attempts by sequence, commands by id."""
    records: list[ExecutionRecord] = []
    attempts: dict[str, list[AttemptRow]] = {}
    commands: dict[str, list[CommandRecord]] = {}
    for kind, *row in rows:
        if kind == 0:
            records.append(execution_record(row))
        elif kind == 1:
            attempts.setdefault(row[0], []).append(AttemptRow._make([*row[:4], NodeState(row[4]), *row[5:]]))
        else:
            commands.setdefault(row[1], []).append(command_record(row))
    return [
        LoadedExecution(
            record,
            sorted(attempts.get(record.execution_id, ()), key=lambda attempt: attempt.sequence),
            sorted(commands.get(record.execution_id, ())),
        )
        for record in records
    ]


def json_array(ids: Iterable[str]) -> str:
    """For `json_each`, which cuts a text at a NUL and would then find what nobody asked for."""
    return json.dumps([each for each in ids if "\0" not in each])


def execution_record(row: Sequence[Any]) -> ExecutionRecord:
    """A row of `executions`."""
    return ExecutionRecord._make([*row[:3], WorkflowState(row[3]), *row[4:]])


def command_record(row: Sequence[Any]) -> CommandRecord:
    """A row of `commands`."""
    return CommandRecord(row[0], row[1], row[2], bool(row[3]), row[4])


def execution_summary(row: Sequence[Any]) -> ExecutionSummary:
    """A row of `list_executions`."""
    return ExecutionSummary._make([*row[:4], WorkflowState(row[4]), *row[5:]])


def key_record(row: Sequence[Any]) -> KeyRecord:
    """A row of `api_keys`."""
    return KeyRecord(row[0], row[1], row[2], tuple(json.loads(row[3])), *row[4:])
