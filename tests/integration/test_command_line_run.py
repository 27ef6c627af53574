"""`run` as a process of its own: exit codes, what goes to which stream, signals, hostile plugins."""

from __future__ import annotations

import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Process

Make = Callable[..., Awaitable[Any]]

HELLO = {"name": "hello", "dag": {"nodes": [{"id": "input", "handler": "input"}]}}


async def test_run_prints_the_result_and_nothing_else(
    run: Make, workflow_file: Callable[..., Path], nothing_left: Callable[[], list[str]], tmp_path: Path
) -> None:
    file = workflow_file(
        {"id": "first", "handler": "input"}, {"id": "last", "handler": "output", "dependencies": ["first"]}
    )
    inputs = ["n=1", "text=a = b", 'list=[1, {"x": null}]', 'quoted="1"', "empty=", "word=NaN", "umlaut=ä€😀"]
    code, output, errors = await run("run", file, *(f"--input={each}" for each in inputs))
    assert code == 0
    parameters = {
        "n": 1,
        "text": "a = b",
        "list": [1, {"x": None}],
        "quoted": "1",
        "empty": "",
        "word": "NaN",
        "umlaut": "ä€😀",
    }
    assert json.loads(output) == {"first": parameters}
    assert "ä€😀" in output
    reported = [line.split()[2:] for line in errors.splitlines()]
    assert ["COMPLETED", "first"] in reported
    assert ["COMPLETED", "last"] in reported
    assert reported[-1] == ["COMPLETED"]
    assert nothing_left() == []
    assert not (tmp_path / "workflow-engine.db").exists()


async def test_run_in_demo_mode(run: Make, workflow_file: Callable[..., Path]) -> None:
    file = workflow_file({"id": "ask", "handler": "llm_service", "config": {"prompt": "Summarize: all", "model": "m"}})
    code, output, _ = await run("run", "--demo", file)
    assert (code, json.loads(output)["mocked"]) == (0, True)


async def test_run_that_fails(
    run: Make, workflow_file: Callable[..., Path], install_plugin: Callable[..., None]
) -> None:
    install_plugin()
    code, output, errors = await run("run", workflow_file({"id": "bad", "handler": "fail"}))
    assert (code, output) == (1, "")
    assert "node bad failed at attempt 1: ValueError: it went wrong" in errors.splitlines()


async def test_run_as_json(run: Make, workflow_file: Callable[..., Path], install_plugin: Callable[..., None]) -> None:
    install_plugin()
    code, output, _ = await run("run", "--json", workflow_file({"id": "good", "handler": "input"}), "--input", "a=1")
    done = json.loads(output)
    assert (code, done["state"], done["output_data"], done["error"]) == (0, "COMPLETED", {"a": 1}, None)
    code, output, _ = await run("run", "--json", workflow_file({"id": "bad", "handler": "fail"}))
    failed = json.loads(output)
    assert (code, failed["state"], failed["output_data"]) == (1, "FAILED", None)
    assert (failed["error"]["node_id"], failed["error"]["message"]) == ("bad", "it went wrong")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"name": ', "is not valid JSON: Expecting value at line 1 column 10"),
        (b'{"name": "a", "name": "b"}', "is not valid JSON: the key 'name' stands twice"),
        (b"\xff", "is not valid JSON: not valid UTF-8"),
        (b"[" * 100_000, "is not valid JSON: nested deeper than 64 levels"),
        (b"[]", "$: must be an object"),
        (json.dumps({**HELLO, "nmae": 1}).encode(), "nmae: unknown key; did you mean 'name'?"),
        (b'{"name": "a", "dag": {"nodes": [{"id": "a", "handler": "inptu"}]}}', "dag.nodes[0].handler: there is no"),
        (json.dumps({**HELLO, "description": "x" * 5_000_000}).encode(), "The payload is too large"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_run_of_a_file_that_is_not_valid(
    run: Make, workflow_file: Callable[..., Path], text: bytes, message: str
) -> None:
    code, output, errors = await run("run", workflow_file(text=text))
    assert (code, output) == (2, "")
    assert message in errors


@pytest.mark.parametrize(("name", "message"), [("missing.json", "No such file"), (".", "Is a directory")])
async def test_run_of_a_file_that_cannot_be_read(run: Make, name: str, message: str) -> None:
    code, output, errors = await run("run", name)
    assert (code, output) == (2, "")
    assert f"cannot read {name}: {message}" in errors


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["novalue"], "--input 'novalue': write it as name=value"),
        (["=1"], "--input '=1': write it as name=value"),
        (["a=1", "a=2"], "--input 'a' is given twice"),
        (["age=old"], "input_params.age: 'old' is not of type 'integer'"),
    ],
)
async def test_run_with_bad_input(
    run: Make, workflow_file: Callable[..., Path], inputs: list[str], message: str
) -> None:
    file = workflow_file({"id": "a", "handler": "input"}, input_schema={"properties": {"age": {"type": "integer"}}})
    code, output, errors = await run("run", file, *(f"--input={each}" for each in inputs))
    assert (code, output) == (2, "")
    assert message in errors


async def test_run_ends_although_a_handler_swallows_its_timeout(
    run: Make,
    workflow_file: Callable[..., Path],
    install_plugin: Callable[..., None],
    nothing_left: Callable[[], list[str]],
) -> None:
    install_plugin()
    node = {"id": "bad", "handler": "swallow", "timeout_seconds": 0.05, "retry_config": {"max_retries": 0}}
    code, output, errors = await run("run", workflow_file(node))
    assert (code, output) == (1, "")
    assert "node bad failed at attempt 1: timeout: the attempt took longer than 0.05 seconds" in errors
    assert nothing_left() == []


async def test_run_ends_although_a_handler_blocks_a_thread(
    run: Make,
    workflow_file: Callable[..., Path],
    install_plugin: Callable[..., None],
    nothing_left: Callable[[], list[str]],
) -> None:
    install_plugin()
    node = {"id": "bad", "handler": "blocked_thread", "timeout_seconds": 0.05, "retry_config": {"max_retries": 0}}
    code, output, errors = await run("run", workflow_file(node))
    assert (code, output) == (1, "")
    assert "node bad failed at attempt 1: timeout" in errors
    assert nothing_left() == []


@pytest.mark.parametrize("how", ["SystemExit", "KeyboardInterrupt"])
async def test_a_task_of_a_handler_cannot_end_the_process(
    run: Make, workflow_file: Callable[..., Path], install_plugin: Callable[..., None], how: str
) -> None:
    install_plugin()
    node = {"id": "bad", "handler": "exit_in_task", "config": {"how": how}, "retry_config": {"max_retries": 0}}
    code, output, errors = await run("run", workflow_file(node))
    assert (code, output) == (1, "")
    assert f"node bad failed at attempt 1: {how}: a task of a handler" in errors


@pytest.fixture
def cancel_by(
    start: Make, workflow_file: Callable[..., Path], install_plugin: Callable[..., None]
) -> Callable[..., Awaitable[Process]]:
    """`await cancel_by(signal.SIGINT, "hang")`: run a workflow of that handler, interrupted by a signal, to its end."""

    async def cancel(number: signal.Signals, handler: str) -> Process:
        install_plugin()
        process: Process = await start("run", workflow_file({"id": "slow", "handler": handler}))
        await process.line("stderr", "RUNNING    slow")
        process.signal(number)
        assert await process.end() == 130
        return process

    return cancel


@pytest.mark.parametrize(
    ("handler", "number"), [("hang", signal.SIGINT), ("hang", signal.SIGTERM), ("swallow", signal.SIGINT)]
)
async def test_a_signal_cancels_what_runs(
    cancel_by: Make, nothing_left: Callable[[], list[str]], handler: str, number: signal.Signals
) -> None:
    process = await cancel_by(number, handler)
    assert process.output == ""
    assert "CANCELLED  slow" in process.errors
    assert "Traceback" not in process.errors
    assert nothing_left() == []


async def test_a_signal_before_anything_runs(
    start: Make, workflow_file: Callable[..., Path], install_plugin: Callable[..., None]
) -> None:
    source = "import signal, sys\nprint('importing', file=sys.stderr, flush=True)\nsignal.pause()\n"
    install_plugin(source=source)
    process = await start("run", workflow_file({"id": "a", "handler": "input"}))
    await process.line("stderr", "importing")
    process.signal(signal.SIGINT)
    assert await process.end() == 130
    assert "Traceback" not in process.errors


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "SyntaxError: "),
        ("import sys\nsys.exit('not here')", "SystemExit: not here"),
    ],
)
async def test_a_plugin_that_cannot_be_loaded(
    run: Make, workflow_file: Callable[..., Path], install_plugin: Callable[..., None], source: str, message: str
) -> None:
    install_plugin("broken", source)
    code, output, errors = await run("run", workflow_file({"id": "a", "handler": "input"}))
    assert (code, output) == (2, "")
    origin = "plugin broken-plugin 1.0 (entry point broken = broken_plugin_module)"
    assert errors.startswith(f"{origin} cannot be loaded: {message}")
    assert "PLUGINS_ON_ERROR=skip" in errors


@pytest.mark.parametrize("command", ["run", "serve"])
@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("WORKER_CONCURRENCY=0", "WORKER_CONCURRENCY: must be a whole number from 1 to 10000, got '0'"),
        ("RETRY_MAX_DELAY=soon", "RETRY_MAX_DELAY: must be a number from 0 to 2592000, got 'soon'"),
        ("HANDLER_TIMEOUT_INPUT=-1", "HANDLER_TIMEOUT_INPUT: must be a number of seconds above 0"),
        ("FAILPOINTS=nonsense", "FAILPOINTS: 'nonsense' is not of the form"),
    ],
)
async def test_a_bad_environment_variable_is_named(
    run: Make, workflow_file: Callable[..., Path], command: str, variable: str, message: str
) -> None:
    name, _, value = variable.partition("=")
    arguments = [workflow_file({"id": "a", "handler": "input"})] if command == "run" else []
    code, output, errors = await run(command, *arguments, **{name: value})
    assert (code, output) == (2, "")
    assert errors.startswith(message)
    assert len(errors.splitlines()) == 1
