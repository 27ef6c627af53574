"""SQL as data: the migrations and named queries of each dialect, and their loader.

`<dialect>/queries.sql` holds queries, each headed by `-- name: the_name` and a comment that says what
it does. `<dialect>/migrations/NNNN_name.sql` are applied in the order of their numbers, each once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import NamedTuple

_HEADER = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"^--.*\n", re.MULTILINE)
_MIGRATION_FILE = re.compile(r"(\d{4})_(\w+)\.sql")


class Migration(NamedTuple):
    """One migration file. `digest` is the SHA-256 of its text: an applied file must never change."""

    number: int
    name: str
    text: str
    digest: str


def load_queries(dialect: str) -> Mapping[str, str]:
    """The named queries of `dialect`, without their comments."""
    text = resources.files(__name__).joinpath(dialect, "queries.sql").read_text("utf-8")
    _, *parts = _HEADER.split(text)
    return {
        name: _COMMENT.sub("", body).strip().removesuffix(";")
        for name, body in zip(parts[::2], parts[1::2], strict=True)
    }


def load_migrations(dialect: str) -> Sequence[Migration]:
    """The migrations of `dialect` in the order of their numbers, which have no gaps."""
    found = []
    for file in resources.files(__name__).joinpath(dialect, "migrations").iterdir():
        named = _MIGRATION_FILE.fullmatch(file.name)
        if named:
            text = file.read_text("utf-8")
            found.append(Migration(int(named[1]), named[2], text, hashlib.sha256(text.encode()).hexdigest()))
    found.sort()
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"the numbers of the {dialect} migrations have gaps or stand twice")
    return found
