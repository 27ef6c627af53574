"""The commands that talk to a server, against one that runs: what they print, and their exit codes."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from workflow_engine.plugins import NodeContext, handler
from workflow_engine.runtime.cli.main import main

HELLO = {"name": "hello", "dag": {"nodes": [{"id": "only", "handler": "input"}]}}


class Done(NamedTuple):
    """What a command came to."""

    code: int
    output: str
    errors: str

    @property
    def document(self) -> Any:
        return json.loads(self.output)


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
def command(address: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`await command("status", "x")`: a command at that server, in this process."""
    monkeypatch.setenv("WORKFLOW_ENGINE_URL", address)
    monkeypatch.delenv("WORKFLOW_ENGINE_API_KEY", raising=False)

    async def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = await asyncio.to_thread(main, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


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
