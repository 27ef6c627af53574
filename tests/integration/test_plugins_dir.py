"""A folder of plugins, filled by pip itself: pure and compiled packages, here and in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from distributions import files_of, write_wheel

Make = Callable[..., Awaitable[Any]]

SOURCE = """
import os

from acme_helper import native

from workflow_engine.plugins import handler


@handler("here")
async def here(config, context):
    return [native.__file__.endswith(".so"), os.getpid()]


@handler("apart", lane="process")
async def apart(config, context):
    return [native.__file__.endswith(".so"), os.getpid()]
"""


@pytest.fixture
def plugins_dir(tmp_path: Path) -> Path:
    """What `pip install --target` makes of a wheel that has a compiled module in it."""
    found = importlib.util.find_spec("multidict._multidict")
    if found is None or found.origin is None or not found.origin.endswith(".so"):
        pytest.skip("there is no compiled module that could be taken")
    files = files_of(
        "acme-handlers",
        {
            "acme_handlers.py": SOURCE,
            "acme_helper/__init__.py": "from . import _multidict as native\n",
            f"acme_helper/{Path(found.origin).name}": Path(found.origin).read_bytes(),
        },
        {"main": "acme_handlers"},
    )
    wheel = write_wheel(tmp_path, "acme-handlers", files)
    target = tmp_path / "filled-by-pip"
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile"),
            *("--disable-pip-version-check", "--target", target, wheel),
        ],
        check=True,
    )
    return target


async def test_a_workflow_runs_on_what_pip_has_put_there(
    run: Make, workflow_file: Callable[..., Path], plugins_dir: Path
) -> None:
    file = workflow_file({"id": "a", "handler": "here"}, {"id": "b", "handler": "apart"})
    code, output, errors = await run("run", file, "--plugins-dir", plugins_dir)
    assert code == 0, errors
    outputs = json.loads(output)
    assert (outputs["a"][0], outputs["b"][0]) == (True, True)

    code, _, errors = await run("run", file)
    assert code == 2
    assert "there is no handler 'here'" in errors


async def test_a_folder_that_is_not_there(run: Make, workflow_file: Callable[..., Path], tmp_path: Path) -> None:
    file = workflow_file({"id": "a", "handler": "input"})
    code, _, errors = await run("run", file, "--plugins-dir", tmp_path / "none")
    assert (code, errors) == (2, f"PLUGINS_DIR: there is no folder {tmp_path}/none; make it, or unset PLUGINS_DIR\n")
