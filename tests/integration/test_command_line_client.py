"""The commands that talk to a server, against one that runs: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Done

from workflow_engine.plugins import NodeContext, handler

HELLO = {"name": "hello", "dag": {"nodes": [{"id": "only", "handler": "input"}]}}


Command = Callable[..., Awaitable[Done]]


@handler("refuse")
async def refuse(config: dict[str, Any], context: NodeContext) -> None:
    """Fail with a text that a terminal would act on."""
    raise ValueError("red \x1b[31m\u202etext")


@handler("wait_for_ever")
async def wait_for_ever(config: dict[str, Any], context: NodeContext) -> None:
    """Run until stopped."""
    await asyncio.Event().wait()


@pytest.fixture
async def address(start_runtime: Callable[..., Any], make_api: Callable[..., Any]) -> str:
    """The address of a server that runs."""
    client = await make_api(await start_runtime(handlers=[refuse, wait_for_ever], retry_max_retries=0))
    return str(client.server.make_url("")).rstrip("/")


@pytest.fixture
def command(address: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`await command("status", "x")`: a command at that server."""
    monkeypatch.setenv("WORKFLOW_ENGINE_URL", address)
    return command


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    """`file(definition)`: a file that holds it."""

    def write(document: Any) -> Path:
        path = tmp_path / "flow.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


@pytest.fixture
def submit(command: Command, file: Callable[..., Path]) -> Callable[..., Awaitable[str]]:
    """`await submit("wait_for_ever")`: the id of a PENDING execution of a node of that type."""

    async def run(node_type: str = "input") -> str:
        done = await command("submit", file({"name": "one", "dag": {"nodes": [{"id": "n", "handler": node_type}]}}))
        assert done.code == 0
        return done.output.strip()

    return run


async def test_submit_trigger_status_results(command: Command, file: Callable[..., Path]) -> None:
    submitted = await command("submit", file(HELLO))
    execution_id = submitted.output.strip()
    assert submitted.code == 0
    assert f"workflow-engine trigger {execution_id}" in submitted.errors

    pending = await command("results", execution_id)
    assert (pending.code, pending.output) == (4, "")
    assert pending.errors == f"{execution_id} is PENDING\n"

    triggered = await command("trigger", execution_id, "--input", "a=1", "--input", "b=x y")
    assert (triggered.code, triggered.output) == (0, f"{execution_id}\n")

    results = await command("results", execution_id, "--wait")
    assert (results.code, results.document) == (0, {"a": 1, "b": "x y"})

    status = await command("status", execution_id)
    assert status.code == 0
    assert f"{execution_id}  COMPLETED" in status.output
    assert ["only", "COMPLETED"] in [line.split() for line in status.output.splitlines()]


async def test_json_documents(command: Command, file: Callable[..., Path]) -> None:
    submitted = await command("submit", "--json", file(HELLO))
    execution_id = submitted.document["execution_id"]
    assert submitted.document["message"] == "Workflow submitted successfully"
    assert (await command("trigger", "--json", execution_id)).document["execution_id"] == execution_id
    results = await command("results", "--wait", "--json", execution_id)
    assert (results.document["state"], results.document["output_data"]) == ("COMPLETED", {})
    status = await command("status", "--json", "--follow", execution_id)
    assert status.document["node_states"] == {"only": "COMPLETED"}
    assert status.errors == "COMPLETED  only\n"


async def test_a_definition_from_standard_input(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(HELLO).encode())))
    assert (await command("submit", "-")).code == 0


async def test_what_fails_says_so_and_cannot_move_the_cursor(command: Command, submit: Any) -> None:
    execution_id = await submit("refuse")
    done = await command("trigger", execution_id, "--wait")
    assert (done.code, done.output) == (1, "")
    assert done.errors == "node n failed at attempt 1: ValueError: red \\x1b[31m\\u202etext\n"
    shown = await command("results", "--json", execution_id)
    assert (shown.code, shown.document["error"]["message"]) == (1, "red \x1b[31m\u202etext")
    status = await command("status", execution_id)
    for text in (shown.output, status.output, status.errors):
        assert "\x1b" not in text
        assert "\u202e" not in text


async def test_cancel_one(command: Command, submit: Any) -> None:
    pending = await submit("wait_for_ever")
    done = await command("cancel", pending)
    assert (done.code, done.output) == (0, f"{pending} is CANCELLED\n")
    again = await command("cancel", pending)
    assert again.code == 2
    assert f"execution {pending} is CANCELLED already" in again.errors

    running = await submit("wait_for_ever")
    await command("trigger", running)
    stopped = await command("cancel", "--json", running)
    assert (stopped.code, stopped.document["state"]) == (0, "RUNNING")
    assert (await command("results", running, "--wait")).code == 130


async def test_a_wait_that_is_too_short(command: Command, submit: Any) -> None:
    done = await command("trigger", await submit("wait_for_ever"), "--wait", "--timeout", "0.01")
    assert (done.code, done.output) == (4, "")
    assert "is RUNNING" in done.errors


async def test_timeout_without_wait(command: Command) -> None:
    done = await command("results", "x", "--timeout", "1")
    assert (done.code, done.errors) == (2, "--timeout goes with --wait\n")


async def test_a_definition_with_problems(command: Command, file: Callable[..., Path]) -> None:
    path = file('{"name": "x",\n "dag": {"nodes": [\n  {"id": "a", "handler": "inptu"}\n ]}}')
    done = await command("submit", path)
    assert (done.code, done.output) == (2, "")
    first, second = done.errors.splitlines()
    assert first == f"{path}: The workflow definition is not valid: 1 problem in the definition"
    assert second.startswith(f"  {path}:3: dag.nodes[0].handler: there is no handler 'inptu'; did you mean 'input'?")


async def test_an_execution_that_does_not_exist(command: Command) -> None:
    for verb in ("status", "results", "trigger", "cancel"):
        done = await command(verb, "../no\x07where")
        assert (done.code, done.output) == (2, "")
        assert "There is no such execution" in done.errors
        assert "\x07" not in done.errors


async def test_input_that_is_none(command: Command, submit: Any) -> None:
    done = await command("trigger", await submit(), "--input", "nothing")
    assert (done.code, done.errors) == (2, "--input 'nothing': write it as name=value\n")


async def test_start_and_wait(command: Command, submit: Any) -> None:
    await submit()
    done = await command("start", "one", "--input", "n=1", "--wait")
    assert (done.code, done.document) == (0, {"n": 1})
    started = await command("start", "one", "--version", 1, "--json")
    assert started.code == 0
    assert (await command("results", started.document["execution_id"], "--wait")).document == {}
    missing = await command("start", "one", "--version", 2)
    assert missing.code == 2
    assert "There is no such definition" in missing.errors


async def test_call_and_print_the_output(
    command: Command, file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await command("call", "input", "--field", "n=1", "--field", "text={{ x }}")
    assert (done.code, done.document) == (0, {"n": 1, "text": "{{ x }}"})
    path = file({"a": 1, "b": 2})
    done = await command("call", "input", "--config", f"@{path}", "--field", "b=3", "--json")
    assert (done.code, done.document["output_data"]) == (0, {"a": 1, "b": 3})
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"c": [1]}')))
    assert (await command("call", "input", "--config", "-")).document == {"c": [1]}
    assert (await command("call", "input")).document == {}


async def test_call_without_waiting(command: Command) -> None:
    called = await command("call", "wait_for_ever", "--no-wait", "--attempt-timeout", "0.05", "--max-retries", "0")
    assert (called.code, called.errors.startswith("started; follow it: ")) == (0, True)
    failed = await command("results", called.output.strip(), "--wait")
    assert (failed.code, "node call failed at attempt 1: timeout" in failed.errors) == (1, True)
    assert (await command("call", "wait_for_ever", "--timeout", "0.01")).code == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "There is no such function: no handler is called 'nothing'; there are call_external_service,"),
        (["call_external_service"], "url: is required; add it"),
        (["input", "--config", "[1]"], "--config: must be a JSON object"),
        (["input", "--config", "{"], "--config is not valid JSON: "),
        (["input", "--config", "@nowhere.json"], "cannot read nowhere.json: No such file or directory"),
        (["input", "--field", "n"], "--field 'n': write it as name=value"),
        (["input", "--no-wait", "--timeout", "1"], "--timeout does not go with --no-wait"),
        (["input", "--max-retries", "101"], "query.max_retries: must be at most 100"),
    ],
)
async def test_a_call_that_is_refused(command: Command, arguments: list[str], message: str) -> None:
    done = await command("call", *arguments)
    assert done.code == 2
    assert message in done.errors


async def test_why(command: Command, submit: Any) -> None:
    execution_id = await submit()
    done = await command("why", execution_id)
    assert done.code == 0
    assert done.output.splitlines()[1].split(maxsplit=2) == ["n", "PENDING", "waits for the execution to be triggered"]
    await command("trigger", execution_id, "--wait")
    assert (await command("why", execution_id, "--json")).document == {"items": []}
    [node] = (await command("why", execution_id, "n", "--json")).document["items"]
    assert (node["state"], node["waiting"]) == ("COMPLETED", None)
    missing = await command("why", execution_id, "m")
    assert (missing.code, "the execution has no node 'm'; there are n" in missing.errors) == (2, True)


async def test_a_call_that_fails(command: Command) -> None:
    done = await command("call", "refuse")
    assert (done.code, done.output) == (1, "")
    assert done.errors.startswith("node call failed at attempt 1: ValueError: red ")


async def test_list_by_filter_and_by_page(command: Command, submit: Any) -> None:
    ids = [await submit() for _ in range(3)]
    await command("trigger", ids[0], "--wait")
    table = await command("list")
    assert [row[0] for row in table.rows[1:]] == ids[::-1]
    assert table.rows[1][1:4] == ["PENDING", "one", "v1"]

    completed = await command("list", "--state", "COMPLETED", "--state", "FAILED", "--name", "one", "--json")
    assert [item["id"] for item in completed.document["items"]] == [ids[0]]
    assert (await command("list", "--name", "other", "--json")).document == {"items": [], "next_cursor": None}

    first = await command("list", "--limit", 2)
    assert [row[0] for row in first.rows[1:]] == ids[:0:-1]
    cursor = first.errors.strip().removeprefix("there are more: --cursor ")
    rest = await command("list", "--limit", 2, "--cursor", cursor)
    assert ([row[0] for row in rest.rows[1:]], rest.errors) == ([ids[0]], "")


async def test_a_list_of_several_pages(command: Command, submit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [await submit() for _ in range(5)]
    monkeypatch.setattr("workflow_engine.runtime.cli.pages.LARGEST_PAGE_ITEMS", 2)
    page = (await command("list", "--json", "--limit", 5)).document
    assert [item["id"] for item in page["items"]] == ids[::-1]


async def test_a_filter_that_the_server_refuses(command: Command) -> None:
    done = await command("list", "--created-from", "yesterday")
    assert (done.code, done.output) == (2, "")
    assert "query.created_from: " in done.errors


async def test_cancel_by_filter(command: Command, submit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pending, running, other = await submit(), await submit("wait_for_ever"), await submit()
    await command("trigger", running)
    await command("trigger", other, "--wait")
    for arguments in ([], ["--all", pending], ["--name", "one", pending]):
        assert (await command("cancel", *arguments)).code == 2

    monkeypatch.setattr("sys.stdin", io.StringIO())
    nobody = await command("cancel", "--name", "one")
    assert (nobody.code, nobody.errors) == (2, "nobody can be asked whether to cancel them all: add --yes\n")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    refused = await command("cancel", "--name", "one", "--state", "PENDING")
    assert refused.code == 2
    assert "with name one, states PENDING? [y/N]" in refused.errors
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert (await command("cancel", "--name", "one", "--state", "PENDING")).code == 0

    done = await command("cancel", "--all", "--yes", "--json")
    assert done.document == {"cancelled": 0, "requested": 1, "more": False}
    states = {item["id"]: item["state"] for item in (await command("list", "--json")).document["items"]}
    assert (states[pending], states[other]) == ("CANCELLED", "COMPLETED")
    assert (await command("results", running, "--wait")).code == 130


async def test_definitions(command: Command, file: Callable[..., Path], submit: Any) -> None:
    await submit()
    changed = {"name": "one", "dag": {"nodes": [{"id": "n", "handler": "output"}, {"id": "m", "handler": "input"}]}}
    added = await command("definitions", "add", file(changed))
    assert (added.code, added.output) == (0, "one version 2\n")
    assert (await command("definitions", "add", "--json", file(changed))).document["version"] == 2

    assert [row[:2] for row in (await command("definitions", "list")).rows[1:]] == [["one", "2"]]
    assert [row[1] for row in (await command("definitions", "versions", "one")).rows[1:]] == ["2", "1"]
    assert (await command("definitions", "show", "one")).document == changed
    first = (await command("definitions", "show", "one", "--version", 1, "--json")).document
    assert (first["version"], first["definition"]["dag"]["nodes"][0]["handler"]) == (1, "input")

    diff = await command("definitions", "diff", "one", 1, 2)
    lines = diff.output.splitlines()
    assert lines[0] == "+ node m"
    assert '"input" -> "output"' in lines[1]
    assert lines[1].endswith("(node n)")
    assert (await command("definitions", "diff", "one", 1, 2, "--json")).document["added_nodes"] == ["m"]
    bad = await command("definitions", "add", file({"name": "x", "dag": {"nodes": []}}))
    assert bad.code == 2
    assert "flow.json:1: dag.nodes" in bad.errors


async def test_handlers_of_the_server_and_of_here(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    there = await command("handlers")
    assert ["refuse", "Fail", "with", "a", "text", "that", "a", "terminal", "would", "act", "on.", "any"] in there.rows
    monkeypatch.delenv("WORKFLOW_ENGINE_URL")
    here = await command("handlers", "--json")
    names = [item["name"] for item in here.document["items"]]
    assert names == ["call_external_service", "input", "llm_service", "output"]
    table = await command("handlers")
    assert any(row[0] == "call_external_service" and "url*," in row for row in table.rows)


async def test_no_server(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKFLOW_ENGINE_URL", "http://127.0.0.1:1")
    done = await command("list")
    assert (done.code, done.output) == (3, "")
    assert "Is it running? workflow-engine serve starts one" in done.errors


async def test_an_interrupt_while_waiting(command: Command, submit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    execution_id = await submit()
    monkeypatch.setattr("workflow_engine.runtime.cli.waiting.read_results", interrupt)
    done = await command("trigger", execution_id, "--wait")
    assert (done.code, done.output) == (130, "")
    assert done.errors == f"the execution goes on: workflow-engine results --wait {execution_id}\n"


@pytest.fixture
async def losing_answers(address: str) -> AsyncIterator[str]:
    """The address of a way to the server on which the first two answers are lost."""
    lost = 2

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lost
        there, back = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        back.write(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + await reader.readexactly(length))
        answer = await there.read()
        if lost:
            lost -= 1
        else:
            writer.write(answer)
        writer.close()
        back.close()

    async with await asyncio.start_server(pass_on, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("verb", ["submit", "trigger", "start", "call"])
async def test_a_lost_answer_does_not_start_it_twice(
    command: Command, submit: Any, file: Callable[..., Path], losing_answers: str, verb: str
) -> None:
    execution_id = await submit()
    what: dict[str, object] = {"submit": file(HELLO), "trigger": execution_id, "start": "one", "call": "input"}
    done = await command(verb, what[verb], *["--no-wait"] * (verb == "call"), "--url", losing_answers, "--json")
    assert done.code == 0
    listed = (await command("list", "--json")).document["items"]
    assert listed[0]["id"] == done.document["execution_id"]
    assert len(listed) == (1 if verb == "trigger" else 2)


async def test_partitions_and_workers(command: Command, submit: Any) -> None:
    execution_id = await submit("wait_for_ever")
    assert (await command("trigger", execution_id)).code == 0

    partitions = await command("partitions")
    assert partitions.code == 0
    head, row = (line.split() for line in partitions.output.splitlines())
    assert head == ["partition", "owner", "version", "expires", "in", "unserved", "for"]
    [item] = (await command("partitions", "--json")).document["items"]
    assert row[:2] == ["0", item["owner"]]

    workers = await command("workers")
    assert workers.code == 0
    [line] = workers.output.splitlines()[1:]
    assert line.split()[:4] == [item["owner"], "yes", "0.0", "s"]
    assert "of 10" in line
    assert "wait_for_ever" in line
    [worker] = (await command("workers", "--json")).document["items"]
    assert (worker["id"], worker["partitions"]) == (item["owner"], 1)


@pytest.mark.parametrize("verb", ["requeue", "discard"])
async def test_a_lost_answer_deals_with_a_dead_letter_once(
    command: Command, submit: Any, losing_answers: str, verb: str
) -> None:
    execution_id = await submit("refuse")
    await command("trigger", execution_id, "--wait")
    done = await command("dead-letters", verb, execution_id, "--url", losing_answers, "--json")
    assert done.code == 0
    listed = (await command("list", "--json")).document["items"]
    assert len(listed) == (2 if verb == "requeue" else 1)
    if verb == "requeue":
        assert (listed[0]["id"], listed[0]["retry_of"]) == (done.document["execution_id"], execution_id)
