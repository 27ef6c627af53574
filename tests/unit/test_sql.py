"""The named queries: each compiles, each is used, and what the code asks for is there."""

from __future__ import annotations

import ast
import hashlib
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import workflow_engine.sql
from workflow_engine.runtime import store
from workflow_engine.runtime.store.migrations import migrate
from workflow_engine.sql import load_migrations, load_queries

DIALECTS = ("sqlite", "postgres")
# The files of the store that ask for each dialect's queries.
FILES = {"sqlite": ("sqlite*.py", "migrations.py"), "postgres": ("postgres*.py",)}
QUERIES = load_queries("sqlite")
# These are given a query's name as an argument (its place here), so their look-ups name no query.
TAKE_A_NAME = {"_fetch": 1, "_execute_rows": 1, "_read": 0}
# A batch of rows is given to it as "changed (columns) AS (VALUES ...)" or "INTO table (columns) VALUES ...".
COLUMNS_BEFORE_ROWS = re.compile(r"\(([^()]*)\)\s*(?:AS\s*\(\s*)?VALUES\s+:rows")


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    """A database of the newest schema."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, 1)
        yield connection


def text_of(dialect: str) -> str:
    return resources.files(workflow_engine.sql).joinpath(dialect, "queries.sql").read_text("utf-8")


def with_rows(query: str, rows: int) -> str:
    """The query as it is run for that many rows."""
    found = COLUMNS_BEFORE_ROWS.search(query)
    if found is None:
        return query
    row = f"({', '.join('?' * len(found[1].split(',')))})"
    return query.replace(":rows", ", ".join([row] * rows))


def values_for(query: str) -> Any:
    """A value for each parameter of a query."""
    if re.search(r":\w", query):
        return defaultdict(lambda: "[]")
    numbered = [int(number) for number in re.findall(r"\?(\d+)", query)]
    return [None] * (max(numbered) if numbered else query.count("?"))


def names_asked_for(tree: ast.Module) -> Iterator[tuple[int, str | None]]:
    """(line, name) of each look-up of a query; None where the name is not written there."""
    inside: dict[ast.AST, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside.update(dict.fromkeys(ast.walk(node), node.name))
    for node in ast.walk(tree):
        asked: ast.expr | None = None
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("queries"):
            asked = node.slice
            if inside.get(node) in TAKE_A_NAME and not isinstance(asked, ast.Constant):
                continue
        elif isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("self.") in TAKE_A_NAME:
            asked = node.args[TAKE_A_NAME[ast.unparse(node.func).removeprefix("self.")]]
        if asked is not None:
            yield asked.lineno, str(asked.value) if isinstance(asked, ast.Constant) else None


def asked_for(dialect: str) -> dict[str, str | None]:
    """Where in a store's source a query is asked for, and which."""
    found = {}
    for file in sorted(file for pattern in FILES[dialect] for file in Path(store.__path__[0]).glob(pattern)):
        for line, name in names_asked_for(ast.parse(file.read_text("utf-8"))):
            found[f"{file.name}:{line}"] = name
    return found


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_query_is_used_and_every_name_used_exists(dialect: str) -> None:
    asked, queries = asked_for(dialect), load_queries(dialect)
    assert [place for place, name in asked.items() if name is None] == [], "cannot tell which query is meant"
    assert {name: place for place, name in asked.items() if name not in queries} == {}
    assert set(queries) - set(asked.values()) == set(), "never used"


def test_the_search_finds_look_ups_of_each_kind() -> None:
    """Or the test above would pass by finding nothing."""
    code = "class A:\n def f(self):\n  self._queries['a']; queries[name]; self._fetch(reader, 'b', ())\n"
    code += " def _fetch(self, query):\n  self._queries[query]\n"
    assert list(names_asked_for(ast.parse(code))) == [(3, "a"), (3, None), (3, "b")]


@pytest.mark.parametrize("rows", [1, 2, 256])
@pytest.mark.parametrize("name", QUERIES)
def test_every_query_compiles_against_the_newest_schema(connection: sqlite3.Connection, name: str, rows: int) -> None:
    query = with_rows(QUERIES[name], rows)
    assert ":rows" not in query, "the columns of the rows must stand before them"
    assert connection.execute(f"EXPLAIN {query}", values_for(query)).fetchall()


# Read or written once a start or once a move, or only ever of one row, or all of what people have made by hand.
WHOLE_TABLES = {
    "create_migrations_table",
    "list_migrations",
    "insert_migration",
    "ping",
    "list_keys",
    "read_partitions",
    "list_handlers",
    "export_definitions",
    "export_executions",
    "export_attempts",
    "export_commands",
    "export_suspicions",
    "export_claims",
    "export_keys",
}


@pytest.mark.parametrize("name", sorted(set(QUERIES) - WHOLE_TABLES))
def test_no_query_reads_a_whole_table(connection: sqlite3.Connection, name: str) -> None:
    """History only grows: a query that walks a table is slow once there is one. Partial indexes are not history."""
    query = with_rows(QUERIES[name], 3)
    plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", values_for(query)).fetchall()
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    walked = [re.match(r"SCAN (\w+)(?! USING (COVERING )?INDEX \w+_(in_flight|unconsumed))", row[3]) for row in plan]
    assert [found[1] for found in walked if found and found[1] in tables] == []


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_query_has_a_description(dialect: str) -> None:
    lines = text_of(dialect).splitlines()
    for number, line in enumerate(lines):
        if line.startswith("-- name:"):
            assert re.fullmatch(r"-- name: [a-z][a-z_]*", line), f"line {number + 1}: {line}"
            assert re.match(r"-- [A-Z].{10,}", lines[number + 1]), f"line {number + 2}: no description"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_name_is_given_once(dialect: str) -> None:
    names = re.findall(r"^-- name: *(.*)$", text_of(dialect), re.MULTILINE)
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert list(load_queries(dialect)) == names


def test_queries_are_loaded_without_comments_and_semicolons() -> None:
    for name, query in QUERIES.items():
        assert query, name
        assert query == query.strip(), name
        assert not re.search(r"^--", query, re.MULTILINE), name
        assert ";" not in query, name
    expected = "INSERT INTO commands (execution_id, created_at) VALUES (?, ?)"
    assert QUERIES["insert_cancel"] == expected


def test_migrations_are_loaded_in_order_with_the_digest_of_their_text() -> None:
    loaded = load_migrations("sqlite")
    folder = resources.files(workflow_engine.sql).joinpath("sqlite", "migrations")
    files = {f"{each.number:04}_{each.name}.sql": each for each in loaded}
    assert list(files) == sorted(file.name for file in folder.iterdir()), "never applied: its name does not fit"
    assert [each.number for each in loaded] == list(range(1, len(loaded) + 1))
    for name, each in files.items():
        text = folder.joinpath(name).read_text("utf-8")
        assert (each.text, each.digest) == (text, hashlib.sha256(text.encode()).hexdigest())


def made_up(monkeypatch: pytest.MonkeyPatch, folder: Path, files: Mapping[str, str]) -> None:
    """Let the loader read these files as the dialect `made_up`."""
    for name, text in files.items():
        file = folder / "made_up" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="")
    monkeypatch.setattr(resources, "files", lambda _package: folder)


def test_the_loader_of_queries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = (
        "-- About the file; -- name: not_this_one\n\n-- name: first\n-- What it does;\n-- and more.\nSELECT 1\n"
        "-- inside\nWHERE 'a -- b' = '--'; \n\n-- name: second\r\n-- Another.\r\nSELECT ';'\r\n"
    )
    made_up(monkeypatch, tmp_path, {"queries.sql": text})
    assert load_queries("made_up") == {"first": "SELECT 1\nWHERE 'a -- b' = '--'", "second": "SELECT ';'"}


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 1), (0, 1)])
def test_migrations_with_gaps_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    files = {f"migrations/{number:04}_{place}.sql": "" for place, number in enumerate(numbers)}
    made_up(monkeypatch, tmp_path, files)
    with pytest.raises(ValueError, match="numbers of the made_up migrations"):
        load_migrations("made_up")


def test_migrations_are_ordered_by_number_whatever_the_folder_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = ["0002_a", "0010_b", "0001_z", *(f"{number:04}_m" for number in range(3, 10))]
    made_up(monkeypatch, tmp_path, {f"migrations/{name}.sql": name for name in names} | {"migrations/README": "no"})
    assert [each.text for each in load_migrations("made_up")] == sorted(names)
