"""The command itself: its version, its help, what it refuses."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from workflow_engine import __version__
from workflow_engine.runtime.cli.main import main
from workflow_engine.runtime.core.plugin_api import PLUGIN_API_VERSION

Make = Callable[..., Awaitable[Any]]


async def test_version(run: Make) -> None:
    code, output, errors = await run("--version")
    assert (code, errors) == (0, "")
    engine, plugin_api, python, system = output.splitlines()
    assert engine == f"workflow-engine {__version__}"
    assert plugin_api == f"plugin API {PLUGIN_API_VERSION}"
    assert python == f"{platform.python_implementation()} {platform.python_version()}"
    assert system.startswith(f"{platform.system()} {platform.machine()}")


def test_version_in_a_binary(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert main(["--version"]) == 0
    assert f" {platform.python_version()}, frozen into a binary\n" in capsys.readouterr().out


async def test_version_does_not_need_sound_settings_or_plugins(run: Make, install_plugin: Callable[..., None]) -> None:
    install_plugin(source="raise RuntimeError('broken')")
    code, output, _ = await run("--version", API_PORT="many")
    assert (code, output.partition("\n")[0]) == (0, f"workflow-engine {__version__}")


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


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["serv"], "there is no 'serv'; did you mean 'serve'?"),
        (["keys", "creat"], "there is no 'creat'; did you mean 'create'?"),
        (["list", "--state", "DONE"], "there is no 'DONE'; there are PENDING, RUNNING"),
        (["list", "--jso"], "unrecognized arguments: --jso"),
    ],
)
def test_a_slip_of_the_pen(capsys: pytest.CaptureFixture[str], arguments: list[str], hint: str) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["start", "--help"], ["completion", "bash"], ["status", "x", "--url", "?"]]
)
async def test_it_loads_little(run: Make, arguments: list[str], tmp_path: Path) -> None:
    """What takes long to load is left out, also by the commands that only talk to a server."""
    script = tmp_path / "plugins" / "sitecustomize.py"
    script.parent.mkdir()
    script.write_text(
        "import atexit, pathlib, sys\n"
        f"atexit.register(lambda: pathlib.Path({str(tmp_path / 'loaded')!r}).write_text(' '.join(sys.modules)))\n"
    )
    await run(*arguments)
    loaded = (tmp_path / "loaded").read_text().split()
    assert "workflow_engine.runtime.cli.main" in loaded
    assert {"aiohttp", "asyncio", "pydantic", "rich", "sqlite3"} & {*loaded} == set()


async def test_a_reader_that_has_seen_enough(environment: dict[str, str], tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "workflow_engine", "config", "--json"),
        cwd=tmp_path,
        env=environment,
        stdout=(pipe := os.pipe())[1],
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(pipe[0])
    os.close(pipe[1])
    _, errors = await process.communicate()
    assert (process.returncode, errors) == (1, b"")


async def test_an_output_that_is_closed(environment: dict[str, str], tmp_path: Path) -> None:
    for arguments in ("config", "config --json"):
        process = await asyncio.create_subprocess_shell(
            f'"{sys.executable}" -m workflow_engine {arguments} >&-',
            cwd=tmp_path,
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
async def test_an_output_that_is_full(environment: dict[str, str], tmp_path: Path) -> None:
    for arguments in ("config", "config --json"):
        process = await asyncio.create_subprocess_shell(
            f'"{sys.executable}" -m workflow_engine {arguments} >/dev/full',
            cwd=tmp_path,
            env=environment,
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await process.communicate()
        assert (process.returncode, errors) == (1, b"the output cannot be written: No space left on device\n")


async def test_an_output_that_cannot_hold_every_character(run: Make) -> None:
    variables = {"PYTHONUTF8": "0", "LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "ascii", "SQLITE_PATH": "\u00fc.db"}
    code, output, errors = await run("config", **variables)
    assert (code, errors) == (0, "")
    assert "\\xfc.db" in output
