"""Rows of a database as the records of the port."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..core.machine import AttemptRow, Suspicion
from ..core.state import NodeState, WorkflowState
from ..ports import CommandRecord, ExecutionRecord, ExecutionSummary, KeyRecord, LoadedExecution, Resolution


def assemble_loaded(rows: Iterable[Sequence[Any]]) -> Sequence[LoadedExecution]:
    """Sort the rows of `load_executions` and `load_nodes` into executions with everything of them."""
    records, attempts, commands, suspicions = [], [], [], []
    for kind, *row in rows:
        if kind == 0:
            records.append(execution_record(row))
        elif kind == 1:
            attempts.append(attempt_row(row[:10]))
        elif kind == 2:
            commands.append(command_record(row))
        else:
            suspicions.append(Suspicion._make(row[:4]))
    return group_loaded(records, attempts, commands, suspicions)


def group_loaded(
    records: Iterable[ExecutionRecord],
    attempts: Iterable[AttemptRow],
    commands: Iterable[CommandRecord],
    suspicions: Iterable[Suspicion],
) -> Sequence[LoadedExecution]:
    """Each execution with its attempts by sequence, its commands by id and its suspicions by attempt."""
    attempts_of: dict[str, list[AttemptRow]] = {}
    for attempt in attempts:
        attempts_of.setdefault(attempt.execution_id, []).append(attempt)
    commands_of: dict[str, list[CommandRecord]] = {}
    for command in commands:
        commands_of.setdefault(command.execution_id, []).append(command)
    suspicions_of: dict[str, list[Suspicion]] = {}
    for suspicion in suspicions:
        suspicions_of.setdefault(suspicion.execution_id, []).append(suspicion)
    return [
        LoadedExecution(
            record,
            sorted(attempts_of.get(record.execution_id, ()), key=lambda attempt: attempt.sequence),
            sorted(commands_of.get(record.execution_id, ())),
            sorted(suspicions_of.get(record.execution_id, ())),
        )
        for record in records
    ]


def json_array(ids: Iterable[str]) -> str:
    """For `json_each`, which cuts a text at a NUL and would then find what nobody asked for."""
    return json.dumps([each for each in ids if "\0" not in each])


def nodes_asked_for(wanted: Mapping[str, Collection[str]]) -> Sequence[tuple[str, Collection[str]]]:
    """For `load_nodes`: each execution and its nodes, each once, and none with a NUL, which is in no row."""
    return [
        (execution_id, sorted({node_id for node_id in node_ids if "\0" not in node_id}))
        for execution_id, node_ids in wanted.items()
        if "\0" not in execution_id
    ]


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
