"""`workflow-engine run FILE`: one workflow, embedded, with progress on stderr and the result on stdout."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...config import Settings, load_settings
from ...observability.logs import configure_logging
from ..core.state import TERMINAL_WORKFLOW_STATES, NodeState
from ..engine import Engine, ExecutionResults
from ..errors import InvalidDefinition
from ..event_loop import run_to_end
from ..process import Runtime, running
from .errors import UsageError, report
from .files import parse_inputs, read_definition
from .startup import check_failpoints, warn_of_settings
from .waiting import show_results

REFRESH_SECONDS = 1.0


def run_file(file: Path, inputs: Sequence[str], overrides: Mapping[str, Any], *, as_json: bool) -> int:
    """Run the workflow in `file` with `inputs` ("name=value"); returns 0, 1 when it failed, 130 when cancelled.

    `overrides` are settings that go before the environment.
    """
    definition = read_definition(file)
    parameters = parse_inputs(inputs)
    settings = load_settings(overrides)
    check_failpoints(settings)
    configure_logging(max(settings.log_level, "WARNING", key=["DEBUG", "INFO", "WARNING", "ERROR"].index), "console")
    try:
        return run_to_end(_run_apart(settings, definition.document, parameters, as_json=as_json))
    except InvalidDefinition as error:
        raise UsageError(f"{definition.name}: {error}", definition.located(error.problems)) from None


async def _run_apart(settings: Settings, document: Any, parameters: dict[str, Any], *, as_json: bool) -> int:
    """Run on a database of its own, which is gone before the process is left, even if it is left by force."""
    with tempfile.TemporaryDirectory(prefix="workflow-engine-") as folder:
        settings = settings.model_copy(update={"sqlite_path": Path(folder) / "run.db"})
        return await _run(settings, document, parameters, as_json=as_json)


async def _run(settings: Settings, document: Any, parameters: dict[str, Any], *, as_json: bool) -> int:
    async with running(lambda: Runtime(settings)) as runtime:
        warn_of_settings(settings, runtime.catalogue)
        engine = runtime.engine
        submitted = await engine.submit(document)
        await engine.trigger(submitted.execution_id, parameters)
        _cancel_on_signals(engine, submitted.execution_id)
        results = await _follow(runtime, submitted.execution_id)
        return show_results(_document(results), as_json=as_json)


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


def _document(results: ExecutionResults) -> dict[str, Any]:
    """The results as the API shows them, but for the time."""
    return {
        "id": results.execution_id,
        "state": results.state,
        "output_data": None if results.output_text is None else json.loads(results.output_text),
        "error": results.error,
    }
