"""`llm_service` against llmock, a server of other people's making that plays OpenAI."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from workflow_engine.handlers.llm_service import LlmServiceConfig, llm_service
from workflow_engine.plugins import NodeContext, RetryAfter

START_SECONDS_MAX = 60.0
POLL_SECONDS = 0.05

LLMOCK = shutil.which(
    "llmock", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
)

pytestmark = pytest.mark.skipif(
    LLMOCK is None and os.environ.get("CI") != "true", reason="the command llmock is not installed"
)


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def running(*options: str) -> AsyncIterator[str]:
    """Run llmock with these options, and give the base URL of its OpenAI side."""
    assert LLMOCK is not None, "CI must have llmock installed"
    port = unused_port()
    process = await asyncio.create_subprocess_exec(
        LLMOCK,
        *("serve", "--host", "127.0.0.1", "--port", str(port), "--latency-ms", "0", *options),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(START_SECONDS_MAX):
            await listening(port, process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def listening(port: int, process: asyncio.subprocess.Process) -> None:
    """Return once something accepts connections on `port`."""
    while True:
        assert process.returncode is None, f"llmock ended with {process.returncode}"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(POLL_SECONDS)
        else:
            writer.close()
            await writer.wait_closed()
            return


@pytest.fixture
async def llmock_url() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """`await llmock_url("--error-rate", "429=1")`: the base URL of a new llmock."""
    async with AsyncExitStack() as servers:

        async def start(*options: str) -> str:
            return await servers.enter_async_context(running(*options))

        yield start


async def test_answer(llmock_url: Callable[..., Awaitable[str]], make_context: Callable[..., NodeContext]) -> None:
    handler = llm_service(await llmock_url(), "sk-anything")
    config = LlmServiceConfig.model_validate(
        {"prompt": "Analyze this", "system": "Be brief", "temperature": 0.7, "max_tokens": 1000}
    )
    output = await handler.run(config, make_context())
    assert set(output) == {"model", "response", "usage", "finish_reason"}
    assert output["model"] == "gpt-4"
    assert output["response"]
    assert output["finish_reason"] == "stop"
    assert output["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("status", [429, 503])
async def test_injected_errors(
    llmock_url: Callable[..., Awaitable[str]], make_context: Callable[..., NodeContext], status: int
) -> None:
    handler = llm_service(await llmock_url("--error-rate", f"{status}=1"), "sk-anything")
    with pytest.raises(RetryAfter) as caught:
        await handler.run(LlmServiceConfig.model_validate({"prompt": "hello"}), make_context())
    assert caught.value.error_type == f"http_{status}"
