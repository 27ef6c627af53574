"""`workflow-engine run FILE`: one workflow, embedded, with progress on stderr and the result on stdout."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...config import Settings, load_settings
from ...observability.logs import configure_logging
from ..core.json_text import InvalidJson, decode
from ..core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from ..engine import Engine, ExecutionResults
from ..process import Runtime, running
from .errors import CANCELLED, FAILURE, UsageError, check_failpoints, report, warn_of_settings
from .event_loop import run_to_end

REFRESH_SECONDS = 1.0

_EXIT_CODES = {WorkflowState.COMPLETED: 0, WorkflowState.FAILED: FAILURE, WorkflowState.CANCELLED: CANCELLED}


def run_file(file: Path, inputs: Sequence[str], *, demo: bool) -> int:
    """Run the workflow in `file` with `inputs` ("name=value"); returns 0, 1 when it failed, 130 when cancelled."""
    document = _read(file)
    parameters = parse_inputs(inputs)
    settings = load_settings({"demo_mode": True} if demo else {})
    check_failpoints(settings)
    configure_logging(max(settings.log_level, "WARNING", key=["DEBUG", "INFO", "WARNING", "ERROR"].index), "console")
    return run_to_end(_run_apart(settings, document, parameters))


def parse_inputs(inputs: Sequence[str]) -> dict[str, Any]:
    """`["a=1", "b=x"]` as `{"a": 1, "b": "x"}`. Raises `UsageError` for one without `=` or a name given twice."""
    parameters: dict[str, Any] = {}
    for item in inputs:
        name, equals, text = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--input {item!r}: write it as name=value")
        if name in parameters:
            raise UsageError(f"--input {name!r} is given twice")
        try:
            parameters[name] = decode(text.encode("utf-8", "surrogateescape"))
        except InvalidJson:
            parameters[name] = text
    return parameters


async def _run_apart(settings: Settings, document: Any, parameters: dict[str, Any]) -> int:
    """Run on a database of its own, which is gone before the process is left, even if it is left by force."""
    with tempfile.TemporaryDirectory(prefix="workflow-engine-") as folder:
        return await _run(settings.model_copy(update={"sqlite_path": Path(folder) / "run.db"}), document, parameters)


async def _run(settings: Settings, document: Any, parameters: dict[str, Any]) -> int:
    async with running(lambda: Runtime(settings)) as runtime:
        warn_of_settings(settings, runtime.catalogue)
        engine = runtime.engine
        submitted = await engine.submit(document)
        await engine.trigger(submitted.execution_id, parameters)
        _cancel_on_signals(engine, submitted.execution_id)
        results = await _follow(runtime, submitted.execution_id)
        _print_results(results)
        return _EXIT_CODES[results.state]


async def _follow(runtime: Runtime, execution_id: str) -> ExecutionResults:
    """Report each node's state as it changes, until the execution ends."""
    shown: dict[str, NodeState] = {}
    began = runtime.clock.monotonic()
    with runtime.transport.follow(execution_id) as follower:
        while True:
            status = await runtime.engine.status(execution_id)
            for node_id, state in status.node_states.items():
                if shown.get(node_id, NodeState.PENDING) is not state:
                    shown[node_id] = state
                    report(f"{runtime.clock.monotonic() - began:8.3f} s  {state:<9}  {node_id}")
            if status.state in TERMINAL_WORKFLOW_STATES:
                report(f"{runtime.clock.monotonic() - began:8.3f} s  {status.state}")
                return await runtime.engine.results(execution_id)
            await follower.changed(REFRESH_SECONDS)


def _cancel_on_signals(engine: Engine, execution_id: str) -> None:
    loop = asyncio.get_running_loop()
    requests: set[asyncio.Task[Any]] = set()

    def on_signal() -> None:
        if not requests:
            requests.add(loop.create_task(engine.cancel(execution_id)))

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


def _print_results(results: ExecutionResults) -> None:
    if results.state is WorkflowState.COMPLETED:
        output = results.output_text or b"null"
        print(json.dumps(json.loads(output), indent=2, ensure_ascii=False))
        return
    if results.error is not None:
        error = results.error
        report(f"node {error['node_id']} failed at attempt {error['attempt']}: {error['type']}: {error['message']}")


def _read(file: Path) -> Any:
    try:
        return decode(file.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except InvalidJson as error:
        raise UsageError(f"{file} is not valid JSON: {error}") from None
