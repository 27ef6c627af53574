"""The hooks of plugins: who is called, in what order, and what becomes of those that raise."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from workflow_engine.plugins import hookimpl
from workflow_engine.plugins.discovery import Plugin, discover
from workflow_engine.plugins.errors import RetryAfter
from workflow_engine.plugins.values import ApiCaller, ApiRequest, EngineProcess
from workflow_engine.runtime import plugin_hooks
from workflow_engine.runtime.errors import SetupError
from workflow_engine.runtime.plugin_hooks import Lifetimes, PluginHooks, Secrets

PROCESS = EngineProcess(replica="r", roles=("worker",), engine_version="1", settings={})
REQUEST = ApiRequest(method="GET", path="/", headers={}, remote=None)


def plugins(*given: object) -> Sequence[Plugin]:
    """These objects as plugins, beside the engine's own."""
    return discover({"plugins_allow": ()}, given).plugins


def implementing(hook: str, function: Callable[..., Any], name: str = "a_plugin") -> object:
    """A plugin with one hook, which takes no arguments."""

    class Plugin:
        __name__ = name

    def call(self: Any) -> Any:
        return function()

    setattr(Plugin, hook, hookimpl(call))
    return Plugin()


def raising(error: BaseException) -> Callable[[], Any]:
    """A function that raises it."""

    def function() -> Any:
        raise error

    return function


async def never() -> None:
    """Wait for ever."""
    await asyncio.Event().wait()


def test_what_nobody_implements_is_not_there() -> None:
    hooks = PluginHooks(plugins(), PROCESS, None)
    assert hooks.attempts is None
    assert hooks.executions is None
    assert hooks.authenticate is None


# --- starting and stopping --------------------------------------------------------------------------------


async def test_plugins_start_in_order_and_stop_the_other_way_round() -> None:
    seen: list[Any] = []

    class Both:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        async def workflow_engine_start(self, process: EngineProcess) -> None:
            seen.append((self.name, process))

        @hookimpl
        def workflow_engine_stop(self) -> None:
            seen.append(self.name)

    lifetimes = Lifetimes(plugins(Both("a"), Both("b"), implementing("workflow_engine_secret", lambda: None)), PROCESS)
    await lifetimes.start()
    assert seen == [("a", PROCESS), ("b", PROCESS)]
    await lifetimes.stop()
    await lifetimes.stop()
    assert seen[2:] == ["b", "a"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raising(RuntimeError("no vault")), "cannot start: its workflow_engine_start raised RuntimeError: no vault ("),
        (raising(SystemExit(3)), "cannot start: its workflow_engine_start raised SystemExit: 3 ("),
        (never, "did not start within 0 s"),
    ],
)
async def test_a_plugin_that_cannot_start(
    function: Callable[[], Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_hooks, "START_SECONDS", 0)
    stopped: list[str] = []
    found = plugins(
        implementing("workflow_engine_stop", lambda: stopped.append("first")),
        implementing("workflow_engine_start", function),
        implementing("workflow_engine_stop", lambda: stopped.append("third")),
    )
    lifetimes = Lifetimes(found, PROCESS)
    with pytest.raises(SetupError) as caught:
        await lifetimes.start()
    assert str(caught.value).startswith(f"plugin a_plugin {reason}")
    await lifetimes.stop()
    assert stopped == ["first"], "what was not started is not stopped"


@pytest.mark.parametrize("function", [raising(RuntimeError("no")), raising(SystemExit(3)), never])
async def test_a_plugin_that_cannot_stop_keeps_nobody(
    function: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plugin_hooks, "STOP_SECONDS", 0)
    stopped: list[str] = []
    found = plugins(
        implementing("workflow_engine_stop", lambda: stopped.append("first")),
        implementing("workflow_engine_stop", function),
    )
    lifetimes = Lifetimes(found, PROCESS)
    await lifetimes.start()
    await lifetimes.stop()
    assert stopped == ["first"]
    assert "workflow_engine_stop of plugin a_plugin raised " in caplog.text


# --- secrets ----------------------------------------------------------------------------------------------


def secret(function: Callable[[], Any], name: str = "a_plugin") -> object:
    """A plugin that answers so."""
    return implementing("workflow_engine_secret", function, name)


async def asynchronously() -> str:
    """An answer that has to be waited for."""
    await asyncio.sleep(0)
    return "waited for"


@pytest.mark.parametrize(
    ("answers", "value"),
    [
        ([lambda: "first", lambda: "second"], "first"),
        ([lambda: None, lambda: "second"], "second"),
        ([raising(RuntimeError("sealed")), lambda: "second"], "second"),
        ([lambda: None, asynchronously], "waited for"),
        ([lambda: ""], ""),
        ([lambda: None], "of the environment"),
        ([raising(RuntimeError("sealed"))], "of the environment"),
        ([], "of the environment"),
    ],
)
async def test_the_first_answer_counts(
    answers: list[Callable[[], Any]], value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORKFLOW_ENGINE_SECRET_STRIPE_KEY_2", "of the environment")
    (tmp_path / "stripe-key.2").write_text("of a file")
    secrets = Secrets(plugins(*map(secret, answers)), tmp_path)
    assert await secrets.resolve("stripe-key.2") == value


async def test_a_secret_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.b").write_text("two\nlines\n")
    assert await Secrets((), tmp_path).resolve("a.b") == "two\nlines"


async def test_a_secret_that_nobody_knows(tmp_path: Path) -> None:
    with pytest.raises(LookupError) as caught:
        await Secrets((), None).resolve("a.b")
    assert str(caught.value) == "there is no secret 'a.b': no plugin knows it; set WORKFLOW_ENGINE_SECRET_A_B"
    with pytest.raises(LookupError, match=r"; set WORKFLOW_ENGINE_SECRET_A_B or the file /.*/a\.b$"):
        await Secrets((), tmp_path).resolve("a.b")


@pytest.mark.parametrize("name", ["", "..", "../x", "/etc/passwd", "a/b", "a\0", "a b", "x" * 129, None, 5])
async def test_a_name_that_is_none(name: Any, tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="is no name of a secret"):
        await Secrets((), tmp_path / "x").resolve(name)


async def test_a_plugin_that_cannot_answer_now(caplog: pytest.LogCaptureFixture) -> None:
    secrets = Secrets(plugins(secret(raising(RuntimeError("sealed")), "vault")), None)
    for _ in range(3):
        with pytest.raises(RetryAfter) as caught:
            await secrets.resolve("x")
    assert str(caught.value) == "the secret 'x' cannot be had: vault failed; the log says why"
    assert caught.value.error_type == "secret_unavailable"
    [record] = caplog.records
    assert record.getMessage().startswith("workflow_engine_secret of plugin vault raised RuntimeError: sealed (")
    assert "test_plugin_hooks.py, line " in record.getMessage()


async def test_an_answer_that_is_no_text() -> None:
    with pytest.raises(RetryAfter, match="a plugin answers with int, not with text"):
        await Secrets(plugins(secret(lambda: 5)), None).resolve("x")


# --- who sends a request ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ([lambda: None, lambda: ApiCaller(name="b", scope="read")], "b"),
        ([raising(RuntimeError("no")), lambda: ApiCaller(name="b", scope="read")], "b"),
        ([raising(RuntimeError("no"))], None),
        ([lambda: "admin"], None),
    ],
)
async def test_who_sends_a_request(answers: list[Callable[[], Any]], name: str | None) -> None:
    found = plugins(*(implementing("workflow_engine_authenticate", each) for each in answers))
    authenticate: Callable[[ApiRequest], Awaitable[ApiCaller | None]] | None
    authenticate = PluginHooks(found, PROCESS, None).authenticate
    assert authenticate is not None
    caller = await authenticate(REQUEST)
    assert (caller and caller.name) == name
