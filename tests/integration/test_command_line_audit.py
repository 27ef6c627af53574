"""`audit`: on what a whole engine has stored, while it runs and afterwards, sound and broken."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commands import Done
from fragile import FRAGILE, Fragile
from postgres_server import PostgresServer

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.clock import uuid7_milliseconds
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.ports import IdempotencyClaim
from workflow_engine.runtime.process import Runtime

Command = Callable[..., Awaitable[Done]]
RunCommand = Callable[..., Done]
StartRuntime = Callable[..., Awaitable[Runtime]]
EndOf = Callable[[Runtime, str], Awaitable[Any]]

FLAKY = [{"id": "call", "handler": "flaky", "retry_config": {"max_retries": 2, "initial_delay": 0.01}}]
SLOW = [{"id": "call", "handler": "hang", "timeout_seconds": 0.05, "retry_config": {"max_retries": 1, "max_delay": 0}}]
HANGING = [{"id": "call", "handler": "hang"}]


@handler("flaky")
async def flaky(_config: dict[str, Any], context: NodeContext) -> int:
    """Succeed at the second attempt."""
    if context.attempt == 1:
        raise OSError("not yet")
    return context.attempt


@handler("hang")
async def hang(_config: dict[str, Any], _context: NodeContext) -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


def document(name: str, nodes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "dag": {"nodes": nodes}}


async def make_histories(runtime: Runtime, fragile: Fragile, end_of: EndOf) -> dict[str, str]:
    """An execution of each kind: their ids. The one that hangs has not ended."""
    engine = runtime.engine
    await engine.define(FRAGILE)
    claim = IdempotencyClaim("key", "asked", runtime.clock.now())
    ids = {"letter": (await engine.start("fragile", {"n": 1}, claim=claim)).execution_id}
    assert (await end_of(runtime, ids["letter"])).state is WorkflowState.FAILED
    fragile.mended = True
    ids["again"] = await engine.dead_letters.requeue(ids["letter"])
    ids["pending"] = (await engine.submit(FRAGILE)).execution_id
    ids["never"] = (await engine.submit(FRAGILE)).execution_id
    await engine.cancel(ids["never"])
    for name, nodes in {"flaky": FLAKY, "slow": SLOW, "cancelled": HANGING, "hanging": HANGING}.items():
        ids[name] = (await engine.submit(document(name, nodes))).execution_id
        await engine.trigger(ids[name])
    await engine.cancel(ids["cancelled"])
    ends = {"again": "COMPLETED", "flaky": "COMPLETED", "slow": "FAILED", "cancelled": "CANCELLED"}
    for name, state in ends.items():
        assert (await end_of(runtime, ids[name])).state == state
    return ids


@pytest.fixture
async def fragile() -> Fragile:
    """The handlers of this test's runtime."""
    return Fragile()


@pytest.fixture
def start_engine(
    start_runtime: StartRuntime,
    postgres_server: PostgresServer,
    fragile: Fragile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Awaitable[Runtime]]:
    """`await start_engine("postgres")`: an engine, on the store of which the commands' settings are."""

    async def start(backend: str) -> Runtime:
        given: dict[str, Any] = {"sqlite_path": tmp_path / "engine.db"}
        if backend == "postgres":
            given = dict(postgres_server.settings(postgres_server.create_database()))
        for name, value in given.items():
            monkeypatch.setenv(name.upper(), str(value))
        return await start_runtime(handlers=[*fragile.handlers, flaky, hang], **given)

    return start


@pytest.mark.parametrize("backend", ["embedded", "postgres"])
async def test_a_running_engine_is_clean_and_goes_on(
    command: Command, start_engine: Callable[[str], Awaitable[Runtime]], fragile: Fragile, end_of: EndOf, backend: str
) -> None:
    runtime = await start_engine(backend)
    ids = await make_histories(runtime, fragile, end_of)

    done = await command("audit", "--json")
    assert (done.code, done.document["found"], done.document["findings"]) == (0, 0, [])
    assert (done.document["executions"], done.document["idempotency_keys"]) == (8, 1)
    assert done.document["nodes"] == 4 * 3 + 4
    assert done.document["attempts"] == 2 + 3 + 2 + 2 + 1

    settled = await command("audit", "--settled")
    assert settled.code == 1
    assert ["I1", ids["hanging"], ids["hanging"], "is", "RUNNING"] in settled.rows
    assert "looked at 8 executions, 16 nodes, 10 attempts and 1 idempotency keys in " in settled.output
    assert settled.output.endswith(" s: 1 found\n")

    assert (await end_of(runtime, (await runtime.engine.start("fragile")).execution_id)).state == "COMPLETED"


async def test_what_is_broken_is_told_with_its_ids(
    command: Command,
    start_engine: Callable[[str], Awaitable[Runtime]],
    stop_runtime: Callable[[Runtime], Awaitable[None]],
    fragile: Fragile,
    end_of: EndOf,
) -> None:
    runtime = await start_engine("embedded")
    ids = await make_histories(runtime, fragile, end_of)
    await stop_runtime(runtime)
    with closing(sqlite3.connect(runtime.settings.sqlite_path)) as connection, connection:
        connection.execute("UPDATE executions SET state = 'FAILED' WHERE execution_id = ?", (ids["flaky"],))
        connection.execute("DELETE FROM attempts WHERE execution_id = ? AND node_id = 'first'", (ids["again"],))
        connection.execute("DELETE FROM commands")

    done = await command("audit", "--json")
    assert done.code == 1
    found = {(each["invariant"], each["execution_id"]) for each in done.document["findings"]}
    assert {("I13", ids["flaky"]), ("I7", ids["again"]), ("I19", ids["cancelled"])} <= found
    assert {execution_id for _, execution_id in found} == {ids["flaky"], ids["again"], ids["cancelled"]}
    [early] = [each for each in done.document["findings"] if each["invariant"] == "I7" and each["node_id"] == "thing"]
    assert early["message"] == f"attempt 1 of thing in {ids['again']} ran before first was committed"

    shown = await command("audit", "--execution", ids["flaky"], "--execution", ids["pending"])
    assert shown.code == 1
    assert "looked at 2 executions" in shown.output
    assert f"{ids['flaky']} is FAILED, its rows say COMPLETED" in shown.output
    assert ids["again"] not in shown.output
    assert (await command("audit", "--execution", ids["pending"])).output.endswith(" s: nothing found\n")

    later = uuid7_milliseconds(ids["cancelled"]) // 1000 + 1
    since = await command("audit", "--json", "--since", _rfc3339(later))
    assert (since.code, since.document["executions"]) == (0, 0)


def _rfc3339(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_what_cannot_be_read_is_no_finding(
    run_command: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = run_command("audit")
    assert (absent.code, absent.output) == (2, "")
    assert "there is no database " in absent.errors
    assert list(tmp_path.iterdir()) == [], "nothing was made"

    (tmp_path / "old.db").touch()
    monkeypatch.setenv("SQLITE_PATH", "old.db")
    old = run_command("audit")
    assert (old.code, old.output) == (2, "")
    assert "the database lacks 0001_initial" in old.errors

    (tmp_path / "text.db").write_text("text " * 1000)
    monkeypatch.setenv("SQLITE_PATH", "text.db")
    assert run_command("audit").code == 2

    monkeypatch.setenv("SQLITE_PATH", "new.db")
    assert run_command("migrate", "up").code == 0
    unknown = run_command("audit", "--execution", "absent")
    assert unknown.code == 2
    assert "there is no execution with the id 'absent'" in unknown.errors
    bad = run_command("audit", "--since", "yesterday")
    assert bad.code == 2
    assert "--since: must be a time as in RFC 3339" in bad.errors
    assert run_command("audit").code == 0

    monkeypatch.setenv("BACKEND", "postgres")
    monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
    monkeypatch.setenv("POSTGRES_PORT", "1")
    away = run_command("audit")
    assert (away.code, away.output) == (2, "")
    assert "no connection to PostgreSQL at postgres@127.0.0.1:1/" in away.errors
