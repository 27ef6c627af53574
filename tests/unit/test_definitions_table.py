"""The table of definitions: where large texts lie, and that nothing was lost when it was made anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from workflow_engine.runtime.store import migrations
from workflow_engine.runtime.store.migrations import migrate
from workflow_engine.sql import load_migrations

ROW = ("id-1", "hello", 1, "digest", b"{}", 5)


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """A new database."""
    opened = sqlite3.connect(":memory:", isolation_level=None)
    yield opened
    opened.close()


def test_a_search_never_reads_another_definitions_text(connection: sqlite3.Connection) -> None:
    migrate(connection, 1)
    [(without_rowid,)] = connection.execute("SELECT wr FROM pragma_table_list WHERE name = 'definitions'").fetchall()
    assert without_rowid == 0, "in a table without rows, each step of a search by key may read a whole text"


def test_definitions_of_before_are_still_there(connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = load_migrations("sqlite")[:2]
    monkeypatch.setattr(migrations, "load_migrations", lambda _dialect: earlier)
    migrate(connection, 1)
    connection.execute("INSERT INTO definitions VALUES (?, ?, ?, ?, ?, ?)", ROW)
    monkeypatch.undo()

    assert "0003_definitions_by_row" in migrate(connection, 2)
    columns = "definition_id, name, version, digest, body, created_at"
    assert connection.execute(f"SELECT {columns} FROM definitions").fetchall() == [ROW]
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        connection.execute(f"INSERT INTO definitions ({columns}) VALUES ('id-2', 'hello', 1, 'other', x'', 5)")
