"""What the deployment files say, and what the engine thinks of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from workflow_engine.config.tables import setting_groups
from workflow_engine.config.unknown import unknown_variables

ROOT = Path(__file__).parents[2]
SPECIFICATION = ROOT / "tests/documentation/specification_configuration.md"
_ROW = re.compile(r"\| `([A-Z_]+)` \| `([^`]*)` \|.*\|")


def specified_defaults() -> dict[str, str]:
    """Each variable of the specification with its default, from the specification's own tables."""
    rows = [_ROW.fullmatch(line) for line in SPECIFICATION.read_text("utf-8").splitlines()]
    return {row[1]: row[2] for row in rows if row is not None}


def setting_defaults() -> dict[str, str]:
    """Each variable of the engine with its default, both as text."""
    return {row.variable: row.default for group in setting_groups() for row in group.rows}


def no_settings(variables: Mapping[str, str]) -> list[str]:
    """Those of the variables that are no setting of the engine."""
    known = setting_defaults()
    return [name for name in variables if name not in known] + list(unknown_variables(variables))


def documents(file: Path) -> list[Any]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(file.read_text("utf-8")))


def instructions(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, each on one line, in order."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text("utf-8"), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, _, arguments = line.strip().partition(" ")
            yield instruction.upper(), arguments.strip()


def image_variables() -> dict[str, str]:
    """The variables that the image sets, without PATH."""
    said = " ".join(arguments for instruction, arguments in instructions(ROOT / "Dockerfile") if instruction == "ENV")
    variables = dict(part.split("=", 1) for part in said.split())
    del variables["PATH"]
    return variables
