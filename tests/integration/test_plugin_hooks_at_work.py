"""Plugins in a runtime: what they are told of attempts and executions, their secrets, and what they cannot break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel

from workflow_engine.plugins import NodeContext, PermanentError, handler, hookimpl
from workflow_engine.plugins.values import Attempt, AttemptOutcome, EngineProcess, FinishedExecution
from workflow_engine.runtime.errors import InvalidDefinition, SetupError

Make = Callable[..., Awaitable[Any]]

LONG_SECONDS = 60.0


@handler("decline")
async def decline(_config: dict[str, Any], _context: NodeContext) -> None:
    """Fail."""
    raise PermanentError("no", error_type="declined")


@handler("tell_secret")
async def tell_secret(config: dict[str, Any], context: NodeContext) -> str:
    """Return a secret, which nobody should."""
    return await context.secret(config["name"])


class Witness:
    """Writes down everything that it is told."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.finished = asyncio.Event()

    @hookimpl
    async def workflow_engine_start(self, process: EngineProcess) -> None:
        self.seen.append(("start", process.roles, process.settings["demo_mode"]))

    @hookimpl
    def workflow_engine_attempt_started(self, attempt: Attempt) -> None:
        self.seen.append(attempt)

    @hookimpl
    def workflow_engine_attempt_ended(self, attempt: Attempt, outcome: AttemptOutcome) -> None:
        assert outcome.seconds >= 0
        self.seen.append((attempt.idempotency_key, outcome.output_bytes, outcome.error_type, outcome.failed))

    @hookimpl
    def workflow_engine_execution_finished(self, execution: FinishedExecution) -> None:
        self.seen.append(execution)
        self.finished.set()

    @hookimpl
    def workflow_engine_stop(self) -> None:
        self.seen.append("stop")


class Nuisance:
    """Raises wherever it can."""

    @hookimpl
    def workflow_engine_attempt_started(self) -> None:
        raise SystemExit(1)

    @hookimpl
    def workflow_engine_attempt_ended(self) -> None:
        raise asyncio.CancelledError

    @hookimpl
    def workflow_engine_execution_finished(self) -> None:
        raise RuntimeError("broken")

    @hookimpl
    def workflow_engine_stop(self) -> None:
        raise RuntimeError("broken")


async def test_what_a_plugin_is_told(start_runtime: Make, run_workflow: Make) -> None:
    witness = Witness()
    runtime = await start_runtime(handlers=[decline], plugins=[witness])
    nodes = [{"id": "a", "handler": "input"}, {"id": "b", "handler": "decline", "dependencies": ["a"]}]
    ended = await run_workflow(runtime, nodes, {"x": 1})
    await asyncio.wait_for(witness.finished.wait(), LONG_SECONDS)
    await runtime.stop()

    key, name = ended.execution_id, "a test"
    told = [
        ("start", ("api", "orchestrator", "worker"), False),
        Attempt(execution_id=key, workflow=name, node_id="a", handler="input", number=1),
        (f"{key}/a/1", len('{"x":1}'), None, False),
        Attempt(execution_id=key, workflow=name, node_id="b", handler="decline", number=1),
        (f"{key}/b/1", None, "declined", True),
        FinishedExecution(execution_id=key, workflow=name, state="FAILED"),
        "stop",
    ]
    assert witness.seen == told


async def test_a_plugin_that_raises_breaks_nothing(
    start_runtime: Make, run_workflow: Make, caplog: pytest.LogCaptureFixture
) -> None:
    witness = Witness()
    runtime = await start_runtime(plugins=[Nuisance(), witness])
    for _ in range(3):
        assert (await run_workflow(runtime, [{"id": "a", "handler": "input"}])).state == "COMPLETED"
    await asyncio.wait_for(witness.finished.wait(), LONG_SECONDS)
    await runtime.stop()
    assert witness.seen[-1] == "stop"
    for hook in ("attempt_started", "attempt_ended", "execution_finished", "stop"):
        said = f"workflow_engine_{hook} of plugin Nuisance raised"
        assert any(each.startswith(said) for each in caplog.messages), hook


async def test_a_plugin_that_cannot_start_stops_the_start(start_runtime: Make) -> None:
    class Late:
        @hookimpl
        def workflow_engine_start(self) -> None:
            raise ConnectionRefusedError("no vault")

    with pytest.raises(SetupError, match="plugin Late cannot start: its workflow_engine_start raised Connection"):
        await start_runtime(plugins=[Late()])


async def test_handlers_get_secrets(start_runtime: Make, run_workflow: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    class Vault:
        @hookimpl
        async def workflow_engine_secret(self, name: str) -> str | None:
            return {"of-the-vault": "1"}.get(name)

    monkeypatch.setenv("WORKFLOW_ENGINE_SECRET_OF_THE_ENVIRONMENT", "2")
    runtime = await start_runtime(handlers=[tell_secret], plugins=[Vault()])
    names = ("of-the-vault", "of-the-environment", "of-nobody")
    nodes = [[{"id": "a", "handler": "tell_secret", "config": {"name": name}}] for name in names]
    found = [await run_workflow(runtime, each) for each in nodes]
    assert [each.output for each in found] == ["1", "2", None]
    assert "there is no secret 'of-nobody': no plugin knows it; set WORKFLOW_ENGINE_SECRET_OF_NOBODY" in str(
        found[2].error
    )


class Person(BaseModel):
    """Who it is."""

    name: str


class Employee(Person):
    """Who it is, and what nobody was told of."""

    salary: int


@handler("person", output=Person)
async def person(_config: dict[str, Any], _context: NodeContext) -> Person:
    """Return more than is declared."""
    return Employee(name="Mary", salary=1)


async def test_templates_are_held_to_declared_outputs(start_runtime: Make, run_workflow: Make) -> None:
    runtime = await start_runtime(handlers=[person])
    first = {"id": "who", "handler": "person"}
    assert (await run_workflow(runtime, [first])).output == {"name": "Mary"}
    second = {"id": "out", "handler": "input", "dependencies": ["who"], "config": {"x": "{{ who.output.salary }}"}}
    with pytest.raises(InvalidDefinition) as caught:
        await run_workflow(runtime, [first, second])
    [problem] = caught.value.problems
    assert problem.path == "dag.nodes[1].config.x"
    assert problem.message.endswith(
        "'who.output' never has the key 'salary', by the output that handler 'person' declares; there are name"
    )
