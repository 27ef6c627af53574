"""Routes and commands of plugins: what is taken, and what is said of what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from distributions import files_of, install_into

from workflow_engine.plugins import hookimpl
from workflow_engine.plugins.discovery import Plugin, PluginError, discover
from workflow_engine.plugins.offers import commands_of, routes_of
from workflow_engine.plugins.values import PluginCall, PluginCommand, PluginRoute
from workflow_engine.runtime.cli.main import build_parser, main


async def answer(_call: PluginCall) -> None:
    """Answer nothing."""


def route(**changes: Any) -> Any:
    """A route that is good but for the changes."""
    good: dict[str, Any] = {"method": "GET", "path": "/x", "run": answer, "scope": "read", "summary": "x"}
    return PluginRoute(**{**good, **changes})


def plugin(hook: str, result: Any, name: str = "A Plugin") -> list[Plugin]:
    """A plugin whose hook returns `result`, or raises it."""

    class Given:
        __name__ = name

    def offer(self: Any) -> Any:
        if isinstance(result, BaseException):
            raise result
        return result

    setattr(Given, hook, hookimpl(offer))
    return [each for each in discover({"plugins_allow": ()}, [Given()]).plugins if each.name == name]


@pytest.mark.parametrize(
    ("offered", "message"),
    [
        (
            [route(method="PATCH")],
            "its route PATCH /x has a method that routes of plugins cannot have; there are ",
        ),
        ([route(path="x")], "its route GET x has a path that is none; write it like /invoices/{id}"),
        ([route(path="/a/../b c")], "its route GET /a/../b c has a path that is none"),
        ([route(path="")], "its route GET  has a path that is none"),
        ([route(scope="root")], "its route GET /x has the scope 'root'; there are public, read, run, admin"),
        ([route(run=lambda call: None)], "its route GET /x has a run that is no 'async def'"),
        ([route(body=PluginCall)], "its route GET /x takes a body; only POST does"),
        ([route(answer=dict)], "its route GET /x has a answer that is no pydantic model: <class 'dict'>"),
        ([route(path="/{a}"), route(path="/{b}")], "its route GET /{b} is there already, of A Plugin; give it another"),
        (["/x"], "its workflow_engine_routes returns '/x', which is no PluginRoute"),
        (5, "its workflow_engine_routes raised TypeError: 'int' object is not iterable; mend it"),
        (RuntimeError("no"), "its workflow_engine_routes raised RuntimeError: no; mend it"),
    ],
)
def test_routes_that_are_none(offered: Any, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        routes_of(plugin("workflow_engine_routes", offered))
    assert str(caught.value).startswith(f"plugin A Plugin: {message}")


def test_every_plugin_has_its_own_place() -> None:
    given = [*plugin("workflow_engine_routes", [route()]), *plugin("workflow_engine_routes", [route()], "b.other")]
    assert [each.path for each in routes_of(given)] == ["/v1/plugins/a-plugin/x", "/v1/plugins/b-other/x"]
    assert routes_of(plugin("workflow_engine_routes", None)) == []


def command(name: Any) -> PluginCommand:
    """A command of this name."""
    return PluginCommand(name=name, help="h", run=lambda _options: 0)


@pytest.mark.parametrize(
    ("offered", "message"),
    [
        ([command("serve")], "its command 'serve' is there already, of the engine; give it another name"),
        ([command("mine"), command("mine")], "its command 'mine' is there already, of A Plugin; give it another name"),
        ([command("-x")], "the command name '-x' does not match "),
        ([command(None)], "the command name None does not match "),
        (["mine"], "its workflow_engine_commands returns 'mine', which is no PluginCommand"),
        (RuntimeError("no"), "its workflow_engine_commands raised RuntimeError: no; mend it"),
    ],
)
def test_commands_that_are_none(offered: Any, message: str) -> None:
    with pytest.raises(PluginError) as caught:
        commands_of(plugin("workflow_engine_commands", offered), ["serve"])
    assert str(caught.value).startswith(f"plugin A Plugin: {message}")


COMMAND = """
from workflow_engine.plugins import hookimpl
from workflow_engine.plugins.values import PluginCommand

def arguments(parser):
    parser.add_argument("count", type=int)

def run(options):
    print("counted", options.count)
    return options.count

@hookimpl
def workflow_engine_commands():
    return [PluginCommand(name="{name}", help="count", arguments=arguments, run=run)]
"""


@pytest.fixture
def with_command(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`with_command(name)`: a plugin with a command of this name is installed."""
    import sys

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "acme_commands", raising=False)

    def install(name: str) -> None:
        files = {"acme_commands.py": COMMAND.replace("{name}", name)}
        install_into(tmp_path, files_of("acme-commands", files, {"main": "acme_commands"}))

    return install


def test_a_command_of_a_plugin(
    with_command: Callable[[str], None], capsys: pytest.CaptureFixture[str], clean_environment: None
) -> None:
    with_command("count")
    assert main(["count", "3"]) == 3
    assert capsys.readouterr().out == "counted 3\n"
    with pytest.raises(SystemExit):
        main(["coun", "3"])
    assert "there is no 'coun'" in capsys.readouterr().err


def test_a_command_that_the_engine_has_cannot_be_replaced(
    with_command: Callable[[str], None], capsys: pytest.CaptureFixture[str], clean_environment: None
) -> None:
    with_command("serve")
    assert build_parser("serve").parse_args(["serve"]).command == "serve"
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "its command 'serve' is there already, of the engine; give it another name" in capsys.readouterr().err
