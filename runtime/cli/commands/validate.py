"""`workflow-engine validate FILE`: every problem of a definition, without a server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..options import add_file, add_json

if TYPE_CHECKING:
    from ...core.problem import Problem
    from ..files import DefinitionFile
    from ..options import Commands


def register(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser("validate", help="check a workflow file against the handlers installed here")
    add_file(parser)
    add_json(parser)
    parser.set_defaults(execute=execute)


def execute(options: argparse.Namespace) -> int:
    """Check the file; the problems go to standard error, each with its line."""
    from ...core.problem import printable
    from ..errors import USAGE_ERROR, UsageError
    from ..files import read_definition
    from ..terminal import print_json

    file = read_definition(options.file)
    problems = _problems(file)
    if options.json:
        print_json(_document(file, problems))
        return USAGE_ERROR if problems else 0
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        raise UsageError(f"{file.name}: {count}", file.located(problems))
    nodes = len(file.document["dag"]["nodes"])
    print(printable(f"{file.name} is valid: {nodes} node{'s' if nodes != 1 else ''}"))
    return 0


def _problems(file: DefinitionFile) -> Sequence[Problem]:
    from ....config import load_settings
    from ....plugins.discovery import discover
    from ...core.definition import validate_definition
    from ...core.json_text import canonical
    from ...core.output_schema import output_schemas
    from ...core.problem import Problem
    from ...parts import plugin_settings

    settings = load_settings()
    size, most = len(canonical(file.document)), settings.max_definition_bytes
    if size > most:
        return [Problem("$", f"has {size} bytes; at most {most} are allowed")]
    catalogue = discover(plugin_settings(settings))
    outputs = output_schemas((record.name, record.output_schema) for record in catalogue.records)
    return validate_definition(file.document, catalogue.config_checks, outputs)


def _document(file: DefinitionFile, problems: Sequence[Problem]) -> dict[str, object]:
    from ..positions import line_of, lines_by_path

    lines = lines_by_path(file.text.decode())
    errors = [{"path": each.path, "message": each.message, "line": line_of(each.path, lines)} for each in problems]
    return {"valid": not errors, "errors": errors}
