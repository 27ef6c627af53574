"""The command line as a process of its own: exit codes, what goes to which stream, signals, hostile plugins."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from workflow_engine import __version__
from workflow_engine.config import Settings
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.store.sqlite import SqliteStore

Make = Callable[..., Awaitable[Any]]

PATIENCE_SECONDS = 60.0

HELLO = {"name": "hello", "dag": {"nodes": [{"id": "input", "handler": "input"}]}}

# Loaded by the processes under test through an entry point, as any installed plugin is.
PLUGIN = '''
import asyncio
import sys
import threading

from workflow_engine.plugins import handler, hookimpl


@handler("fail")
async def fail(config, context):
    raise ValueError("it went wrong")


@handler("hang")
async def hang(config, context):
    await asyncio.Event().wait()


@handler("swallow")
async def swallow(config, context):
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass


@handler("blocked_thread")
async def blocked_thread(config, context):
    await asyncio.to_thread(threading.Event().wait)


async def leave(how):
    raise how("a task of a handler")


@handler("exit_in_task")
async def exit_in_task(config, context):
    await asyncio.gather(leave({"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[config["how"]]))


@handler("meet")
async def meet(config, context):
    """Say that it has begun, and wait to be told how to go on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", config["port"])
    writer.write(b"begun\\n")
    answer = await reader.readline()
    writer.close()
    return answer.decode().strip()


@hookimpl
def workflow_engine_handlers():
    return [fail, hang, swallow, blocked_thread, exit_in_task, meet]
'''


class Process:
    """A running command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.stdout = b""
        self.stderr = b""

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def line(self, stream: str, containing: str) -> str:
        """Read on until a line contains that."""
        reader = getattr(self._process, stream)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while line := await reader.readline():
                setattr(self, stream, getattr(self, stream) + line)
                if containing in line.decode():
                    return str(line.decode())
        raise AssertionError(f"{stream} ended without {containing!r}: {self.stdout!r} {self.stderr!r}")

    async def end(self) -> int:
        """Wait for the end; the exit code."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            stdout, stderr = await self._process.communicate()
            self.stdout += stdout
            self.stderr += stderr
            assert self._process.returncode is not None
            return self._process.returncode

    @property
    def errors(self) -> str:
        return self.stderr.decode()

    @property
    def output(self) -> str:
        return self.stdout.decode()

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.communicate()


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of the commands: this one without the engine's settings, with a folder of its own for plugins."""
    ours = {name.upper() for name in Settings.model_fields}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(("HANDLER_TIMEOUT_", "COV_"))
    }
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    return {**kept, "PYTHONPATH": str(tmp_path / "plugins"), "TMPDIR": str(temporary), "PYTHONUTF8": "1"}


@pytest.fixture
async def start(tmp_path: Path, environment: dict[str, str]) -> AsyncIterator[Make]:
    """`await start("run", "x.json", LOG_LEVEL="DEBUG")`: a command in a folder of this test."""
    started: list[Process] = []

    async def start(*arguments: object, **variables: str) -> Process:
        process = Process(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "workflow_engine",
                *map(str, arguments),
                cwd=tmp_path,
                env=environment | variables,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        )
        started.append(process)
        return process

    yield start
    for process in started:
        await process.kill()


@pytest.fixture
def run(start: Make) -> Make:
    """`await run("--version")`: a command to its end; its exit code and what it wrote."""

    async def run(*arguments: object, **variables: str) -> tuple[int, str, str]:
        process = await start(*arguments, **variables)
        code = await process.end()
        # Of the command itself: the log indents the traces of handlers.
        assert "\nTraceback" not in "\n" + process.errors
        return code, process.output, process.errors

    return run


@pytest.fixture
def workflow_file(tmp_path: Path) -> Callable[..., Path]:
    """`workflow_file(nodes)` or `workflow_file(text=...)`: a file with a definition."""

    def write(*nodes: dict[str, Any], text: bytes | None = None, **more: Any) -> Path:
        file = tmp_path / "workflow.json"
        document = {"name": "a test", "dag": {"nodes": nodes}, **more}
        file.write_bytes(json.dumps(document).encode() if text is None else text)
        return file

    return write


@pytest.fixture
def install_plugin(tmp_path: Path) -> Callable[..., None]:
    """`install_plugin("name", source)`: a distribution "name-plugin" with one entry point, for the commands."""

    def install(name: str = "hostile", source: str = PLUGIN) -> None:
        folder = tmp_path / "plugins"
        information = folder / f"{name}_plugin-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text(f"[workflow_engine]\n{name} = {name}_plugin_module\n")
        (folder / f"{name}_plugin_module.py").write_text(source)

    return install


@pytest.fixture
def nothing_left(tmp_path: Path) -> Callable[[], list[str]]:
    """`nothing_left()`: what the commands have left in the folder for temporary files."""
    return lambda: [path.name for path in (tmp_path / "temporary").iterdir()]


class Meeting:
    """Where the handler "meet" reports: a server in this process."""

    def __init__(self, port: int, arrivals: asyncio.Queue[asyncio.StreamWriter]) -> None:
        self.port = port
        self._arrivals = arrivals

    async def begun(self) -> asyncio.StreamWriter:
        """Wait until an attempt has begun; write a line to it to end it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self._arrivals.get()


@pytest.fixture
async def meeting() -> AsyncIterator[Meeting]:
    """A place to meet the handler "meet"."""
    arrivals: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    open_writers: list[asyncio.StreamWriter] = []

    async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.append(writer)
        if await reader.readline() == b"begun\n":
            arrivals.put_nowait(writer)

    server = await asyncio.start_server(arrive, "127.0.0.1")
    async with server:
        yield Meeting(server.sockets[0].getsockname()[1], arrivals)
        for writer in open_writers:
            writer.close()


# --- the command itself ---------------------------------------------------------------------------------


async def test_version(run: Make) -> None:
    assert await run("--version") == (0, f"workflow-engine {__version__}\n", "")


async def test_version_does_not_need_sound_settings_or_plugins(run: Make, install_plugin: Callable[..., None]) -> None:
    install_plugin(source="raise RuntimeError('broken')")
    code, output, _ = await run("--version", API_PORT="many")
    assert (code, output) == (0, f"workflow-engine {__version__}\n")


async def test_without_a_command_it_says_what_there_is(run: Make) -> None:
    code, output, errors = await run()
    assert (code, output) == (2, "")
    assert "serve" in errors
    assert "run" in errors


@pytest.mark.parametrize("arguments", [["walk"], ["run"], ["serve", "--port", "many"], ["serve", "--speed", "1"]])
async def test_wrong_arguments(run: Make, arguments: list[str]) -> None:
    code, output, errors = await run(*arguments)
    assert (code, output) == (2, "")
    assert "usage: workflow-engine" in errors


# --- run ------------------------------------------------------------------------------------------------


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
    assert errors.startswith(f"plugin broken-plugin (entry point broken) cannot be loaded: {message}")


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


# --- serve ----------------------------------------------------------------------------------------------


@pytest.fixture
def serve(start: Make) -> Make:
    """`await serve()`: the process and the address of a server on a free port."""

    async def serve(*arguments: object, **variables: str) -> tuple[Process, str]:
        process = await start("serve", "--port", 0, *arguments, **variables)
        line = await process.line("stdout", "listening on")
        assert line.startswith(f"workflow-engine {__version__} listening on http://")
        return process, line.split()[-1]

    return serve


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client's session."""
    async with aiohttp.ClientSession() as session:
        yield session


async def trigger(http: aiohttp.ClientSession, address: str, *nodes: dict[str, Any]) -> str:
    document = {"name": "a test", "dag": {"nodes": nodes}}
    async with http.post(f"{address}/v1/workflow", json=document) as response:
        execution_id = str((await response.json())["execution_id"])
    async with http.post(f"{address}/v1/workflow/trigger/{execution_id}") as response:
        assert response.status == 200
    return execution_id


async def test_serve_answers_and_ends_at_a_signal(serve: Make, http: aiohttp.ClientSession, tmp_path: Path) -> None:
    process, address = await serve()
    async with http.get(f"{address}/v1/health") as response:
        assert (response.status, (await response.json())["version"]) == (200, __version__)
    execution_id = await trigger(http, address, {"id": "a", "handler": "input"})
    async with http.get(f"{address}/v1/workflows/{execution_id}/results?wait=60") as response:
        assert (await response.json())["state"] == "COMPLETED"
    process.signal(signal.SIGTERM)
    assert await process.end() == 0
    assert "Traceback" not in process.errors
    assert (tmp_path / "workflow-engine.db").exists()
    assert not (tmp_path / "workflow-engine.db-wal").exists(), "closed properly"


async def test_serve_finishes_what_runs_before_it_ends(
    serve: Make,
    http: aiohttp.ClientSession,
    tmp_path: Path,
    install_plugin: Callable[..., None],
    meeting: Meeting,
) -> None:
    install_plugin()
    process, address = await serve()
    nodes = [
        {"id": "meet", "handler": "meet", "config": {"port": meeting.port}},
        {"id": "next", "handler": "meet", "config": {"port": meeting.port}, "dependencies": ["meet"]},
    ]
    execution_id = await trigger(http, address, *nodes)
    attempt = await meeting.begun()
    waiting_reader, waiting_writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
    waiting_writer.write(f"GET /v1/workflows/{execution_id}/results?wait=300 HTTP/1.0\r\n\r\n".encode())
    await waiting_writer.drain()
    # An answer to what was sent later says that the server has read this one.
    async with http.get(f"{address}/v1/workflows/{execution_id}") as response:
        assert (await response.json())["node_states"] == {"meet": "RUNNING", "next": "PENDING"}
    process.signal(signal.SIGTERM)
    await process.line("stderr", "waiting for 1 running attempts, at most 30 s")
    answer = json.loads((await waiting_reader.read()).partition(b"\r\n\r\n")[2])
    assert (answer["state"], answer["output_data"]) == ("RUNNING", None)
    waiting_writer.close()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.get(f"{address}/v1/health")
    attempt.write(b"done\n")
    assert await process.end() == 0

    store = SqliteStore(tmp_path / "workflow-engine.db", SystemClock())
    await store.open()
    [loaded] = await store.load([execution_id])
    await store.close()
    recorded = [(row.node_id, row.attempt, row.state, row.output) for row in loaded.attempts]
    assert recorded == [("meet", 1, "COMPLETED", b'"done"')]
    assert loaded.record.state == "RUNNING"

    process, address = await serve()
    (await meeting.begun()).write(b"done too\n")
    async with http.get(f"{address}/v1/workflows/{execution_id}/results?wait=60") as response:
        assert (await response.json())["output_data"] == "done too"
    process.signal(signal.SIGINT)
    assert await process.end() == 0


async def test_serve_hands_back_what_does_not_finish_in_time(
    serve: Make,
    http: aiohttp.ClientSession,
    install_plugin: Callable[..., None],
    meeting: Meeting,
) -> None:
    install_plugin()
    process, address = await serve(WORKER_GRACEFUL_SHUTDOWN_TIMEOUT="0.05")
    execution_id = await trigger(
        http,
        address,
        {"id": "meet", "handler": "meet", "config": {"port": meeting.port}},
        {"id": "s", "handler": "swallow"},
    )
    await meeting.begun()
    process.signal(signal.SIGTERM)
    assert await process.end() == 0, "also with a handler that swallows cancellation"
    assert "Traceback" not in process.errors
    _, address = await serve()
    async with http.get(f"{address}/v1/workflows/{execution_id}") as response:
        assert (await response.json())["state"] == "RUNNING"
    await meeting.begun()


async def test_a_second_signal_ends_it_at_once(
    serve: Make, http: aiohttp.ClientSession, install_plugin: Callable[..., None], meeting: Meeting
) -> None:
    install_plugin()
    process, address = await serve()
    await trigger(http, address, {"id": "meet", "handler": "meet", "config": {"port": meeting.port}})
    await meeting.begun()
    process.signal(signal.SIGTERM)
    await process.line("stderr", "waiting for 1 running attempts")
    process.signal(signal.SIGTERM)
    assert await process.end() == 1


async def test_serve_on_a_port_that_is_taken(run: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, output, errors = await run("serve", "--port", port)
    assert (code, output) == (1, "")
    last = errors.splitlines()[-1]
    assert f"cannot listen on 127.0.0.1:{port}" in last
    assert "address already in use" in last
    assert "set API_HOST and API_PORT" in last


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 100, "256.256.256.256"])
async def test_serve_on_an_address_that_is_none(run: Make, host: str) -> None:
    code, output, errors = await run("serve", "--port", 0, "--host", host)
    assert (code, output) == (1, "")
    assert f"cannot listen on {host}:0" in errors.splitlines()[-1]


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
async def test_serve_on_an_ipv6_address(serve: Make, http: aiohttp.ClientSession) -> None:
    _, address = await serve("--host", "::1")
    assert address.startswith("http://[::1]:")
    async with http.get(f"{address}/v1/health") as response:
        assert response.status == 200


async def test_a_second_serve_on_the_same_database(serve: Make, run: Make, http: aiohttp.ClientSession) -> None:
    first, address = await serve()
    code, output, errors = await run("serve", "--port", 0)
    assert (code, output) == (1, "")
    last = errors.splitlines()[-1]
    assert "another process (pid " in last
    assert "SQLITE_PATH" in last
    async with http.get(f"{address}/v1/health") as response:
        assert response.status == 200, "the first one goes on"
    first.signal(signal.SIGTERM)
    assert await first.end() == 0


async def test_serve_on_a_file_that_is_no_database(run: Make, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is not a database, but long enough to be looked at" * 100)
    code, output, errors = await run("serve", "--port", 0, SQLITE_PATH="text.db")
    assert (code, output) == (1, "")
    assert "text.db: this file is not a sound SQLite database" in errors.splitlines()[-1]


async def test_serve_ends_when_somebody_else_has_taken_its_partition(
    serve: Make, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    process, address = await serve()
    with closing(sqlite3.connect(tmp_path / "workflow-engine.db")) as connection, connection:
        connection.execute("UPDATE partitions SET version = version + 1")
    await trigger(http, address, {"id": "a", "handler": "input"})
    assert await process.end() == 1
    assert "PartitionLost" in process.errors
    assert "never retrieved" not in process.errors


async def test_json_logs(serve: Make) -> None:
    process, _ = await serve(LOG_FORMAT="json", DEMO_MODE="true")
    process.signal(signal.SIGTERM)
    assert await process.end() == 0
    lines = [json.loads(line) for line in process.errors.splitlines()]
    assert [line["level"] for line in lines] == ["WARNING", "INFO"]
    assert lines[0]["message"].startswith("demo mode")
    assert lines[1]["message"] == "stopped"
