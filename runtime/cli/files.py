"""What users give to commands: definitions in files, inputs as arguments."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..core.json_text import InvalidJson, decode
from ..core.problem import Problem
from .errors import CommandError, UsageError

STANDARD_INPUT = Path("-")


class DefinitionFile(NamedTuple):
    """A file with a definition: what it is called in messages, its text, and its JSON value."""

    name: str
    text: bytes
    document: Any

    def located(self, problems: Sequence[Problem]) -> list[Problem]:
        """The problems with the lines of this file in front of their paths: `flow.json:12: dag.nodes[0].handler`."""
        from .positions import line_of, lines_by_path

        lines: Mapping[str, int] = lines_by_path(self.text.decode())
        return [Problem(f"{self.name}:{line_of(each.path, lines)}: {each.path}", each.message) for each in problems]


def read_definition(file: Path) -> DefinitionFile:
    """The definition in a file, not validated. Raises `UsageError` for one that cannot be read or is no JSON."""
    name = "standard input" if file == STANDARD_INPUT else str(file)
    text = _read(file, name)
    return DefinitionFile(name, text, _decoded(text, name))


def read_json(option: str, value: str) -> Any:
    """The JSON that an option was given: itself, `@FILE`, or `-` for standard input. Raises `UsageError`."""
    if value == "-":
        return _decoded(_read(STANDARD_INPUT, "standard input"), "standard input")
    if value.startswith("@"):
        return _decoded(_read(Path(value[1:]), value[1:]), value[1:])
    return _decoded(value.encode("utf-8", "surrogateescape"), option)


def _read(file: Path, name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == STANDARD_INPUT else file.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from None


def _decoded(text: bytes, name: str) -> Any:
    try:
        return decode(text)
    except InvalidJson as error:
        raise UsageError(f"{name} is not valid JSON: {error}") from None


def locate(error: CommandError, file: DefinitionFile) -> CommandError:
    """The same error, its problems with the lines of the file that they are in."""
    return CommandError(f"{file.name}: {error}", error.code, file.located(error.problems))


def parse_inputs(inputs: Sequence[str], option: str = "--input") -> dict[str, Any]:
    """`["a=1", "b=x"]` as `{"a": 1, "b": "x"}`. Raises `UsageError` for one without `=` or a name given twice."""
    parameters: dict[str, Any] = {}
    for item in inputs:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {item!r}: write it as name=value")
        if name in parameters:
            raise UsageError(f"{option} {name!r} is given twice")
        try:
            parameters[name] = decode(text.encode("utf-8", "surrogateescape"))
        except InvalidJson:
            parameters[name] = text
    return parameters
