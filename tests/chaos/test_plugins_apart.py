"""Replicas with different plugins: each node runs where its handler is, and what nobody has any more waits for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fleet import ALL, QUICK, Fleet, get, results_of_all, start_all
from stored import load_sound

# Half a minute: real processes, one after the other.
pytestmark = [pytest.mark.chaos, pytest.mark.campaign]

SOURCE = '''
import os

from pydantic import BaseModel

from workflow_engine.plugins import handler, hookimpl


class Config(BaseModel):
    before: list[str] = []


@handler("{name}", config=Config)
async def run(config, context):
    """Say where it ran."""
    return [*config.before, "{name} " + os.environ["REPLICA_ID"]]


@hookimpl
def workflow_engine_handlers():
    return [run]
'''
DEFINITION: dict[str, Any] = {
    "name": "both",
    "dag": {
        "nodes": [
            {"id": "a", "handler": "left"},
            {"id": "b", "handler": "right", "dependencies": ["a"], "config": {"before": "{{ a.output }}"}},
            {"id": "c", "handler": "left", "dependencies": ["b"], "config": {"before": "{{ b.output }}"}},
        ]
    },
}


def install(folder: Path, name: str) -> str:
    """Install a distribution with the handler of that name; returns the folder to import it from."""
    information = folder / name / f"{name}_plugin-1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[workflow_engine]\n{name} = {name}_plugin\n")
    (folder / name / f"{name}_plugin.py").write_text(SOURCE.replace("{name}", name))
    return str(folder / name)


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, str]:
    """The PYTHONPATH of a process with one of the plugins, and of one with neither."""
    more = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return {"": os.pathsep.join(more)} | {
        name: os.pathsep.join([install(tmp_path / "plugins", name), *more]) for name in ("left", "right")
    }


async def test_each_node_runs_where_its_plugin_is_and_waits_when_it_is_gone(
    fleet: Fleet, paths: dict[str, str]
) -> None:
    async def start(name: str, plugin: str) -> Any:
        [server] = await fleet.start(ALL, REPLICA_ID=name, PYTHONPATH=paths[plugin], **QUICK)
        return server

    one, two = await start("one", "left"), await start("two", "right")
    clients = fleet.clients

    async def both_are_known() -> bool:
        workers = {item["name"]: item["workers"] for item in (await get(clients[0], "/v1/functions"))["items"]}
        return workers.get("left") == ["one"] and workers.get("right") == ["two"]

    await fleet.until(both_are_known)
    await fleet.until_shared(2)
    ids = await start_all(clients, [(DEFINITION, {})] * 20)
    for end in await results_of_all(clients, ids):
        assert (end["state"], end["output_data"]) == ("COMPLETED", ["left one", "right two", "left one"])
    for name in ("left", "right"):
        shown = (await get(clients[0], "/openapi.json"))["paths"][f"/v1/functions/{name}"]
        assert shown["post"]["operationId"] == f"call_{name}"

    # The plugin "right" is uninstalled: its replica comes back without it.
    assert two.stop() == 0
    await start("two", "")
    waiting = await start_all([fleet.client(one)], [(DEFINITION, {})] * 5)
    reason = "waits for a worker that has the handler 'right'; none is alive"

    async def all_say_why() -> bool:
        shown = [await get(client, f"/v1/workflows/{each}") for client in fleet.clients for each in waiting]
        return all(each.get("waiting") == {"b": reason} and each["state"] == "RUNNING" for each in shown)

    await fleet.until(all_say_why)
    item = await get(fleet.client(one), "/v1/functions/right")
    assert (item["workers"], item["version"]) == ([], "1.0")

    await start("three", "right")
    for end in await results_of_all(fleet.clients, waiting):
        assert (end["state"], end["output_data"]) == ("COMPLETED", ["left one", "right three", "left one"])
    assert set(await fleet.stop()) == {0}
    await load_sound(fleet.variables, [*ids, *waiting])
