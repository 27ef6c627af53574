"""`keys`: the first one in the database itself, the others through a server that asks for keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Done, Process

RunCommand = Callable[..., Done]
Command = Callable[..., Awaitable[Done]]


def create(run_command: RunCommand, *more: object) -> Done:
    return run_command("keys", "create", "--name", "first", "--scope", "admin", *more)


def test_a_key_in_the_database(run_command: RunCommand) -> None:
    made = create(run_command, "--expires-days", 1)
    assert made.code == 0
    assert made.output.startswith("wfe_")
    assert len(made.output.split()) == 1
    listed = run_command("keys", "list", "--json")
    [key] = listed.document["items"]
    assert (key["name"], key["scope"], key["revoked_at"]) == ("first", "admin", None)
    assert key["expires_at"] > key["created_at"]
    assert made.output.strip() not in listed.output
    assert made.errors.startswith(f"key {key['id']} of first, scope admin.")

    assert run_command("keys", "revoke", key["id"]).output == f"{key['id']} is revoked\n"
    [row] = [row for row in run_command("keys", "list").rows if row[0] == key["id"]]
    assert row[1:3] == ["first", "admin"]
    again = run_command("keys", "revoke", key["id"])
    assert (again.code, again.output) == (2, "")
    assert "could be revoked" in again.errors


def test_a_name_that_is_too_long(run_command: RunCommand) -> None:
    done = run_command("keys", "create", "--name", "x" * 300, "--scope", "read")
    assert (done.code, done.output) == (2, "")
    assert "name: " in done.errors


@pytest.fixture
async def guarded(
    run_command: RunCommand,
    start_runtime: Callable[..., Any],
    make_api: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The address of a server that asks for keys; `admin.key` is a file with one of scope admin."""
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "engine.db"))
    made = await asyncio.to_thread(create, run_command)
    await asyncio.to_thread((tmp_path / "admin.key").write_text, made.output)
    client = await make_api(await start_runtime(), keys_required=True)
    return str(client.server.make_url("")).rstrip("/")


async def test_keys_through_a_server(guarded: str, command: Command, tmp_path: Path) -> None:
    admin = ("--url", guarded, "--api-key-file", tmp_path / "admin.key")
    made = await command("keys", "create", "--name", "ci\x07", "--scope", "read", "--json", *admin)
    key = made.document
    assert (made.code, key["scope"], key["expires_at"]) == (0, "read", None)
    reader = tmp_path / "reader.key"
    await asyncio.to_thread(reader.write_text, key["key"])

    listed = await command("list", "--url", guarded, "--api-key-file", reader)
    assert listed.code == 0
    refused = await command("cancel", "x", "--url", guarded, "--api-key-file", reader)
    assert refused.code == 2
    assert "--api-key-file" in refused.errors

    table = await command("keys", "list", *admin)
    assert "ci\\x07" in table.output
    assert (await command("keys", "revoke", key["id"], *admin)).code == 0
    gone = await command("list", "--url", guarded, "--api-key-file", reader)
    assert gone.code == 2
    assert "revoked" in gone.errors


async def test_the_key_in_the_environment(
    guarded: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = await command("list", "--url", guarded)
    assert without.code == 2
    assert "WORKFLOW_ENGINE_API_KEY" in without.errors
    monkeypatch.setenv("WORKFLOW_ENGINE_API_KEY", await asyncio.to_thread((tmp_path / "admin.key").read_text))
    assert (await command("list", "--url", guarded)).code == 0


async def test_a_server_has_the_database(guarded: str, command: Command) -> None:
    done = await command("keys", "list")
    assert (done.code, done.output) == (1, "")
    assert "another process (pid " in done.errors
    assert "--url" in done.errors


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "\x80", "x" * 5000])
def test_a_file_that_holds_no_key(run_command: RunCommand, tmp_path: Path, text: str) -> None:
    file = tmp_path / "key"
    file.write_text(text, "latin-1")
    done = run_command("list", "--api-key-file", file)
    assert (done.code, done.output) == (2, "")
    assert "holds no API key" in done.errors


def test_a_key_file_that_is_not_there(run_command: RunCommand) -> None:
    done = run_command("list", "--api-key-file", "nowhere")
    assert (done.code, done.errors) == (2, "cannot read nowhere: No such file or directory\n")


def test_a_key_in_the_open(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_ENGINE_API_KEY", "wfe_x")
    done = run_command("list", "--url", "http://no-such-host.invalid")
    assert done.code == 3
    assert done.errors.startswith("warning: the API key goes to http://no-such-host.invalid in the open; use https\n")
    assert "wfe_x" not in done.errors


async def test_serve_says_when_there_is_no_key(serve: Callable[..., Awaitable[tuple[Process, str]]]) -> None:
    process, _ = await serve(API_KEYS_REQUIRED="true")
    await process.line("stdout", "API documentation: http://")
    assert "workflow-engine keys create --name admin --scope admin" in await process.line("stderr", "there is none")


async def test_serve_says_when_everybody_may_do_everything(
    serve: Callable[..., Awaitable[tuple[Process, str]]],
) -> None:
    process, _ = await serve("--host", "0.0.0.0", API_KEYS_REQUIRED="false")
    assert "0.0.0.0" in await process.line("stderr", "no API keys are asked for")
