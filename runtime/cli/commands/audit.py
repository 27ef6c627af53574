"""`workflow-engine audit`: whether what is stored keeps every promise."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..options import add_json, text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ...audit import Report
    from ...core.audit import Finding
    from ..options import Commands

COLUMNS = ("invariant", "execution", "node", "attempt", "what does not hold")
MARGIN_MILLISECONDS = 60_000
"""What is about to be deleted may be gone: whoever deletes has a clock of its own."""
DAY_MILLISECONDS = 86_400_000


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "audit",
        help="recompute everything that is stored from its rows, and report what does not hold",
        description="Recompute each stored execution from its attempts and cancels, and report every invariant that "
        "does not hold, with the ids. Reads the database of the settings, changes nothing and waits for nobody: "
        "servers may be running.",
    )
    parser.add_argument(
        "--execution",
        action="append",
        type=text,
        default=[],
        metavar="ID",
        help="only this one; may be given several times",
    )
    parser.add_argument(
        "--since", type=text, metavar="TIME", help="only created at this time or later: 2026-01-31T09:00:00Z"
    )
    parser.add_argument(
        "--settled", action="store_true", help="everything is meant to have ended: report what still runs as well"
    )
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print what was found and what was looked at; 1 when something was found, 2 when the database cannot be read."""
    import asyncio

    from ...errors import BackendError, CallerError, SetupError
    from ..errors import FAILURE, USAGE_ERROR, CommandError
    from ..terminal import print_json

    created_from = 0 if options.since is None else _moment(options.since)
    try:
        report = asyncio.run(_audit(created_from, options.execution, settled=options.settled))
    except (BackendError, CallerError, SetupError) as error:
        raise CommandError(f"the audit cannot be made: {error}", USAGE_ERROR) from error
    if options.json:
        print_json(_document(report))
    else:
        _show(report)
    return FAILURE if report.found else 0


def _moment(value: str) -> int:
    from ...api.values import parse_moment
    from ..errors import UsageError

    try:
        return parse_moment(value)
    except ValueError as error:
        raise UsageError(f"--since: {error}") from None


async def _audit(created_from: int, execution_ids: list[str], *, settled: bool) -> Report:
    from ....config import load_settings
    from ...audit import Auditor
    from ...clock import SystemClock
    from ...parts import build_histories

    settings, clock = load_settings(), SystemClock()
    kept_from = 0
    if settings.retention_days:
        kept_from = clock.now() - settings.retention_days * DAY_MILLISECONDS + MARGIN_MILLISECONDS
    histories = build_histories(settings)
    await histories.open()
    try:
        auditor = Auditor(histories, clock, settled=settled, kept_from=kept_from)
        return await auditor.run(created_from=created_from, execution_ids=execution_ids)
    finally:
        await histories.close()


def _document(report: Report) -> Mapping[str, Any]:
    return {
        "executions": report.executions,
        "nodes": report.nodes,
        "attempts": report.attempts,
        "idempotency_keys": report.idempotency_keys,
        "seconds": round(report.seconds, 3),
        "found": report.found,
        "findings": [finding._asdict() for finding in report.findings],
    }


def _show(report: Report) -> None:
    from ..tables import print_table

    if report.findings:
        print_table(COLUMNS, map(_row, report.findings), whole=("invariant", "execution"))
        print()
    if report.found > len(report.findings):
        print(f"and {report.found - len(report.findings)} more, which are not shown")
    looked = (
        f"{report.executions} executions, {report.nodes} nodes, {report.attempts} attempts and "
        f"{report.idempotency_keys} idempotency keys in {report.seconds:.1f} s"
    )
    print(f"looked at {looked}: {report.found or 'nothing'} found")


def _row(finding: Finding) -> tuple[Any, ...]:
    return (finding.invariant, finding.execution_id, finding.node_id, finding.attempt, finding.message)
