"""The plugin whose handlers run in processes of their own, and what runs them there."""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE_SECONDS
from isolated import MAX_OUTPUT_BYTES, Result, Witness, nothing

from workflow_engine.config import load_settings
from workflow_engine.plugins.discovery import Catalogue, discover
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.parts import plugin_settings
from workflow_engine.runtime.worker.assignment import ChildSettings
from workflow_engine.runtime.worker.attempt import begin, run_attempt
from workflow_engine.runtime.worker.egress import SharedSession
from workflow_engine.runtime.worker.isolated import Isolation
from workflow_engine.runtime.worker.tools import make_tools, no_secrets

PLUGIN_FOLDER = Path(__file__).parent / "isolated_plugin"


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin of these tests, installed for this process and for those that it starts."""
    monkeypatch.syspath_prepend(PLUGIN_FOLDER)
    yield
    for module in ("isolated_plugin", "process_plugin"):
        sys.modules.pop(module, None)


@pytest.fixture
def settings() -> ChildSettings:
    loaded = load_settings({"http_allow_private": True, "llm_api_key": "a secret"})
    return ChildSettings(plugin_settings(loaded), loaded.allow_private_addresses, "INFO", "console")


@pytest.fixture
def catalogue(settings: ChildSettings) -> Catalogue:
    return discover(settings.plugin_settings)


@pytest.fixture
async def here(catalogue: Catalogue) -> AsyncIterator[Callable[[Delivery], Awaitable[Result]]]:
    """`await here(delivery)`: run an attempt in this process."""
    http = SharedSession(allow_private=True)
    tools = make_tools(http=http.get, secret=no_secrets, clock=SystemClock(), max_output_bytes=MAX_OUTPUT_BYTES)

    async def run(delivery: Delivery) -> Result:
        handler = catalogue[delivery.execution.graph.handlers[delivery.node]]
        return await run_attempt(begin(delivery, handler, tools, math.inf), tools)

    yield run
    await http.close()


@pytest.fixture
def no_child_is_left(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`no_child_is_left()`: every process that this one has started has ended and was waited for."""
    started: list[int] = []

    class Noted(subprocess.Popen[bytes]):
        """A process whose id is noted."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Noted)

    def check() -> None:
        for process_id in started:
            with pytest.raises(ChildProcessError):
                os.waitpid(process_id, os.WNOHANG)

    return check


@pytest.fixture
async def make_isolation(
    settings: ChildSettings, no_child_is_left: Callable[[], None]
) -> AsyncIterator[Callable[..., Isolation]]:
    """`make_isolation(settings, idle_seconds=...)`: closed at the end; nothing is left of it then."""
    made: list[Isolation] = []

    def make(given: ChildSettings = settings, **options: float) -> Isolation:
        made.append(Isolation(given, **options))
        return made[-1]

    yield make
    for isolation in made:
        await isolation.close()
    no_child_is_left()


@pytest.fixture
def apart(make_isolation: Callable[..., Isolation]) -> Callable[[Delivery], Awaitable[Result]]:
    """`await apart(delivery)`: run it in a process of its own."""
    isolation = make_isolation()

    async def run(delivery: Delivery) -> Result:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await isolation.run(delivery, MAX_OUTPUT_BYTES, nothing)

    return run


@pytest.fixture
async def witness() -> AsyncIterator[Witness]:
    """Who sees what becomes of handlers that connect to it."""
    witness = Witness()
    server = await asyncio.start_server(witness.arrive, "127.0.0.1")
    witness.port = server.sockets[0].getsockname()[1]
    async with server:
        yield witness
        witness.close()
