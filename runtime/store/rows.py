"""Rows of a database as the records of the port."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from ..core.machine import AttemptRow
from ..core.state import NodeState, WorkflowState
from ..ports import CommandRecord, ExecutionRecord, ExecutionSummary, KeyRecord, LoadedExecution, Resolution


def assemble_loaded(rows: Iterable[Sequence[Any]]) -> Sequence[LoadedExecution]:
    """Sort the rows of `load_executions` into executions, attempts by sequence, commands by id."""
    records, attempts, commands = [], [], []
    for kind, *row in rows:
        if kind == 0:
            records.append(execution_record(row))
        elif kind == 1:
            attempts.append(attempt_row(row[:10]))
        else:
            commands.append(command_record(row))
    return group_loaded(records, attempts, commands)


def group_loaded(
    records: Iterable[ExecutionRecord], attempts: Iterable[AttemptRow], commands: Iterable[CommandRecord]
) -> Sequence[LoadedExecution]:
    """Each execution with its attempts by sequence and its commands by id."""
    attempts_of: dict[str, list[AttemptRow]] = {}
    for attempt in attempts:
        attempts_of.setdefault(attempt.execution_id, []).append(attempt)
    commands_of: dict[str, list[CommandRecord]] = {}
    for command in commands:
        commands_of.setdefault(command.execution_id, []).append(command)
    return [
        LoadedExecution(
            record,
            sorted(attempts_of.get(record.execution_id, ()), key=lambda attempt: attempt.sequence),
            sorted(commands_of.get(record.execution_id, ())),
        )
        for record in records
    ]


def json_array(ids: Iterable[str]) -> str:
    """For `json_each`, which cuts a text at a NUL and would then find what nobody asked for."""
    return json.dumps([each for each in ids if "\0" not in each])


def execution_record(row: Sequence[Any]) -> ExecutionRecord:
    """A row of `executions`."""
    resolution = None if row[11] is None else Resolution(row[11])
    return ExecutionRecord._make([*row[:3], WorkflowState(row[3]), *row[4:11], resolution])


def attempt_row(row: Sequence[Any]) -> AttemptRow:
    """A row of `attempts`."""
    return AttemptRow._make([*row[:4], NodeState(row[4]), *row[5:]])


def command_record(row: Sequence[Any]) -> CommandRecord:
    """A row of `commands`."""
    return CommandRecord(row[0], row[1], row[2], bool(row[3]), row[4])


def execution_summary(row: Sequence[Any]) -> ExecutionSummary:
    """A row of `list_executions`."""
    return ExecutionSummary._make([*row[:4], WorkflowState(row[4]), *row[5:]])


def key_record(row: Sequence[Any]) -> KeyRecord:
    """A row of `api_keys`."""
    return KeyRecord(row[0], row[1], row[2], tuple(row[3]), *row[4:])
