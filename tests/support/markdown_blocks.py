"""The fenced blocks of a Markdown document, with what the document says about them to the tests.

A comment right above a block is for the tests, and invisible to readers:

    <!-- file: hello.json -->             the block is the content of that file
    <!-- shell: server -->                it runs until it is replaced or the document ends
    <!-- shell: stop the server -->       before it runs, the server is stopped
    <!-- shell: exit 1 -->                it ends with that exit code
    <!-- shell: shows "COMPLETED" -->     its output holds that text; may stand several times
    <!-- shell: output -->                each of its lines is in the output of the block before; … is any text
    <!-- shell: not run: REASON -->       the tests list it as an exception
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(
    r"(?P<marks>(?:^<!--[^\n]*-->\n)*)^```(?P<language>[a-z{}-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_MARK = re.compile(r"<!-- (file|shell): (.*?) -->")
_SHOWS = re.compile(r'shows "(.*)"')
_EXIT = re.compile(r"exit (\d+)")


class Block(NamedTuple):
    """One fenced block. `line` is that of its first line; `exit_code` is what it must end with."""

    document: Path
    line: int
    language: str
    text: str
    file: str | None = None
    server: bool = False
    stop_server: bool = False
    output: bool = False
    exit_code: int = 0
    shows: tuple[str, ...] = ()
    not_run: str | None = None

    @property
    def place(self) -> str:
        """For messages: which block of which document."""
        return f"{self.document.name}:{self.line}"


def blocks_of(document: Path) -> list[Block]:
    """Every fenced block. Raises `ValueError` for a mark that nobody understands."""
    text = document.read_text("utf-8")
    return [_block(document, text, match) for match in _FENCE.finditer(text)]


def _block(document: Path, text: str, match: re.Match[str]) -> Block:
    line = text.count("\n", 0, match.start("text")) + 1
    block = Block(document, line, match["language"], match["text"])
    for kind, said in _MARK.findall(match["marks"]):
        block = block._replace(file=said) if kind == "file" else _marked(block, said)
    return block


def _marked(block: Block, said: str) -> Block:
    if said == "server":
        return block._replace(server=True)
    if said == "stop the server":
        return block._replace(stop_server=True)
    if said == "output":
        return block._replace(output=True)
    if match := _EXIT.fullmatch(said):
        return block._replace(exit_code=int(match[1]))
    if match := _SHOWS.fullmatch(said):
        return block._replace(shows=(*block.shows, match[1]))
    if said.startswith("not run: "):
        return block._replace(not_run=said.removeprefix("not run: "))
    raise ValueError(f"{block.place}: what does {said!r} mean?")
