"""`workflow-engine doctor`: what is wrong with a setup, and how to mend it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..options import add_json, add_serve_settings, given_settings

if TYPE_CHECKING:
    from ..checks.finding import Finding
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "doctor",
        help="find what is wrong with a setup, and how to mend it",
        description="Check what serve needs, with the same settings and options. Changes nothing.",
    )
    add_serve_settings(parser)
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Print what each check found; 1 when one of them is an error."""
    from ..checks import examine
    from ..errors import FAILURE
    from ..terminal import print_json

    findings = examine(given_settings(options))
    if options.json:
        print_json({"findings": [finding._asdict() for finding in findings]})
    else:
        print_findings(findings)
    return FAILURE if any(finding.level == "error" for finding in findings) else 0


def print_findings(findings: Sequence[Finding]) -> None:
    """A table of what was found."""
    from ..tables import print_table

    rows = ((each.level, each.check, _sentence(each)) for each in findings)
    print_table(("level", "check", "what was found, and what to do"), rows, whole=("level", "check"))


def _sentence(finding: Finding) -> str:
    if finding.remedy is None:
        return finding.message
    return f"{finding.message}{' ' if finding.message[-1:] in '.?!' else '. '}{finding.remedy}"
