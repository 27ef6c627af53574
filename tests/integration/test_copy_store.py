"""A deployment moves from SQLite to PostgreSQL, executions in flight included."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from audit import broken_invariants
from commands import Done
from fragile import FRAGILE, Fragile
from postgres_server import PostgresServer

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.graph import compile_graph
from workflow_engine.runtime.core.machine import Suspicion
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.errors import ExecutionConflict, StoreUnusable
from workflow_engine.runtime.parts import node_defaults
from workflow_engine.runtime.ports import DeadLetterFilter, ExecutionFilter, IdempotencyClaim, KeyRecord
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.store.postgres_connections import PostgresAddress
from workflow_engine.runtime.store.postgres_import import import_tables
from workflow_engine.runtime.store.sqlite_export import export_tables

IN_FLIGHT = 1_000
CHAIN = {
    "name": "chain",
    "dag": {
        "nodes": [
            {"id": "first", "handler": "input"},
            {"id": "gate", "handler": "gate", "dependencies": ["first"]},
            {"id": "last", "handler": "output", "dependencies": ["gate"]},
        ]
    },
}


class Gate:
    """A handler that waits until the gate is open, and counts who came through."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.passed: Counter[str] = Counter()

        @handler("gate")
        async def gate(_config: dict[str, Any], context: NodeContext) -> str:
            await self.opened.wait()
            self.passed[context.execution_id] += 1
            return context.execution_id

        self.handler = gate


def address_of(settings: dict[str, Any]) -> PostgresAddress:
    return PostgresAddress(
        settings["postgres_host"],
        settings["postgres_port"],
        settings["postgres_user"],
        settings["postgres_password"],
        settings["postgres_database"],
    )


async def test_a_thousand_executions_in_flight_complete_on_the_other_side_and_none_twice(
    postgres_server: PostgresServer,
    start_runtime: Callable[..., Awaitable[Runtime]],
    stop_runtime: Callable[[Runtime], Awaitable[None]],
    end_of: Callable[[Runtime, str], Awaitable[Any]],
    tmp_path: Path,
) -> None:
    gate, path = Gate(), tmp_path / "engine.db"
    before = await start_runtime(handlers=[gate.handler], sqlite_path=path)
    await before.engine.define(CHAIN)
    claim = IdempotencyClaim("key", "asked", SystemClock().now())
    claimed = await before.engine.start("chain", {"n": -1}, claim=claim)
    started = await asyncio.gather(*(before.engine.start("chain", {"n": number}) for number in range(IN_FLIGHT - 1)))
    ids = [claimed.execution_id, *(each.execution_id for each in started)]
    pending = (await before.engine.submit(CHAIN)).execution_id
    cancelled = (await before.engine.start("chain")).execution_id
    key = KeyRecord("key-1", "ci", "digest", ("run",), 1, None, None)
    await before.store.add_key(key)
    await stop_runtime(before)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO commands (execution_id, created_at) VALUES (?, 5)", (cancelled,))
        connection.execute("INSERT INTO suspicions VALUES (?, 'gate', 1, 1)", (ids[0],))
    assert gate.passed == {}

    given = postgres_server.settings(postgres_server.create_database())
    copied = await import_tables(export_tables(path), address_of(given), SystemClock(), partitions=16)
    assert (copied["definitions"], copied["executions"], copied["in flight"]) == (1, IN_FLIGHT + 2, IN_FLIGHT + 2)

    after = await start_runtime(handlers=[gate.handler], **given)
    gate.opened.set()
    for execution_id in ids:
        ended = await end_of(after, execution_id)
        assert (ended.state, ended.output) == (WorkflowState.COMPLETED, {"gate": execution_id})
        assert ended.summary == [(node, 1, "COMPLETED") for node in ("first", "gate", "last")]
    assert {gate.passed[execution_id] for execution_id in ids} == {1}
    assert (await end_of(after, cancelled)).state is WorkflowState.CANCELLED
    assert (await after.engine.start("chain", {"n": -1}, claim=claim)).execution_id == claimed.execution_id
    assert await after.store.list_keys() == [key]
    [waiting] = await after.engine.list_executions(
        ExecutionFilter(states=frozenset({WorkflowState.PENDING})), before=None, limit=10
    )
    assert waiting.execution_id == pending
    await after.engine.cancel(await after.engine.trigger(pending))
    graph = compile_graph(CHAIN, node_defaults(after.settings))
    [suspected] = await after.store.load(ids[:1])
    assert list(suspected.suspicions) == [Suspicion(ids[0], "gate", 1, 1)]
    for loaded in await after.store.load(ids):
        assert broken_invariants(loaded, graph) == []


async def test_dead_letters_and_what_was_done_about_them_move_too(
    postgres_server: PostgresServer,
    start_runtime: Callable[..., Awaitable[Runtime]],
    stop_runtime: Callable[[Runtime], Awaitable[None]],
    end_of: Callable[[Runtime, str], Awaitable[Any]],
    tmp_path: Path,
) -> None:
    fragile = Fragile()
    before = await start_runtime(handlers=fragile.handlers, sqlite_path=tmp_path / "engine.db")
    await before.engine.define(FRAGILE)
    waiting, requeued, discarded = [(await before.engine.start("fragile")).execution_id for _ in range(3)]
    for execution_id in (waiting, requeued, discarded):
        assert (await end_of(before, execution_id)).state is WorkflowState.FAILED
    await before.engine.dead_letters.discard(discarded)
    retry = await before.engine.dead_letters.requeue(requeued)
    await stop_runtime(before)

    given = postgres_server.settings(postgres_server.create_database())
    await import_tables(export_tables(tmp_path / "engine.db"), address_of(given), SystemClock(), partitions=16)
    after = await start_runtime(handlers=fragile.handlers, **given)
    assert (await end_of(after, retry)).state is WorkflowState.FAILED
    listed = await after.engine.dead_letters.list(DeadLetterFilter(), before=None, limit=10)
    assert [(each.execution_id, each.retry_of) for each in listed] == [(retry, requeued), (waiting, None)]
    with pytest.raises(ExecutionConflict, match=f"was requeued as {retry}"):
        await after.engine.dead_letters.requeue(requeued)
    with pytest.raises(ExecutionConflict, match="was discarded"):
        await after.engine.dead_letters.requeue(discarded)


async def test_a_database_that_holds_something_is_refused_and_stays_as_it_is(
    postgres_server: PostgresServer,
    start_postgres_runtime: Callable[..., Awaitable[Runtime]],
    tmp_path: Path,
    start_runtime: Callable[..., Awaitable[Runtime]],
    stop_runtime: Callable[[Runtime], Awaitable[None]],
) -> None:
    source = await start_runtime(sqlite_path=tmp_path / "engine.db")
    await source.engine.submit({"name": "mine", "dag": {"nodes": [{"id": "a", "handler": "input"}]}})
    await stop_runtime(source)
    target = await start_postgres_runtime()
    await target.engine.define({"name": "theirs", "dag": {"nodes": [{"id": "a", "handler": "input"}]}})
    address = PostgresAddress(
        target.settings.postgres_host, target.settings.postgres_port, "postgres", "", target.settings.postgres_database
    )

    with pytest.raises(StoreUnusable, match="holds something already"):
        await import_tables(export_tables(tmp_path / "engine.db"), address, SystemClock(), partitions=16)
    assert [each.name for each in await target.engine.definitions.list(after=None, limit=9)] == ["theirs"]


async def test_a_copy_that_fails_half_way_leaves_nothing(
    postgres_server: PostgresServer,
    start_runtime: Callable[..., Awaitable[Runtime]],
    stop_runtime: Callable[[Runtime], Awaitable[None]],
    tmp_path: Path,
) -> None:
    source = await start_runtime(sqlite_path=tmp_path / "engine.db")
    await source.engine.submit({"name": "mine", "dag": {"nodes": [{"id": "a", "handler": "input"}]}})
    await stop_runtime(source)
    given = postgres_server.settings(postgres_server.create_database())

    def broken() -> Any:
        for batch in export_tables(tmp_path / "engine.db"):
            yield batch
            if batch.table.name == "executions":
                raise OSError("the disk of the old machine is gone")

    with pytest.raises(OSError, match="old machine"):
        await import_tables(broken(), address_of(given), SystemClock(), partitions=16)
    copied = await import_tables(export_tables(tmp_path / "engine.db"), address_of(given), SystemClock(), partitions=16)
    assert (copied["definitions"], copied["executions"]) == (1, 1)


async def test_a_text_that_postgres_cannot_hold_is_named(
    postgres_server: PostgresServer,
    start_runtime: Callable[..., Awaitable[Runtime]],
    stop_runtime: Callable[[Runtime], Awaitable[None]],
    tmp_path: Path,
) -> None:
    source = await start_runtime(sqlite_path=tmp_path / "engine.db")
    await source.engine.submit({"name": "mine", "dag": {"nodes": [{"id": "a", "handler": "input"}]}})
    await stop_runtime(source)
    with closing(sqlite3.connect(tmp_path / "engine.db", isolation_level=None)) as connection:
        connection.execute("UPDATE definitions SET name = 'a' || char(0) || 'b'")
    given = postgres_server.settings(postgres_server.create_database())

    with pytest.raises(StoreUnusable, match=r"definitions cannot be copied.*0x00"):
        await import_tables(export_tables(tmp_path / "engine.db"), address_of(given), SystemClock(), partitions=16)


def test_the_command_copies_and_says_what_to_do_next(
    run_command: Callable[..., Done], postgres_server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLITE_PATH", "moving.db")
    assert run_command("keys", "create", "--name", "ci", "--scope", "run").code == 0
    database = postgres_server.create_database()
    url = f"postgresql://postgres:unused@127.0.0.1:{postgres_server.port}/{database}"

    done = run_command("copy-store", "--from", "sqlite:moving.db", "--to", url)
    assert done.code == 0, done.errors
    assert ["api_keys", "1"] in done.rows
    assert "start the engine with BACKEND=postgres" in done.output
    again = run_command("copy-store", "--from", "sqlite:moving.db", "--to", url)
    assert (again.code, "holds something already" in again.errors) == (1, True)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("moving.db", "postgres", "--from is written sqlite:FILE"),
        ("sqlite:absent.db", "postgres", "there is no file absent.db"),
        ("sqlite:there.db", "mysql://x", "--to is a URL that begins with postgresql://"),
        ("sqlite:there.db", "postgresql://127.0.0.1:1/x", "no connection to PostgreSQL at postgres@127.0.0.1:1/x"),
    ],
)
def test_what_cannot_be_copied_is_named(
    run_command: Callable[..., Done], tmp_path: Path, source: str, target: str, message: str
) -> None:
    (tmp_path / "there.db").touch()
    done = run_command("copy-store", "--from", source, "--to", target)
    assert done.code in (1, 2)
    assert message in done.errors
    assert "Traceback" not in done.errors
