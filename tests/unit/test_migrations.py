"""Migrations are applied once, in order, all or nothing; a database that does not fit is refused."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from workflow_engine.runtime.errors import StoreUnusable
from workflow_engine.runtime.store import migrations
from workflow_engine.runtime.store.migrations import check_migrated, migrate, missing_migrations, split_statements
from workflow_engine.sql import Migration, load_migrations

SHIPPED = [f"{each.number:04}_{each.name}" for each in load_migrations("sqlite")]
UseMigrations = Callable[..., Sequence[Migration]]


def migration(number: int, text: str, name: str = "made_up") -> Migration:
    return Migration(number, name, text, hashlib.sha256(text.encode()).hexdigest())


FIRST = migration(1, "CREATE TABLE one (a INTEGER) STRICT;\nINSERT INTO one VALUES (1);", "first")
SECOND = migration(2, "ALTER TABLE one ADD COLUMN b INTEGER;\nUPDATE one SET b = a + 1;", "second")


@pytest.fixture
def use_migrations(monkeypatch: pytest.MonkeyPatch) -> UseMigrations:
    """`use_migrations(FIRST, SECOND)`: what this version of the engine has."""

    def use(*known: Migration) -> Sequence[Migration]:
        monkeypatch.setattr(migrations, "load_migrations", lambda _dialect: known)
        return known

    return use


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def schema(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()


def applied(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return connection.execute("SELECT number, name, digest, applied_at FROM schema_migrations").fetchall()


def test_the_shipped_migrations_are_applied_once(connection: sqlite3.Connection) -> None:
    assert migrate(connection, 123) == SHIPPED
    before = schema(connection), applied(connection)
    assert [row[0] for row in before[1]] == list(range(1, len(SHIPPED) + 1))
    assert {row[3] for row in before[1]} == {123}
    assert migrate(connection, 456) == []
    assert (schema(connection), applied(connection)) == before
    assert not connection.in_transaction


def test_only_what_is_missing_is_applied(connection: sqlite3.Connection, use_migrations: UseMigrations) -> None:
    use_migrations(FIRST)
    assert migrate(connection, 1) == ["0001_first"]
    use_migrations(FIRST, SECOND)
    assert migrate(connection, 2) == ["0002_second"]
    assert migrate(connection, 3) == []
    assert connection.execute("SELECT a, b FROM one").fetchall() == [(1, 2)]
    assert applied(connection) == [(1, "first", FIRST.digest, 1), (2, "second", SECOND.digest, 2)]


def test_one_by_one_and_all_at_once_come_to_the_same(
    connection: sqlite3.Connection, use_migrations: UseMigrations
) -> None:
    for count in (1, 2):
        use_migrations(*(FIRST, SECOND)[:count])
        migrate(connection, 1)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as other:
        migrate(other, 1)
        assert schema(other) == schema(connection)
        assert applied(other) == applied(connection)


def test_a_migration_that_was_changed_is_refused(connection: sqlite3.Connection, use_migrations: UseMigrations) -> None:
    use_migrations(FIRST, SECOND)
    migrate(connection, 1)
    before = schema(connection), applied(connection)
    use_migrations(migration(1, FIRST.text + "\n-- harmless", "first"), SECOND, migration(3, "CREATE TABLE t (a);"))
    with pytest.raises(StoreUnusable, match=r"0001_first was applied .* with another content.*restore a copy"):
        migrate(connection, 2)
    assert (schema(connection), applied(connection)) == before
    assert not connection.in_transaction


def test_a_database_of_a_newer_version_is_refused(
    connection: sqlite3.Connection, use_migrations: UseMigrations
) -> None:
    use_migrations(FIRST, SECOND)
    migrate(connection, 1)
    before = schema(connection), applied(connection)
    use_migrations(FIRST)
    with pytest.raises(StoreUnusable, match=r"0002_second, which this version does not know.*newer version"):
        migrate(connection, 2)
    assert (schema(connection), applied(connection)) == before
    assert not connection.in_transaction


def test_a_gap_in_what_was_applied_is_refused() -> None:
    with pytest.raises(StoreUnusable, match="migration 0002_second was applied"):
        missing_migrations([FIRST, SECOND], [(2, "second", SECOND.digest)])


@pytest.mark.parametrize(
    "broken",
    [
        "INSERT INTO one VALUES (2);\nCREATE TABLE two (a);\nINSERT INTO nowhere VALUES (1);",
        "CREATE TABLE two (a);\nCREATE TABLE one (a);",
        "INSERT INTO one VALUES (3);\nINSERT INTO one VALUES ('not a number');",
        "CREATE TABLE two (a);\nDROP TABLE one;\nthis is not SQL;",
        "CREATE TABLE two (a);\nSELECT 'never closed",
    ],
)
def test_a_migration_that_fails_leaves_nothing(
    connection: sqlite3.Connection, use_migrations: UseMigrations, broken: str
) -> None:
    """Not of itself, nor of those before it that were applied in the same start."""
    use_migrations(FIRST)
    migrate(connection, 1)
    before = schema(connection), applied(connection), connection.execute("SELECT * FROM one").fetchall()
    use_migrations(FIRST, SECOND, migration(3, broken))
    for _ in range(2):
        with pytest.raises(sqlite3.Error):
            migrate(connection, 2)
        assert not connection.in_transaction
        after = schema(connection), applied(connection), connection.execute("SELECT * FROM one").fetchall()
        assert after == before
    use_migrations(FIRST, SECOND, migration(3, "CREATE TABLE two (a);"))
    assert migrate(connection, 3) == ["0002_second", "0003_made_up"]


def test_an_empty_database_stays_empty_when_the_first_migration_fails(
    connection: sqlite3.Connection, use_migrations: UseMigrations
) -> None:
    use_migrations(migration(1, "CREATE TABLE one (a);\nthis is not SQL;"))
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, 1)
    assert schema(connection) == []


def test_a_migration_that_ends_the_transaction_itself_is_an_error(
    connection: sqlite3.Connection, use_migrations: UseMigrations
) -> None:
    use_migrations(migration(1, "CREATE TABLE one (a);\nCOMMIT;\nCREATE TABLE two (a);"))
    with pytest.raises(sqlite3.OperationalError, match="no transaction"):
        migrate(connection, 1)
    assert not connection.in_transaction


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  \n\n", []),
        ("SELECT 1;\nSELECT 2;\n", ["SELECT 1;", "SELECT 2;"]),
        ("SELECT 1; SELECT 2;", ["SELECT 1;", "SELECT 2;"]),
        ("SELECT\n  1\n;\n\n\nSELECT 2;", ["SELECT\n  1\n;", "SELECT 2;"]),
        ("SELECT 'a;b\n;c', \"d;\ne\", [f;g], `h;i`;\nSELECT 2;", None),
        ("SELECT 'it''s;';\nSELECT 2;", ["SELECT 'it''s;';", "SELECT 2;"]),
        ("-- first; second;\nSELECT 1; -- third; 'fourth\nSELECT 2;", None),
        ("/* one; two;\n three; */ SELECT 1;\nSELECT /* ; */ 2;", None),
        ("SELECT 1;\nSELECT 2", ["SELECT 1;", "SELECT 2"]),
        ("SELECT 1;\r\nSELECT 2;\r\n", ["SELECT 1;", "SELECT 2;"]),
    ],
)
def test_scripts_are_split_where_statements_end(text: str, expected: list[str] | None) -> None:
    statements = list(split_statements(text))
    assert "".join(statements).strip() == text.strip(), "nothing of a script may be dropped"
    if expected is None:
        assert len(statements) == 2
    else:
        assert [statement.strip() for statement in statements] == expected


TRIGGER = """\
CREATE TABLE t (a INTEGER, b TEXT); -- a table; with a comment
CREATE TRIGGER double AFTER INSERT ON t
BEGIN
    UPDATE t SET b = 'x;y' WHERE a = new.a;  -- inside; the trigger
    INSERT INTO log VALUES ('END;');
END;
CREATE TABLE log (line TEXT); INSERT INTO t (a) VALUES (1);
/* the end; */
"""


def test_a_trigger_is_one_statement(connection: sqlite3.Connection) -> None:
    statements = list(split_statements(TRIGGER))
    for statement in statements:
        connection.execute(statement)
    assert connection.execute("SELECT a, b FROM t").fetchall() == [(1, "x;y")]
    assert connection.execute("SELECT line FROM log").fetchall() == [("END;",)]


def test_a_last_statement_without_a_semicolon_is_applied(
    connection: sqlite3.Connection, use_migrations: UseMigrations
) -> None:
    """Dropping it would leave a database that says it has what it does not have."""
    use_migrations(migration(1, "CREATE TABLE one (a);\nCREATE TABLE two (a)\n"))
    migrate(connection, 1)
    assert [name for name, _ in schema(connection)] == ["one", "schema_migrations", "two"]


def test_nobody_else_writes_between_the_look_and_the_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "engine.db"
    looks: list[str] = []

    def look(known: Sequence[Migration], found: Sequence[tuple[int, str, str]]) -> Sequence[Migration]:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
            with pytest.raises(sqlite3.OperationalError, match="database is locked") as refusal:
                other.execute("BEGIN IMMEDIATE")
            looks.append(str(refusal.value))
        return missing_migrations(known, found)

    monkeypatch.setattr(migrations, "missing_migrations", look)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert [migrate(connection, 1), migrate(connection, 2)] == [SHIPPED, []]
    assert len(looks) == 2


@pytest.mark.parametrize("before", [0, 1])
def test_of_five_that_start_together_one_applies(tmp_path: Path, use_migrations: UseMigrations, before: int) -> None:
    """On a new database, and on one that all five find one migration behind."""
    known = (FIRST, SECOND)
    use_migrations(*known[:before])
    if before:
        with closing(sqlite3.connect(tmp_path / "engine.db", isolation_level=None)) as connection:
            migrate(connection, 77)
    use_migrations(*known)
    missing = ["0001_first", "0002_second"][before:]
    start = threading.Barrier(5)

    def race(number: int) -> list[str]:
        with closing(sqlite3.connect(tmp_path / "engine.db", isolation_level=None, timeout=60)) as connection:
            start.wait()
            return migrate(connection, number)

    with ThreadPoolExecutor(5) as racers:
        results = list(racers.map(race, range(5)))
    assert sorted(results) == [[], [], [], [], missing]
    with closing(sqlite3.connect(tmp_path / "engine.db")) as connection:
        assert [row[3] for row in applied(connection)] == [77] * before + [results.index(missing)] * len(missing)
        assert connection.execute("SELECT a, b FROM one").fetchall() == [(1, 2)]


def test_a_migration_that_is_missing_is_named_and_nothing_is_changed(
    connection: sqlite3.Connection, use_migrations: UseMigrations
) -> None:
    use_migrations(FIRST, SECOND)
    with pytest.raises(StoreUnusable, match=r"^the database lacks 0001_first, 0002_second, and SKIP_MIGRATIONS is set"):
        check_migrated(connection)
    assert schema(connection) == []

    use_migrations(FIRST)
    migrate(connection, 1)
    before = schema(connection)
    use_migrations(FIRST, SECOND)
    with pytest.raises(StoreUnusable, match=r"^the database lacks 0002_second, "):
        check_migrated(connection)
    assert schema(connection) == before


def test_a_database_that_has_every_migration_passes(connection: sqlite3.Connection) -> None:
    migrate(connection, 1)
    before = schema(connection), applied(connection)
    check_migrated(connection)
    assert (schema(connection), applied(connection)) == before
