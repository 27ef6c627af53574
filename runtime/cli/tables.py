"""Tables for people. rich is imported when one is printed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ..core.problem import printable

WIDEST_CHARACTERS = 10_000
_STYLES = {
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "yellow",
    "RUNNING": "cyan",
    "ok": "green",
    "warning": "yellow",
    "error": "red",
}


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, whole: Sequence[str] = ()) -> None:
    """A table on standard output. None is an empty cell; states have colours on a terminal.

    On a narrow terminal long cells are folded, but for those of the columns in `whole`, which one may want to copy.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column in whole)
    for row in rows:
        cells = ["" if cell is None else printable(str(cell)) for cell in row]
        table.add_row(*(Text(cell, _STYLES.get(cell, "")) for cell in cells))
    # Into a file or a pipe, nothing is folded: it is for other programs too.
    Console(width=None if sys.stdout.isatty() else WIDEST_CHARACTERS).print(table)


def moment(time: Any) -> str | None:
    """A time of the API (RFC 3339) as a table shows it: without fractions of a second."""
    return None if time is None else f"{str(time)[:19].replace('T', ' ')}Z"


def seconds(time: Any) -> str | None:
    """A number of seconds of the API as a table shows it."""
    return None if time is None else f"{time:.1f} s"
