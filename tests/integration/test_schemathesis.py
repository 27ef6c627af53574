"""schemathesis against the real server: whatever its description allows or forbids, the answer is as described.

`tox -e schemathesis` runs the same as a campaign of several thousand cases. What cannot hold is in
`tests/support/schemathesis/schemathesis.toml`, each with its reason.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from workflow_engine.runtime.api.keys import Keys
from workflow_engine.runtime.api.routing import Scope
from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.store.sqlite import SqliteStore

SUPPORT = Path(__file__).parents[1] / "support" / "schemathesis"
NO_KEY_ID = "00000000-0000-7000-8000-000000000000"
CASES = re.compile(r"^\s*(\d+) generated", re.MULTILINE)


@pytest.fixture
async def keyed_server(serve: Callable[..., Awaitable[Any]], tmp_path: Path) -> tuple[Any, str, str, str]:
    """A server that asks for keys: its process, its address, and the text and id of a key that may do everything."""
    database = tmp_path / "engine.db"
    store = SqliteStore(database, SystemClock())
    await store.open()
    text, record = await Keys(store, SystemClock()).create("schemathesis", Scope.ADMIN, None)
    await store.close()
    process, address = await serve("--demo", SQLITE_PATH=str(database), API_KEYS_REQUIRED="true")
    return process, address, text, record.key_id


async def schemathesis(folder: Path, address: str, key: str | None, *, key_id: str = NO_KEY_ID, examples: int) -> str:
    """Run it in a folder; what it printed."""
    authorization = [] if key is None else ["--header", f"Authorization: Bearer {key}"]
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "schemathesis.cli", "--config-file", str(SUPPORT / "schemathesis.toml")],
        *["run", f"{address}/openapi.json", "--max-examples", str(examples), "--continue-on-failure", *authorization],
        env={
            **os.environ,
            "PYTHONPATH": str(SUPPORT),
            "SCHEMATHESIS_HOOKS": "hooks",
            "SCHEMATHESIS_OWN_KEY_ID": key_id,
        },
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def case_count(output: str) -> int:
    match = CASES.search(output)
    assert match is not None, output
    return int(match[1])


async def test_with_a_key_that_may_do_everything(tmp_path: Path, keyed_server: Any, schemathesis_examples: int) -> None:
    process, address, key, key_id = keyed_server
    output = await schemathesis(tmp_path, address, key, key_id=key_id, examples=schemathesis_examples)
    assert case_count(output) >= 300
    assert "Traceback" not in process.errors
    assert " ERROR " not in process.errors


async def test_without_a_key(tmp_path: Path, keyed_server: Any, schemathesis_examples: int) -> None:
    process, address, _, _ = keyed_server
    output = await schemathesis(tmp_path, address, None, examples=schemathesis_examples)
    assert case_count(output) >= 100
    assert "Traceback" not in process.errors
    assert " ERROR " not in process.errors
