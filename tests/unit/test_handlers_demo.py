"""The stand-ins of `DEMO_MODE`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from workflow_engine.handlers import demo
from workflow_engine.handlers.demo import demo_external_service, demo_llm_service, latency_seconds
from workflow_engine.handlers.external_service_config import ExternalServiceConfig
from workflow_engine.handlers.llm_service import LlmServiceConfig
from workflow_engine.plugins import NodeContext
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.worker.tools import make_tools, no_secrets


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the stand-ins would have slept, in seconds; they do not."""
    durations: list[float] = []

    async def sleep(seconds: float) -> None:
        durations.append(seconds)

    monkeypatch.setattr(demo, "sleep", sleep)
    return durations


def make_context(node_id: str = "node", execution_id: str = "execution", attempt: int = 1) -> NodeContext:
    def no_session() -> None:
        raise AssertionError("nothing may leave the process")

    return NodeContext(
        execution_id=execution_id,
        node_id=node_id,
        handler="h",
        attempt=attempt,
        timeout_seconds=60.0,
        input_text=b"{}",
        dependency_outputs=list,
        services=make_tools(
            http=no_session,  # type: ignore[arg-type]
            secret=no_secrets,
            clock=SystemClock(),
            max_output_bytes=1000,
        ).services,
    )


async def fetch(node_id: str, url: str = "http://api.example.com/", **fields: Any) -> Any:
    config = ExternalServiceConfig.model_validate({"url": url} | fields)
    return await demo_external_service.run(config, make_context(node_id))


async def ask(prompt: str, **fields: Any) -> Any:
    config = LlmServiceConfig.model_validate({"prompt": prompt} | fields)
    return await demo_llm_service.run(config, make_context())


def test_latency_is_one_to_two_seconds_and_varies() -> None:
    latencies = [latency_seconds(make_context(f"node-{number}")) for number in range(200)]
    assert all(1.0 <= latency <= 2.0 for latency in latencies)
    assert max(latencies) - min(latencies) > 0.5


def test_latency_follows_from_execution_and_node_alone() -> None:
    first = latency_seconds(make_context("a", "x", attempt=1))
    assert latency_seconds(make_context("a", "x", attempt=2)) == first
    assert latency_seconds(make_context("a", "y")) != first
    assert latency_seconds(make_context("b", "x")) != first


async def test_external_service_has_the_real_shape(slept: list[float]) -> None:
    output = await fetch("get_user", "http://api.example.com/user?id=1", method="post", query={"a": 1})
    assert output == {
        "status_code": 200,
        "url": "http://api.example.com/user?id=1&a=1",
        "method": "POST",
        "headers": {"content-type": "application/json"},
        "response": demo.SERVICE_ANSWERS["user"],
        "mocked": True,
    }
    assert slept == [latency_seconds(make_context("get_user"))]
    json.dumps(output, allow_nan=False)


@pytest.mark.usefixtures("slept")
@pytest.mark.parametrize(
    ("node_id", "url", "key"),
    [
        ("get_posts", "http://a/user", "post"),
        ("n1", "http://a/users/7/posts", "post"),
        ("n1", "http://a/users/7", "user"),
        ("n1", "http://a/Weather", "weather"),
        ("fetch_data", "http://a/", "data"),
    ],
)
async def test_external_service_answers_in_context(node_id: str, url: str, key: str) -> None:
    assert (await fetch(node_id, url))["response"] == demo.SERVICE_ANSWERS[key]


@pytest.mark.usefixtures("slept")
async def test_external_service_without_a_context() -> None:
    response = (await fetch("b", "http://api/b"))["response"]
    assert response == {"message": "A mocked answer for b.", "path": "/b"}


@pytest.mark.usefixtures("slept")
async def test_answers_are_the_callers_own() -> None:
    (await fetch("user"))["response"].clear()
    assert (await fetch("user"))["response"] == demo.SERVICE_ANSWERS["user"] != {}


async def test_llm_has_the_real_shape(slept: list[float]) -> None:
    output = await ask("Analyze: sales", model="gpt-x")
    assert set(output) == {"model", "response", "usage", "finish_reason", "mocked"}
    assert output["model"] == "gpt-x"
    assert output["mocked"] is True
    usage = output["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert len(slept) == 1


@pytest.mark.usefixtures("slept")
@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("Analyze this data: a summary", "Analysis: "),
        ("Please ANALYSE: x", "Analysis: "),
        ("Summarize: analysis", "Summary: "),
        ("Translate to German: cheese", "Translation: "),
        ("Here is a text: translate it", "Translation: "),
        ("Extract the names: ...", "Extracted from "),
        ("Tell me a joke", "This is a canned answer"),
        ("Explain {subject} and {0}", "Explanation: "),
    ],
)
async def test_llm_answers_in_context(prompt: str, answer: str) -> None:
    assert (await ask(prompt))["response"].startswith(answer)


@pytest.mark.usefixtures("slept")
async def test_llm_names_the_subject_in_one_short_line() -> None:
    response = (await ask("Summarize:\n first\n second " + "x" * 1_000))["response"]
    assert '"first second x' in response
    assert "\n" not in response
    assert len(response) < 200
