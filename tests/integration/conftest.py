"""Fixtures for tests that speak HTTP (servers, names that resolve, handlers' contexts) or run the whole engine."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from api_client import Gate
from commands import PLUGIN, Done, Meeting, Process
from postgres_server import PostgresServer

from workflow_engine import __version__
from workflow_engine.config import Settings, load_settings
from workflow_engine.handlers.external_service import call_external_service
from workflow_engine.handlers.external_service_config import ExternalServiceConfig
from workflow_engine.plugins import Handler, NodeContext, hookimpl
from workflow_engine.runtime.api.app import build_app
from workflow_engine.runtime.api.options import ApiOptions, HealthSources
from workflow_engine.runtime.api.server import ApiRunner
from workflow_engine.runtime.broker import Broker
from workflow_engine.runtime.cli.api import health_sources
from workflow_engine.runtime.cli.main import main
from workflow_engine.runtime.clock import Clock, SystemClock
from workflow_engine.runtime.core.machine import AttemptRow
from workflow_engine.runtime.core.state import WorkflowState
from workflow_engine.runtime.ports import Store
from workflow_engine.runtime.process import Runtime
from workflow_engine.runtime.worker.egress import create_session
from workflow_engine.runtime.worker.tools import make_tools, no_secrets

Make = Callable[..., Awaitable[Any]]
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Long enough for anything that ends by itself; whoever sees it pass has found a fault.
LONG_SECONDS = 60.0


@pytest.fixture
async def make_context() -> AsyncIterator[Callable[..., NodeContext]]:
    """`make_context(allow_private=True)`: an attempt's context with the engine's own session."""
    async with AsyncExitStack() as sessions:
        opened = {
            allow_private: await sessions.enter_async_context(create_session(allow_private=allow_private))
            for allow_private in (True, False)
        }

        def make(*, allow_private: bool = True) -> NodeContext:
            return NodeContext(
                execution_id="execution-1",
                node_id="fetch",
                handler="fetches",
                attempt=2,
                timeout_seconds=60.0,
                input_text=b"{}",
                dependency_outputs=list,
                services=make_tools(
                    http=lambda: opened[allow_private], secret=no_secrets, clock=SystemClock(), max_output_bytes=1000
                ).services,
            )

        yield make


@pytest.fixture
def call_service(make_context: Callable[..., NodeContext]) -> Callable[..., Awaitable[Any]]:
    """`await call_service(url=...)`: what one attempt of `call_external_service` returns or raises."""

    async def call(*, allow_private: bool = True, **config: Any) -> Any:
        model = ExternalServiceConfig.model_validate(config | {"url": str(config["url"])})
        return await call_external_service.run(model, make_context(allow_private=allow_private))

    return call


@pytest.fixture
def make_server(aiohttp_server: Callable[..., Any]) -> Callable[..., Awaitable[TestServer]]:
    """`await make_server(answer)`: a server on the loopback address, the same for each method and path.

    Instead of `answer`, the arguments of `web.Response` may be given.
    """

    async def make(answer: Answer | None = None, **response: Any) -> TestServer:
        async def respond(_request: web.Request) -> web.StreamResponse:
            return web.Response(**response)

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", answer or respond)
        server: TestServer = await aiohttp_server(application)
        return server

    return make


@pytest.fixture
async def make_raw_server() -> AsyncIterator[Callable[[bytes], Awaitable[str]]]:
    """`await make_raw_server(b"...")`: the URL of a server that answers each request with these bytes.

    Without any it keeps the client waiting.
    """
    async with AsyncExitStack() as servers:

        async def make(answer: bytes) -> str:
            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                if not answer:
                    await reader.read()
                writer.close()
                await writer.wait_closed()

            server = await servers.enter_async_context(await asyncio.start_server(serve, "127.0.0.1"))
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"

        yield make


@pytest.fixture
def host_addresses(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """`host_addresses["one.test"] = ["127.0.0.1"]`: what names resolve to; other names as usual."""
    addresses: dict[str, list[str]] = {}
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *arguments: Any, **options: Any) -> list[Any]:
        if host not in addresses:
            return resolve(host, port, *arguments, **options)
        return [information(address, port) for address in addresses[host]]

    def information(address: str, port: Any) -> tuple[Any, ...]:
        if ":" in address:
            return (socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0))
        return (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return addresses


class Ended(NamedTuple):
    """An execution that has ended, as the engine and the store tell it."""

    execution_id: str
    state: WorkflowState
    output: Any
    error: Any
    attempts: Sequence[AttemptRow]

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The recorded errors, in the order of the attempts."""
        return [json.loads(row.error) for row in self.attempts if row.error is not None]

    @property
    def summary(self) -> list[tuple[str, int, str]]:
        """(node, attempt, state) of each recorded attempt."""
        return [(row.node_id, row.attempt, str(row.state)) for row in self.attempts]


class HandlersPlugin:
    """A plugin that registers the handlers it is given."""

    def __init__(self, handlers: Iterable[Handler]) -> None:
        self._handlers = tuple(handlers)

    @hookimpl
    def workflow_engine_handlers(self) -> Iterable[Handler]:
        return self._handlers


@pytest.fixture
async def running_runtimes() -> AsyncIterator[list[Runtime]]:
    """The runtimes that run; what a test leaves running is stopped at its end."""
    running: list[Runtime] = []
    yield running
    for runtime in reversed(running):
        await runtime.stop()


@pytest.fixture
def start_runtime(tmp_path: Path, running_runtimes: list[Runtime]) -> Callable[..., Awaitable[Runtime]]:
    """`await start_runtime(handlers=[...], retry_max_retries=0)`: a whole runtime on one file of this test.

    It has the built-in handlers too. Keywords are settings; running attempts get no time at shutdown.
    """

    async def start(
        *,
        handlers: Iterable[Handler] = (),
        plugins: Iterable[object] = (),
        clock: Clock | None = None,
        store: Store | None = None,
        broker: Broker | None = None,
        **settings: Any,
    ) -> Runtime:
        defaults = {"sqlite_path": tmp_path / "engine.db", "worker_graceful_shutdown_timeout": 0}
        loaded = load_settings(defaults | settings)
        given = [HandlersPlugin(handlers), *plugins]
        runtime = Runtime(loaded, clock=clock, store=store, broker=broker, plugins=given)
        running_runtimes.append(runtime)
        await runtime.start()
        return runtime

    return start


@pytest.fixture
def start_postgres_runtime(
    postgres_server: PostgresServer, start_runtime: Callable[..., Awaitable[Runtime]]
) -> Callable[..., Awaitable[Runtime]]:
    """The same on a PostgreSQL database of this test."""
    given = postgres_server.settings(postgres_server.create_database())

    async def start(**settings: Any) -> Runtime:
        return await start_runtime(**given | settings)

    return start


@pytest.fixture
def stop_runtime(running_runtimes: list[Runtime]) -> Callable[[Runtime], Awaitable[None]]:
    """`await stop_runtime(runtime)`: stop a runtime of `start_runtime` before the test ends."""

    async def stop(runtime: Runtime) -> None:
        running_runtimes.remove(runtime)
        await runtime.stop()

    return stop


class ApiServer(TestServer):
    """A server of the API on a free port, as `serve` runs it."""

    def __init__(self, app: web.Application, request_timeout_seconds: float) -> None:
        super().__init__(app)
        self._request_timeout_seconds = request_timeout_seconds

    async def _make_runner(self, **options: Any) -> ApiRunner:
        return ApiRunner(self.app, request_timeout_seconds=self._request_timeout_seconds, **options)


@pytest.fixture
def make_api(aiohttp_client: Callable[..., Any]) -> Callable[..., Awaitable[TestClient[Any, Any]]]:
    """`await make_api(runtime, keys_required=True)`: a client of the API over a runtime. Keywords are options."""

    async def make(runtime: Runtime, health: HealthSources | None = None, **options: Any) -> TestClient[Any, Any]:
        app = build_app(
            runtime.engine,
            health=health or health_sources(runtime),
            clock=runtime.clock,
            version="1.2.3",
            options=(made := ApiOptions(**options)),
        )
        server = ApiServer(app, made.request_timeout_seconds)
        client: TestClient[Any, Any] = await aiohttp_client(server)
        return client

    return make


@pytest.fixture
async def gate() -> Gate:
    """The gate of this test's runtime."""
    return Gate()


@pytest.fixture
async def runtime(start_runtime: Make, gate: Gate) -> Runtime:
    """A runtime in demo mode whose mocks take no time."""
    started: Runtime = await start_runtime(handlers=[gate.handler], demo_mode=True)
    return started


@pytest.fixture
async def client(make_api: Make, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> TestClient[Any, Any]:
    """A client of its API."""

    async def no_sleep(_seconds: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr("workflow_engine.handlers.demo.sleep", no_sleep)
    made: TestClient[Any, Any] = await make_api(runtime)
    return made


@pytest.fixture
def end_of() -> Callable[[Runtime, str], Awaitable[Ended]]:
    """`await end_of(runtime, execution_id)`: wait for an execution's end and read everything of it."""

    async def wait(runtime: Runtime, execution_id: str) -> Ended:
        results = await runtime.engine.results(execution_id, LONG_SECONDS)
        [loaded] = await runtime.store.load([execution_id])
        output = None if results.output_text is None else json.loads(results.output_text)
        return Ended(execution_id, results.state, output, results.error, loaded.attempts)

    return wait


@pytest.fixture
def start_workflow() -> Callable[..., Awaitable[str]]:
    """`await start_workflow(runtime, nodes, parameters)`: submit and trigger; returns the execution's id."""

    async def start(runtime: Runtime, nodes: Sequence[dict[str, Any]], parameters: Any = None, **more: Any) -> str:
        submitted = await runtime.engine.submit({"name": "a test", "dag": {"nodes": list(nodes)}, **more})
        return await runtime.engine.trigger(submitted.execution_id, parameters)

    return start


@pytest.fixture
def run_workflow(
    start_workflow: Callable[..., Awaitable[str]], end_of: Callable[..., Awaitable[Ended]]
) -> Callable[..., Awaitable[Ended]]:
    """`await run_workflow(runtime, nodes, parameters)`: the same, to its end."""

    async def run(runtime: Runtime, *arguments: Any, **more: Any) -> Ended:
        return await end_of(runtime, await start_workflow(runtime, *arguments, **more))

    return run


# --- commands -----------------------------------------------------------------------------------------


@pytest.fixture
def run_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """`run_command("migrate", "status")`: a command in this process, in a folder of this test, without settings."""
    ours = ("HANDLER_TIMEOUT_", "STALE_TIMEOUT_", "WORKFLOW_ENGINE_")
    for name in list(os.environ):
        if name.lower() in Settings.model_fields or name.startswith(ours):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture
def command(run_command: Callable[..., Done]) -> Make:
    """`await command("status", "x")`: the same beside a server that this process runs."""

    async def run(*arguments: object) -> Done:
        return await asyncio.to_thread(run_command, *arguments)

    return run


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of the commands: this one without the engine's settings, with a folder of its own for plugins."""
    ours = {name.upper() for name in Settings.model_fields}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(("HANDLER_TIMEOUT_", "WORKFLOW_ENGINE_", "COV_"))
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
async def http() -> AsyncIterator[ClientSession]:
    """A client's session."""
    async with ClientSession() as session:
        yield session
