"""The SQLite store on real files: group commit, durability, full disks, locks, files that do not fit.

Some tests reach into the writer: only there can its thread be held between a write and its commit.
"""
# ruff: noqa: ASYNC240  the files are small, and nobody else waits for the event loop

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from urllib.parse import quote

import pytest
from commits import LEASE_SECONDS, commit_one, version_of

from workflow_engine.runtime import failpoints
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.machine import AttemptRow
from workflow_engine.runtime.core.state import NodeState, WorkflowState
from workflow_engine.runtime.errors import PartitionLost, StoreOutcomeUnknown, StoreUnavailable, StoreUnusable
from workflow_engine.runtime.ports import CommitBatch, NewDefinition, NewExecution
from workflow_engine.runtime.store import sqlite, sqlite_writer
from workflow_engine.runtime.store.file_lock import FileLock
from workflow_engine.runtime.store.sqlite import SqliteStore
from workflow_engine.runtime.store.sqlite_writer import Run, SqliteWriter, Write

PATIENCE = 60.0
"""Seconds until a thread that waits for a signal gives up, so that a broken test ends."""


def pending(execution_id: str) -> NewExecution:
    return NewExecution(execution_id, 0, None, 1_000)


def running(execution_id: str, input_text: bytes = b"{}") -> NewExecution:
    return NewExecution(execution_id, 0, input_text, 1_000)


def attempt(execution_id: str, sequence: int, output: bytes = b"1") -> AttemptRow:
    return AttemptRow(execution_id, sequence, f"n{sequence}", 1, NodeState.COMPLETED, output, None, 1_000, 1_001, None)


@asynccontextmanager
async def open_store(path: Path, kind: type[SqliteStore] = SqliteStore) -> AsyncIterator[SqliteStore]:
    """A store on that file, closed at the end even if it cannot be opened."""
    store = kind(path, SystemClock())
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def refused(path: Path, because: str, kind: type[SqliteStore] = SqliteStore) -> None:
    """Opening that file fails, and the message says why."""
    with pytest.raises(StoreUnusable, match=because):
        async with open_store(path, kind):
            pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "engine.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store(path) as store:
        yield store


@pytest.fixture
def set_failpoints() -> Iterator[Callable[[str], None]]:
    yield failpoints.configure
    failpoints.configure("")


def ids_on_disk(path: Path) -> set[str]:
    """The executions that another, read-only connection sees: what has been committed."""
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as connection:
        return {row[0] for row in connection.execute("SELECT execution_id FROM executions")}


async def on_writer(store: SqliteStore, function: Callable[[sqlite3.Connection], Any]) -> Any:
    """Call a function of the writing connection, in a transaction on its thread."""
    return await store._writer.write(Run(function))


async def pragma(store: SqliteStore, name: str) -> Any:
    return await on_writer(store, lambda connection: connection.execute(f"PRAGMA {name}").fetchall()[0][0])


async def trace(store: SqliteStore) -> list[str]:
    """The statements of the writing connection from now on, as they are run."""
    statements: list[str] = []
    await on_writer(store, lambda connection: connection.set_trace_callback(statements.append))
    statements.clear()
    return statements


class Gate:
    """Holds the writing thread within a transaction: what was written is not committed."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._released = threading.Event()

    def hold(self, _connection: sqlite3.Connection) -> None:
        self._entered.set()
        assert self._released.wait(PATIENCE)

    async def entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, PATIENCE)

    def release(self) -> None:
        self._released.set()


@asynccontextmanager
async def held(store: SqliteStore, *calls: Awaitable[Any]) -> AsyncIterator[Sequence[asyncio.Future[Any]]]:
    """The answers to some calls whose transaction is held open before its commit."""
    gate = Gate()
    answers = [asyncio.ensure_future(call) for call in calls]
    holding = asyncio.ensure_future(store._writer.write(Run(gate.hold)))
    try:
        await gate.entered()
        yield answers
    finally:
        gate.release()
        await asyncio.wait([*answers, holding])
    await holding


# --- group commit -----------------------------------------------------------------------------------


async def test_what_is_asked_for_in_one_breath_shares_a_transaction(store: SqliteStore) -> None:
    await asyncio.gather(*(store.create_execution("def-1", pending(f"old-{n}")) for n in range(50)))
    version = await store.take_partition(0, "owner", 0, 60.0)
    statements = await trace(store)
    await asyncio.gather(
        *(store.create_execution("def-1", pending(f"new-{n}")) for n in range(100)),
        *(store.trigger(f"old-{n}", b"{}", 1_001) for n in range(25)),
        *(store.cancel_pending(f"old-{n}", 1_001) for n in range(25, 50)),
        *(store.add_cancel(f"old-{n}", 1_001) for n in range(25)),
        commit_one(store, CommitBatch(0, version, [attempt("old-0", 1)], (), ())),
    )
    assert (statements.count("BEGIN IMMEDIATE"), statements.count("COMMIT")) == (1, 1)


async def test_what_gathers_during_a_transaction_shares_the_next(store: SqliteStore, path: Path) -> None:
    statements = await trace(store)
    async with held(store, store.create_execution("def-1", pending("first"))):
        later = [asyncio.ensure_future(store.create_execution("def-1", pending(f"e{n}"))) for n in range(200)]
        await asyncio.sleep(0)
    await asyncio.gather(*later)
    assert statements.count("COMMIT") == 2
    assert len(ids_on_disk(path)) == 201


async def test_many_writers_that_go_on_and_on_share_transactions(store: SqliteStore, path: Path) -> None:
    async def write_ten(writer: int) -> None:
        for number in range(10):
            await store.create_execution("def-1", pending(f"{writer}-{number}"))

    statements = await trace(store)
    await asyncio.gather(*map(write_ten, range(50)))
    assert 10 <= statements.count("COMMIT") <= 20, "500 writes, at most two transactions for each round of 50"
    assert len(ids_on_disk(path)) == 500


# --- an answer waits for its commit -----------------------------------------------------------------


async def check_that_answers_wait_for_the_commit(store: SqliteStore, path: Path) -> None:
    """Every kind of write, written but not committed, has no answer; and is on disk at the moment it has one."""
    await store.create_execution("def-1", pending("triggered"))
    await store.create_execution("def-1", pending("cancelled"))
    version = await store.take_partition(0, "owner", 0, 60.0)
    before = ids_on_disk(path)
    seen: list[set[str]] = []
    async with held(
        store,
        store.create_execution("def-1", pending("created")),
        store.trigger("triggered", b"{}", 1_001),
        store.cancel_pending("cancelled", 1_001),
        store.add_cancel("triggered", 1_001),
        commit_one(store, CommitBatch(0, version, [attempt("triggered", 1)], (), ())),
        store.take_partition(1, "owner", 0, 60.0),
    ) as answers:
        answers[0].add_done_callback(lambda _: seen.append(ids_on_disk(path)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert [answer.done() for answer in answers] == [False] * len(answers), "answered before the commit"
        assert ids_on_disk(path) == before
    assert [answer.result() for answer in answers] == [
        ("created", "def-1"),
        "triggered",
        True,
        None,
        version + 1,
        1,
    ]
    assert seen == [before | {"created"}]


async def test_an_answer_waits_for_its_commit(store: SqliteStore, path: Path) -> None:
    """Removing the wait makes this fail: `test_answers_that_do_not_wait_are_noticed` does so."""
    await check_that_answers_wait_for_the_commit(store, path)


@pytest.fixture
async def hasty_answers(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], None]]:
    """After a call of this, the writer still writes, but answers at once."""
    write = SqliteWriter.write
    left: list[asyncio.Future[Any]] = []

    async def answer_at_once(self: SqliteWriter, each: Write) -> Any:
        result = asyncio.ensure_future(write(self, each))
        if isinstance(each, Run):
            return await result
        left.append(result)
        return None

    yield lambda: monkeypatch.setattr(SqliteWriter, "write", answer_at_once)
    await asyncio.gather(*left, return_exceptions=True)


async def test_answers_that_do_not_wait_are_noticed(
    store: SqliteStore, path: Path, hasty_answers: Callable[[], None]
) -> None:
    hasty_answers()
    with pytest.raises(AssertionError, match="answered before the commit"):
        await check_that_answers_wait_for_the_commit(store, path)


# --- power loss -------------------------------------------------------------------------------------


class Moment(NamedTuple):
    """The files as they were at one moment, and what had been answered before it."""

    name: str
    answered: frozenset[str]
    database: bytes
    log: bytes


async def write_while_copying(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Moment]:
    """Copies of the files at each step of each transaction, taken on the writing thread while others wait.

    The log is checkpointed every few pages, so that moments before, in and after checkpoints are among them.
    """
    answered: list[str] = []
    moments: list[Moment] = []
    log = path.with_name(path.name + "-wal")

    def copy(name: str) -> None:
        if name.startswith("store.transaction."):
            before = frozenset(answered)
            moments.append(Moment(name.rpartition(".")[2], before, path.read_bytes(), log.read_bytes()))

    async def create_some(writer: int) -> None:
        for number in range(12):
            execution_id = f"{writer}-{number}"
            await store.create_execution("def-1", running(execution_id, b"x" * 700))
            answered.append(execution_id)

    async def commit_some(version: int) -> None:
        for number in range(12):
            rows = [attempt(f"{number}", sequence, b"y" * 900) for sequence in range(3)]
            [committed] = await store.commit([CommitBatch(0, version, rows, (), ())], LEASE_SECONDS)
            version = committed or version + 1
            answered.extend(f"{row.execution_id}/{row.node_id}" for row in rows)

    version = await store.take_partition(0, "owner", 0, 60.0)
    await pragma(store, "wal_autocheckpoint = 12")
    monkeypatch.setattr(sqlite_writer, "failpoint", copy)
    await asyncio.gather(*map(create_some, range(3)), commit_some(version))
    return moments


def torn(moments: list[Moment]) -> Iterator[Moment]:
    """What a power loss in the middle of a commit can leave: first the log half written, then the database.

    With `synchronous=FULL` the log is on disk before a checkpoint touches the database.
    """
    for before, after in pairwise(moments):
        if (before.name, after.name) != ("commit", "committed"):
            continue
        for part in (0.03, 0.5, 0.97):
            yield before._replace(name=f"log torn at {part}", log=mixed(before.log, after.log, part))
            yield before._replace(
                name=f"database torn at {part}",
                log=after.log,
                database=mixed(before.database, after.database, part),
            )


def mixed(before: bytes, after: bytes, part: float) -> bytes:
    """`before` with the first part of what changed as it is in `after`."""
    start = next((n for n, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), len(before))
    cut = start + round((len(after) - start) * part)
    return after[:cut] + before[cut:]


def check_moments(moments: list[Moment], folder: Path) -> None:
    """Each copy opens, is sound, and has everything that had been answered before it was made."""
    path = folder / "copy.db"
    for moment in moments:
        path.write_bytes(moment.database)
        path.with_name("copy.db-wal").write_bytes(moment.log)
        path.with_name("copy.db-shm").unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], moment.name
            found = {row[0] for row in connection.execute("SELECT execution_id FROM executions")}
            found |= {"/".join(row) for row in connection.execute("SELECT execution_id, node_id FROM attempts")}
        assert moment.answered <= found, f"lost at {moment.name}: {sorted(moment.answered - found)}"


async def test_what_was_answered_survives_a_power_loss_at_any_moment(
    store: SqliteStore, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = await write_while_copying(store, path, monkeypatch)
    (tmp_path / "copies").mkdir()
    halves = [*torn(moments)]
    check_moments([*moments, *halves], tmp_path / "copies")
    assert len({half.log for half in halves}) > 10, "commits were cut short in many places"
    assert len({moment.answered for moment in moments}) > 10, "writing went on between the copies"
    assert len({moment.database for moment in moments}) > 3, "there were checkpoints"
    assert any(after.log[:24] != before.log[:24] for before, after in pairwise(moments)), "the log began anew"


async def test_an_answer_before_its_commit_is_lost_in_a_power_loss(
    store: SqliteStore,
    path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hasty_answers: Callable[[], None],
) -> None:
    hasty_answers()
    moments = await write_while_copying(store, path, monkeypatch)
    await on_writer(store, lambda _connection: None)
    with pytest.raises(AssertionError, match="lost at begin"):
        check_moments(moments, tmp_path)


@pytest.mark.parametrize(("name", "expected"), [("synchronous", 2), ("journal_mode", "wal"), ("mmap_size", 0)])
async def test_the_writing_connection_is_set_for_durability(store: SqliteStore, name: str, expected: object) -> None:
    assert await pragma(store, name) == expected


async def test_the_other_connections_can_only_read(store: SqliteStore) -> None:
    """Two connections that write or checkpoint can corrupt the log in versions 3.7.0 to 3.51.2 of SQLite."""
    for reader in (store._owner_reader, store._reader):
        assert reader is not None
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await reader.execute("DELETE FROM executions")


async def test_a_file_that_cannot_have_a_write_ahead_log_is_refused() -> None:
    """Such as on a file system without shared memory: then readers would block the writer, and it them."""
    in_memory = sqlite3.connect(":memory:", isolation_level=None)
    with closing(in_memory), pytest.raises(StoreUnusable, match=r"write-ahead log.*memory"):
        sqlite._prepare(in_memory, 1, skip_migrations=False)


# --- writes that fail -------------------------------------------------------------------------------


def refuse(_connection: sqlite3.Connection) -> NoReturn:
    raise ValueError("not this one")


async def test_a_bad_write_in_a_shared_transaction_fails_alone(store: SqliteStore, path: Path) -> None:
    await store.create_execution("def-1", pending("there"))
    version = await store.take_partition(0, "owner", 0, 60.0)
    unwritable = attempt("there", 1)._replace(error="\ud800")
    results = await asyncio.gather(
        store.create_execution("def-1", pending("good-1")),
        store.create_execution("def-1", pending("there")),
        store.trigger("there", b"{}", 1_001),
        on_writer(store, refuse),
        commit_one(store, CommitBatch(0, version, [attempt("good-1", 1), unwritable], (), ())),
        commit_one(store, CommitBatch(0, version, [attempt("there", 2)], (), ())),
        store.create_execution("def-1", pending("good-2")),
        return_exceptions=True,
    )
    bad = {1: sqlite3.IntegrityError, 3: ValueError, 4: UnicodeEncodeError}
    assert {place: type(each) for place, each in enumerate(results) if isinstance(each, Exception)} == bad
    good = [each for place, each in enumerate(results) if place not in bad]
    assert good == [("good-1", "def-1"), "there", version + 1, ("good-2", "def-1")]
    assert ids_on_disk(path) == {"there", "good-1", "good-2"}
    loaded = {each.record.execution_id: each for each in await store.load(["there", "good-1"])}
    assert ([*loaded["good-1"].attempts], [*loaded["there"].attempts]) == ([], [attempt("there", 2)])


async def test_a_commit_that_misses_its_fence_costs_the_others_nothing(store: SqliteStore) -> None:
    await store.take_partition(0, "owner", 0, 60.0)
    statements = await trace(store)
    missed, *answers = await asyncio.gather(
        commit_one(store, CommitBatch(0, 17, [attempt("e0", 1)], (), ())),
        *(store.create_execution("def-1", pending(f"e{n}")) for n in range(5)),
        return_exceptions=True,
    )
    assert isinstance(missed, PartitionLost)
    assert answers == [(f"e{n}", "def-1") for n in range(5)]
    assert statements.count("BEGIN IMMEDIATE") == 1


async def test_who_gives_up_waiting_disturbs_nobody(store: SqliteStore, path: Path) -> None:
    calls = [store.create_execution("def-1", pending(f"e{n}")) for n in range(3)]
    async with held(store, *calls) as answers:
        answers[1].cancel()
        await asyncio.wait([answers[1]])
    assert answers[1].cancelled()
    assert [answers[0].result(), answers[2].result()] == [("e0", "def-1"), ("e2", "def-1")]
    assert ids_on_disk(path) >= {"e0", "e2"}
    assert await store.create_execution("def-1", pending("e3")) == ("e3", "def-1")


async def test_while_another_program_holds_the_database_all_are_refused_at_once(store: SqliteStore, path: Path) -> None:
    """Trying each write alone would make each wait for the lock again, one after the other."""
    await store.create_execution("def-1", pending("e0"))
    await pragma(store, "busy_timeout = 1")
    statements = await trace(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(
            *(store.create_execution("def-1", pending(f"e{n}")) for n in range(1, 21)), return_exceptions=True
        )
        assert {type(each) for each in results} == {StoreUnavailable}
        assert {str(each) for each in results} == {"the database is locked by another process (database is locked)"}
        assert statements.count("BEGIN IMMEDIATE") == 1
        assert await store.read_execution("e0") is not None
        other.execute("ROLLBACK")
    assert await store.create_execution("def-1", pending("e1")) == ("e1", "def-1")
    assert ids_on_disk(path) == {"e0", "e1"}


class FaultyCommit:
    """A connection whose first commit reports that the disk failed, whether or not it has happened."""

    def __init__(self, connection: sqlite3.Connection, happens: bool) -> None:
        self._connection = connection
        self._happens = happens
        self.commits = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, text: str, *values: Any) -> sqlite3.Cursor:
        if text == "COMMIT":
            self.commits += 1
            if self.commits == 1:
                if self._happens:
                    self._connection.execute("COMMIT")
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
        return self._connection.execute(text, *values)


@pytest.mark.parametrize("happened", [True, False])
async def test_a_commit_nobody_knows_the_outcome_of_is_not_tried_again(store: SqliteStore, happened: bool) -> None:
    """A second try of what has happened would answer that it had been refused."""
    await store.create_execution("def-1", pending("e0"))
    version = await store.take_partition(0, "owner", 0, 60.0)
    assert store._writer._connection is not None
    faulty: Any = FaultyCommit(store._writer._connection, happened)
    store._writer._connection = faulty
    results = await asyncio.gather(
        store.trigger("e0", b"{}", 1_001),
        store.create_execution("def-1", pending("e1")),
        commit_one(store, CommitBatch(0, version, [attempt("e0", 1)], (), ())),
        return_exceptions=True,
    )
    assert [type(each) for each in results] == [StoreOutcomeUnknown] * 3
    assert "disk I/O error" in str(results[0])
    assert faulty.commits == 1
    state = await store.read_execution_state("e0")
    assert state is not None
    assert (state.record.state, len(state.attempts)) == ((WorkflowState.RUNNING, 1) if happened else ("PENDING", 0))
    assert await store.create_execution("def-1", pending("e2")) == ("e2", "def-1")


async def test_an_answer_lost_after_the_commit_is_not_tried_again(
    store: SqliteStore, path: Path, set_failpoints: Callable[[str], None]
) -> None:
    await store.create_execution("def-1", pending("e0"))
    set_failpoints("store.transaction.committed:raise")
    results = await asyncio.gather(
        store.trigger("e0", b"{}", 1_001), store.create_execution("def-1", pending("e1")), return_exceptions=True
    )
    assert all(isinstance(each, Exception) for each in results), results
    assert not any(isinstance(each, StoreUnavailable) for each in results), "it has happened"
    assert ids_on_disk(path) == {"e0", "e1"}
    assert await store.create_execution("def-1", pending("e2")) == ("e2", "def-1")


@pytest.mark.parametrize("place", ["store.transaction.begin", "store.commit.attempts", "store.transaction.commit"])
async def test_a_failure_before_the_commit_leaves_nothing(
    store: SqliteStore, set_failpoints: Callable[[str], None], place: str
) -> None:
    await store.create_execution("def-1", running("e0"))
    version = await store.take_partition(0, "owner", 0, 60.0)
    set_failpoints(f"{place}:raise")
    with pytest.raises(failpoints.FailpointRaised):
        await commit_one(store, CommitBatch(0, version, [attempt("e0", 1)], (), ()))
    assert await version_of(store, 0) == version
    [loaded] = await store.load(["e0"])
    assert list(loaded.attempts) == []
    assert await commit_one(store, CommitBatch(0, version, [attempt("e0", 1)], (), ())) == version + 1


# --- a full disk ------------------------------------------------------------------------------------


async def fill_disk(store: SqliteStore, free_pages: int) -> None:
    used = await pragma(store, "page_count")
    await pragma(store, f"max_page_count = {used + free_pages}")


async def free_disk(store: SqliteStore) -> None:
    await pragma(store, "max_page_count = 1000000")


async def test_a_full_disk_refuses_writes_and_nothing_else(store: SqliteStore, path: Path) -> None:
    await store.create_execution("def-1", running("e0"))
    version = await store.take_partition(0, "owner", 0, 60.0)
    batch = CommitBatch(0, version, [attempt("e0", n, b"x" * 4_000) for n in range(300)], (), ())
    await fill_disk(store, 5)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            await commit_one(store, batch)
    stored = {"e0"}
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        for number in range(100):
            await store.create_execution("def-1", running(f"small-{number}", b"x" * 3_000))
            stored.add(f"small-{number}")
    assert ids_on_disk(path) == stored
    assert (await store.health()).ok
    assert await version_of(store, 0) == version, "nothing of the batch counts"
    [loaded] = await store.load(["e0"])
    assert list(loaded.attempts) == []
    await free_disk(store)
    assert await commit_one(store, batch) == version + 1
    [loaded] = await store.load(["e0"])
    assert list(loaded.attempts) == batch.attempts
    assert await pragma(store, "integrity_check") == "ok"


async def test_what_does_not_fit_on_the_disk_fails_alone(store: SqliteStore, path: Path) -> None:
    await fill_disk(store, 5)
    results = await asyncio.gather(
        store.create_execution("def-1", running("small-1")),
        store.create_execution("def-1", running("large", b"x" * 1_000_000)),
        store.create_execution("def-1", running("small-2")),
        return_exceptions=True,
    )
    assert [results[0], results[2]] == [("small-1", "def-1"), ("small-2", "def-1")]
    assert isinstance(results[1], StoreUnavailable)
    assert ids_on_disk(path) == {"small-1", "small-2"}


# --- one process at a time --------------------------------------------------------------------------

HOLDER = """
import asyncio, pathlib, sys
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.ports import NewExecution
from workflow_engine.runtime.store.sqlite import SqliteStore

async def hold():
    store = SqliteStore(pathlib.Path(sys.argv[1]), SystemClock())
    await store.open()
    await store.create_execution("def-1", NewExecution("held", 0, None, 1))
    print("holding", flush=True)
    sys.stdin.read()
    await store.create_execution("def-1", NewExecution("last", 0, None, 1))
    await store.close()

asyncio.run(hold())
"""


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the store open, until its standard input ends."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process


async def test_a_second_process_is_refused_and_disturbs_nothing(path: Path) -> None:
    with holder(path) as process:
        for _ in range(2):
            await refused(path, rf"\(pid {process.pid}\) uses this database; .*SQLITE_PATH")
    assert process.returncode == 0
    async with open_store(path) as store:
        assert await store.read_execution("last") is not None


async def test_the_lock_of_a_killed_process_is_free(path: Path) -> None:
    with holder(path) as process:
        process.kill()
        process.wait()
        async with open_store(path) as store:
            assert await store.read_execution("held") is not None
            assert await pragma(store, "integrity_check") == "ok"


async def test_a_second_store_in_the_same_process_is_refused(store: SqliteStore, path: Path) -> None:
    await refused(path, rf"\(pid {os.getpid()}\)")
    assert await store.create_execution("def-1", pending("e1")) == ("e1", "def-1")


@pytest.mark.parametrize("opened_first", ["engine.db", "other.db"])
async def test_the_lock_is_the_files_whatever_name_it_is_opened_by(tmp_path: Path, opened_first: str) -> None:
    (tmp_path / "other.db").symlink_to(tmp_path / "engine.db")
    async with open_store(tmp_path / opened_first) as store:
        await store.create_execution("def-1", pending("e1"))
        for name in ("engine.db", "other.db"):
            await refused(tmp_path / name, "another process")
    assert ids_on_disk(tmp_path / "engine.db") == {"e1"}


async def test_the_lock_file_names_its_holder_and_none_before(path: Path) -> None:
    path.with_name("engine.db.lock").write_text("9" * 30, encoding="utf-8")
    async with open_store(path):
        await refused(path, rf"\(pid {os.getpid()}\)")


async def test_a_lock_that_cannot_be_had_names_the_cause(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(_descriptor: int, _operation: int) -> NoReturn:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    await refused(path, r"cannot lock .*engine\.db\.lock: No locks available")


async def test_a_lock_file_that_cannot_be_written_names_the_cause(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _text: bytes, _offset: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        await refused(path, r"cannot write .*engine\.db\.lock: No space left on device")
    async with open_store(path) as store:
        assert (await store.health()).ok, "the lock must have been given up"


# --- files that do not fit --------------------------------------------------------------------------


NO_DATABASES = [b"This is no database.\n" * 500, b"short", bytes(8_192), b"SQLite format 3\0" * 99]


@pytest.mark.parametrize("content", NO_DATABASES, ids=["text", "short", "zeros", "header only"])
async def test_a_file_that_is_no_database_is_refused_and_kept(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for _ in range(2):
        await refused(path, r"engine\.db: this file is not a sound SQLite database \(.+\); restore a copy, or move it")
    assert path.read_bytes() == content
    path.rename(path.with_name("moved-away"))
    async with open_store(path) as store:
        assert (await store.health()).ok


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
async def test_a_truncated_database_is_refused_and_kept(path: Path, part: float) -> None:
    async with open_store(path) as store:
        await asyncio.gather(*(store.create_execution("d", running(f"e{n}", b"x" * 3_000)) for n in range(100)))
    content = path.read_bytes()
    content = content[: round(len(content) * part)]
    path.write_bytes(content)
    await refused(path, "not a sound SQLite database")
    assert path.read_bytes() == content


async def test_a_database_of_a_newer_version_is_refused(path: Path) -> None:
    async with open_store(path) as store:
        await store.create_execution("def-1", pending("e1"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (9999, 'from_the_future', 'digest', 1)")
    await refused(path, "9999_from_the_future, which this version does not know")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM schema_migrations WHERE number = 9999")
    async with open_store(path) as store:
        assert await store.read_execution("e1") is not None


async def test_a_database_of_somebody_else_is_refused_and_kept(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE executions (theirs)")
        connection.execute("INSERT INTO executions VALUES ('kept')")
    await refused(path, "table executions already exists")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT theirs FROM executions").fetchall() == [("kept",)]
        assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchall() == [(1,)]


class ReadOnlyStore(SqliteStore):
    """Permission bits do not bind root, so the connection is what SQLite falls back to on a read-only file."""

    def _connect_writer(self) -> sqlite3.Connection:
        address = f"file:{quote(str(self._path))}?mode=ro"
        return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


async def test_a_read_only_database_is_refused(path: Path) -> None:
    async with open_store(path):
        pass
    await refused(path, r"the database is read-only \(.+\); make the file and its folder writable", ReadOnlyStore)
    async with open_store(path) as usable:
        assert (await usable.health()).ok


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
@pytest.mark.parametrize("read_only", ["file", "folder"])
async def test_permission_bits_that_forbid_writing_are_named(path: Path, read_only: str) -> None:
    async with open_store(path):
        pass
    target = path if read_only == "file" else path.parent
    path.with_name("engine.db.lock").unlink()
    mode = target.stat().st_mode
    target.chmod(mode & ~0o222)
    try:
        await refused(path, "writable")
    finally:
        target.chmod(mode)


async def test_a_folder_in_the_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    await refused(path, r"engine\.db: cannot be opened \(.+\); check that .* is a writable folder")


async def test_a_lock_file_that_cannot_be_made_is_named(path: Path) -> None:
    path.with_name("engine.db.lock").mkdir()
    await refused(path, r"cannot create .*engine\.db\.lock: Is a directory")


@pytest.mark.parametrize("below", ["engine.db", "a/engine.db", "a/b/engine.db"])
async def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("a file", encoding="utf-8")
    await refused(tmp_path / "file" / below, r"cannot make the folder .*file")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "a file"


async def test_missing_folders_are_made(tmp_path: Path) -> None:
    async with open_store(tmp_path / "a" / "b" / "engine.db") as store:
        await store.create_execution("def-1", pending("e1"))
    assert ids_on_disk(tmp_path / "a" / "b" / "engine.db") == {"e1"}


NAMES = [
    "with space.db",
    "what?mode=memory.db",
    "anchor#1.db",
    "100%.db",
    "%41%3f.db",
    "a&b;c='d\".db",
    "back\\slash.db",
    "日本 é 🌀.db",
    os.fsdecode(b"not-utf8-\xe9.db"),
    "file:x.db",
    "file:x?mode=memory",
    ":memory:",
    "-dash",
]


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("name", NAMES, ids=ascii)
async def test_the_file_has_the_very_name_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, relative: bool
) -> None:
    """Whatever a name means to SQLite or in an address; the same for the folder's name."""
    folder = tmp_path / name.replace(".db", "")
    folder.mkdir()
    monkeypatch.chdir(folder)
    path = Path(name) if relative else folder / name
    for number in range(2):
        async with open_store(path) as store:
            await store.create_execution("def-1", pending(f"e{number}"))
            assert [await store.read_execution(f"e{n}") is not None for n in range(2)] == [True, number == 1]
    assert {file.name for file in folder.iterdir()} == {name, f"{name}.lock"}
    assert list(tmp_path.iterdir()) == [folder]


# --- closing ----------------------------------------------------------------------------------------


async def test_close_is_safe_at_any_time(path: Path) -> None:
    store = SqliteStore(path, SystemClock())
    await store.close()
    await store.close()
    assert not path.exists()
    store = SqliteStore(path, SystemClock())
    await store.open()
    await asyncio.gather(store.close(), store.close())
    await store.close()
    async with open_store(path) as again:
        assert (await again.health()).ok


async def test_skipping_migrations_refuses_a_database_that_needs_one_and_opens_one_that_does_not(path: Path) -> None:
    with pytest.raises(StoreUnusable, match="SKIP_MIGRATIONS"):
        await SqliteStore(path, SystemClock(), skip_migrations=True).open()
    migrating = SqliteStore(path, SystemClock())
    await migrating.open()
    await migrating.close()
    skipping = SqliteStore(path, SystemClock(), skip_migrations=True)
    await skipping.open()
    health = await skipping.health()
    await skipping.close()
    assert health.ok


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("made up"), StoreUnusable("made up"), MemoryError("made up")]
)
async def test_a_failed_open_gives_everything_back(
    path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Also without a call of `close`, which may follow all the same."""

    def fail(_connection: sqlite3.Connection, **_how: object) -> NoReturn:
        raise error

    threads = set(threading.enumerate())
    store = SqliteStore(path, SystemClock())
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "_prepare", fail)
        with pytest.raises(StoreUnusable if isinstance(error, sqlite3.Error) else type(error), match="made up"):
            await store.open()
    assert set(threading.enumerate()) <= threads
    async with open_store(path) as again:
        await store.close()
        assert await again.create_execution("def-1", pending("e1")) == ("e1", "def-1")
        await refused(path, "another process")


async def test_close_waits_for_what_is_being_written(path: Path) -> None:
    async with open_store(path) as store:
        async with held(store, store.create_execution("def-1", pending("in-flight"))) as answers:
            waiting = asyncio.ensure_future(store.create_execution("def-1", pending("waiting")))
            await asyncio.sleep(0)
            closing_store = asyncio.ensure_future(store.close())
            for _ in range(10):
                await asyncio.sleep(0)
            assert [each.done() for each in (*answers, waiting, closing_store)] == [False] * 3
            with pytest.raises(StoreUnavailable, match="closed"):
                await store.create_execution("def-1", pending("too late"))
        await closing_store
        assert (answers[0].result(), await waiting) == (("in-flight", "def-1"), ("waiting", "def-1"))
    assert ids_on_disk(path) == {"in-flight", "waiting"}


async def test_the_lock_is_given_up_last(store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write-ahead log goes when the last connection has closed; nobody may open the file before that."""
    there: list[bool] = []
    release = FileLock.release

    def look_and_release(lock: FileLock) -> None:
        there.append(path.with_name("engine.db-wal").exists())
        release(lock)

    await store.create_execution("def-1", pending("e1"))
    with monkeypatch.context() as patch:
        patch.setattr(FileLock, "release", look_and_release)
        await store.close()
    assert there == [False]


async def test_reads_end_properly_when_the_store_closes(store: SqliteStore) -> None:
    """Each read that began before is answered, and each that comes later is told why not."""
    await store.create_execution("def-1", pending("e1"))
    reads = [asyncio.ensure_future(store.read_execution("e1")) for _ in range(20)]
    await asyncio.sleep(0)
    closing_store = asyncio.ensure_future(store.close())
    while not closing_store.done():
        reads.append(asyncio.ensure_future(store.read_execution("e1")))
        await asyncio.sleep(0)
    results = await asyncio.gather(*reads, return_exceptions=True)
    assert all(each is not None for each in results[:20])
    assert not any(isinstance(each, Exception) for each in results[:20])
    assert {type(each) for each in results[20:] if isinstance(each, Exception)} == {StoreUnavailable}


async def test_a_closed_store_refuses_writes_and_says_why(store: SqliteStore, path: Path) -> None:
    await store.close()
    with pytest.raises(StoreUnavailable, match="the store is closed"):
        await store.create_execution("def-1", pending("e1"))
    assert (await store.health()).detail == "the store is closed"
    assert ids_on_disk(path) == set()


async def test_a_store_that_is_not_open_refuses(path: Path) -> None:
    store = SqliteStore(path, SystemClock())
    with pytest.raises(StoreUnavailable):
        await store.create_execution("def-1", pending("e1"))
    with pytest.raises(StoreUnavailable):
        await store.read_execution("e1")
    assert not path.exists()
    await store.close()


async def test_a_closed_store_leaves_one_file_and_its_lock(path: Path) -> None:
    async with open_store(path) as store:
        await store.create_execution("def-1", pending("e1"))
        assert path.with_name("engine.db-wal").stat().st_size > 0
    assert sorted(file.name for file in path.parent.iterdir()) == ["engine.db", "engine.db.lock"]


async def test_a_store_that_cannot_write_says_so_until_it_can(store: SqliteStore) -> None:
    await store.take_partition(0, "owner", 0, 60.0)
    await fill_disk(store, 0)
    big = NewDefinition("d", "big", "digest", b"x" * 1_000_000)
    with pytest.raises(StoreUnavailable, match="the disk is full"):
        await store.create_execution(big, pending("e"))
    assert store._writer.fault is not None

    await free_disk(store)

    assert (await store.health()).ok
    assert store._writer.fault is None


async def test_a_database_that_others_hold_is_not_healthy_after_a_refusal(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_arguments: Any) -> NoReturn:
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorcode = sqlite3.SQLITE_BUSY
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store._writer, "_apply", locked)
        with pytest.raises(StoreUnavailable):
            await store.create_execution("d", pending("e"))
        health = await store.health()

        assert not health.ok
        assert "locked by another process" in health.detail
    assert (await store.health()).ok


async def test_a_deleted_database_takes_no_more_writes(store: SqliteStore, path: Path) -> None:
    await store.create_execution("d", pending("before"))

    path.unlink()

    with pytest.raises(StoreUnavailable, match="the database file is gone"):
        await store.create_execution("d", pending("after"))
    assert not (await store.health()).ok


async def test_a_replaced_database_takes_no_more_writes(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    await store.create_execution("d", pending("before"))
    other = tmp_path / "other"
    other.write_bytes(path.read_bytes())

    other.replace(path)

    with pytest.raises(StoreUnavailable, match="has been replaced"):
        await store.create_execution("d", pending("after"))
