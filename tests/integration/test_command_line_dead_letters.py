"""The command `dead-letters`, against a server that runs."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from api_client import Client, Make, results, submit, trigger
from commands import Done
from fragile import FRAGILE, Fragile

Command = Callable[..., Awaitable[Done]]


class Terminal(io.StringIO):
    """Somebody who answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
async def fragile() -> Fragile:
    """The handlers of this test's server."""
    return Fragile()


@pytest.fixture
async def client(start_runtime: Make, make_api: Make, fragile: Fragile) -> Client:
    """A client of a server whose workflow fails until it is mended."""
    made: Client = await make_api(await start_runtime(handlers=fragile.handlers))
    return made


@pytest.fixture
def command(client: Client, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`await command("list")`: a verb of the command at that server."""
    monkeypatch.setenv("WORKFLOW_ENGINE_URL", str(client.server.make_url("")).rstrip("/"))

    async def run(*arguments: object) -> Done:
        return await command("dead-letters", *arguments)

    return run


@pytest.fixture
def fail(client: Client) -> Callable[..., Awaitable[str]]:
    """`await fail("name")`: the id of a new dead letter."""

    async def make(name: str = "fragile") -> str:
        execution_id = await submit(client, {**FRAGILE, "name": name})
        await trigger(client, execution_id, input_params={"n": 1})
        assert (await results(client, execution_id))["state"] == "FAILED"
        return execution_id

    return make


async def listed(command: Command, *arguments: object) -> list[str]:
    return [item["id"] for item in (await command("list", "--json", *arguments)).document["items"]]


async def test_list(command: Command, fail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = [await fail(), await fail("other"), await fail()]
    table = await command("list")
    assert [row[0] for row in table.rows[1:]] == letters[::-1]
    assert table.rows[1][1:5] == ["fragile", "v1", "thing", "fragile_thing"]
    assert await listed(command, "--name", "other") == letters[1:2]
    assert await listed(command, "--error-type", "fragile") == []
    assert await listed(command, "--error-type", "fragile_thing", "--name", "fragile") == [letters[2], letters[0]]

    first = await command("list", "--limit", 2)
    cursor = first.errors.strip().removeprefix("there are more: --cursor ")
    assert await listed(command, "--cursor", cursor) == letters[:1]
    monkeypatch.setattr("workflow_engine.runtime.cli.pages.LARGEST_PAGE_ITEMS", 2)
    assert await listed(command) == letters[::-1]


async def test_show(command: Command, fail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    letter = await fail()
    shown = await command("show", letter)
    assert shown.code == 0
    assert shown.rows[0] == [letter, "FAILED", "fragile", "v1"]
    assert [row[:3] for row in shown.rows[-2:]] == [["thing", "1", "FAILED"], ["first", "1", "COMPLETED"]]
    assert shown.rows[-2][-2:] == ["fragile_thing:", "broken"]
    assert shown.errors == "node thing failed at attempt 1: fragile_thing: broken\n"

    first = await command("show", letter, "--limit", 1)
    assert [row[0] for row in first.rows[-2:]] == ["node", "thing"]
    cursor = first.errors.splitlines()[-1].removeprefix("there are more: --cursor ")
    rest = (await command("show", letter, "--json", "--cursor", cursor)).document
    assert (rest["id"], rest["error"]["node_id"]) == (letter, "thing")
    assert [each["node_id"] for each in rest["attempts"]] == ["first"]
    monkeypatch.setattr("workflow_engine.runtime.cli.pages.LARGEST_PAGE_ITEMS", 1)
    whole = (await command("show", letter, "--json")).document
    assert [each["node_id"] for each in whole["attempts"]] == ["thing", "first"]


async def test_requeue_one(command: Command, client: Client, fail: Any, fragile: Fragile) -> None:
    letter = await fail()
    again = await command("requeue", letter, "--wait")
    assert (again.code, again.output) == (1, "")
    [second] = await listed(command)
    shown = await command("show", second)
    assert ["retry", "of", letter] in shown.rows

    fragile.mended = True
    done = await command("requeue", second)
    execution_id = done.output.strip()
    assert done.code == 0
    assert f"workflow-engine status --follow {execution_id}" in done.errors
    assert (await results(client, execution_id))["output_data"] == {"first": "first", "thing": {"n": 1}}
    assert fragile.attempted(execution_id) == {"thing": 1}
    refused = await command("requeue", second)
    assert (refused.code, refused.output) == (2, "")
    assert f"execution {second} was requeued as {execution_id}" in refused.errors


async def test_requeue_and_wait_for_the_results(command: Command, fail: Any, fragile: Fragile) -> None:
    letter = await fail()
    fragile.mended = True
    done = await command("requeue", letter, "--wait", "--json")
    assert (done.code, done.document["state"]) == (0, "COMPLETED")
    other = await command("requeue", "--all", "--wait")
    assert (other.code, other.errors) == (2, "--wait goes with the ID of one dead letter\n")


async def test_discard_one(command: Command, fail: Any) -> None:
    letter = await fail()
    done = await command("discard", letter)
    assert (done.code, done.output) == (0, f"{letter} is discarded\n")
    assert await listed(command) == []
    again = await command("discard", letter, "--json")
    assert (again.code, again.document) == (0, {"execution_id": letter, "discarded": True})
    gone = await command("show", letter)
    assert (gone.code, gone.output) == (2, "")
    assert f"There is no such dead letter: execution {letter} was discarded" in gone.errors


async def test_many_by_filter(command: Command, fail: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow_engine.runtime.cli.commands.dead_letters.AT_ONCE", 2)
    mine, others = {await fail() for _ in range(5)}, [await fail("other") for _ in range(3)]
    done = await command("requeue", "--name", "fragile", "--error-type", "fragile_thing", "--yes")
    assert (done.code, done.output) == (0, "5 requeued\n")
    assert mine.isdisjoint(await listed(command))

    done = await command("discard", "--name", "other", "--yes", "--json")
    assert (done.code, done.document) == (0, {"discarded": 3})
    assert set(others).isdisjoint(await listed(command))
    assert (await command("discard", "--name", "nobody", "--yes")).output == "0 discarded\n"


@pytest.mark.parametrize("verb", ["requeue", "discard"])
async def test_many_are_dealt_with_when_that_is_what_is_wanted(
    command: Command, fail: Any, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    letter = await fail()
    for arguments in ([], ["--all", letter], ["--name", "fragile", letter]):
        assert (await command(verb, *arguments)).code == 2

    monkeypatch.setattr("sys.stdin", io.StringIO())
    nobody = await command(verb, "--all")
    assert (nobody.code, nobody.errors) == (2, f"nobody can be asked whether to {verb} them all: add --yes\n")
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    refused = await command(verb, "--error-type", "fragile_thing")
    assert refused.code == 2
    assert f"{verb.capitalize()} every dead letter with error_type fragile_thing? [y/N]" in refused.errors
    assert await listed(command) == [letter]
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert (await command(verb, "--all")).code == 0
    assert letter not in await listed(command)


async def test_what_is_not_there(command: Command) -> None:
    for verb in ("show", "requeue", "discard"):
        done = await command(verb, "../no\x07where")
        assert (done.code, done.output) == (2, "")
        assert "There is no such execution" in done.errors
        assert "\x07" not in done.errors


async def test_a_filter_that_the_server_refuses(command: Command) -> None:
    for done in (
        await command("list", "--created-from", "yesterday"),
        await command("discard", "--created-from", "yesterday", "--yes"),
    ):
        assert (done.code, done.output) == (2, "")
        assert "created_from: " in done.errors
