"""`plugin list`, `plugin check` and `plugin docs`, on installed plugins and on what is not installed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributions import files_of, install_into, write_wheel

Run = Callable[..., Any]

GOOD = '''
from pydantic import BaseModel, Field

from workflow_engine.plugins import handler


class Line(BaseModel):
    """A line."""

    count: int = Field(1, description="how many | so many")


class Order(BaseModel):
    """What is ordered."""

    name: str = Field(description="of the thing")
    lines: list[Line] = Field([], description="the lines")


class Receipt(BaseModel):
    """What was ordered."""

    total: float = Field(description="in euros")


@handler("acme.order", config=Order, output=Receipt, timeout_seconds=5)
def order(config, context):
    """Order a thing."""
'''

POOR = """
from typing import Any

from pydantic import BaseModel

from workflow_engine.plugins import handler


class Config(BaseModel):
    anything: Any


@handler("Poor-One", config=Config)
def poor(config, context):
    pass
"""


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Python searches a folder of this test too; what it imported is forgotten at the end."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def install(tmp_path: Path, distribution: str, source: str, folder: str = "site") -> None:
    """Install a distribution with one module of its name."""
    module = distribution.replace("-", "_")
    install_into(tmp_path / folder, files_of(distribution, {f"{module}.py": source}, {"main": module}))


def findings(done: Any) -> list[tuple[str, str, str]]:
    """What a check printed with --json."""
    return [(each["level"], each["check"], each["message"]) for each in json.loads(done.output)["findings"]]


def test_every_plugin_is_listed(run_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme", GOOD)
    install(tmp_path, "broken", "import no_such_module")
    install(tmp_path, "secret", GOOD)
    monkeypatch.setenv("PLUGINS_ALLOW", "acme,broken")
    done = run_command("plugin", "list", "--json")
    assert done.code == 0
    own, acme, broken, secret = json.loads(done.output)["items"]
    assert (own["state"], own["hooks"]) == ("loaded", ["workflow_engine_handlers"])
    assert acme == {
        "distribution": "acme",
        "version": "1.0",
        "entry_point": "main",
        "state": "loaded",
        "handlers": ["acme.order"],
        "hooks": [],
        "reason": None,
    }
    assert broken["state"] == "failed"
    assert "ModuleNotFoundError: No module named 'no_such_module'" in broken["reason"]
    assert (secret["state"], secret["reason"]) == ("refused", "PLUGINS_ALLOW does not name it; add secret to load it")
    table = run_command("plugin", "list").output.splitlines()
    assert table[0].split() == ["distribution", "version", "entry", "point", "state", "handlers", "hooks", "reason"]
    assert table[2].split() == ["acme", "1.0", "main", "loaded", "acme.order"]


def test_a_folder_of_plugins_is_listed_too(run_command: Run, tmp_path: Path) -> None:
    install(tmp_path, "acme", GOOD, "more")
    (tmp_path / "more" / "a.pth").write_text("")
    done = run_command("plugin", "list", "--plugins-dir", tmp_path / "more")
    assert "acme.order" in done.output
    assert "that are not run: a.pth" in done.errors


@pytest.mark.parametrize(
    "target", ["acme-orders", "project", "src-project", "setup-project", "wheel", "file", "folder"]
)
def test_a_good_plugin_is_good_wherever_it_lies(run_command: Run, tmp_path: Path, target: str) -> None:
    files = files_of("acme-orders", {"acme_orders.py": GOOD}, {"main": "acme_orders"})
    project = '[project]\nname = "acme-orders"\n[project.entry-points.workflow_engine]\nmain = "acme_orders"\n'
    setup = "[metadata]\nname = acme-orders\n[options.entry_points]\nworkflow_engine =\n    main = acme_orders\n"
    place = tmp_path / "there"
    match target:
        case "acme-orders":
            install(tmp_path, "acme-orders", GOOD)
        case "project":
            install_into(place, {"pyproject.toml": project.encode(), "acme_orders.py": GOOD.encode()})
        case "src-project":
            install_into(place, {"pyproject.toml": project.encode(), "src/acme_orders.py": GOOD.encode()})
        case "setup-project":
            install_into(place, {"setup.cfg": setup.encode(), "acme_orders.py": GOOD.encode()})
        case "wheel":
            place = write_wheel(tmp_path, "acme-orders", files)
        case "file":
            install_into(place, {"acme_orders.py": GOOD.encode()})
            place = place / "acme_orders.py"
        case "folder":
            install_into(place, files)
    done = run_command("plugin", "check", target if target == "acme-orders" else place, "--json")
    assert done.code == 0, done.errors
    plugin, handler = findings(done)
    assert plugin[:2] == ("ok", "plugin")
    assert "acme" in plugin[2]
    assert handler == ("ok", "handler acme.order", "its name, its docstring and its schemas are good")


def test_a_project_is_checked_although_another_version_is_installed(run_command: Run, tmp_path: Path) -> None:
    install(tmp_path, "acme", GOOD)
    project = '[project]\nname = "acme"\n[project.entry-points.workflow_engine]\nmain = "acme"\n'
    install_into(tmp_path / "there", {"pyproject.toml": project.encode(), "acme.py": POOR.encode()})
    done = run_command("plugin", "check", tmp_path / "there", "--json")
    assert findings(done)[-1][1] == "handler Poor-One"


def test_what_users_would_miss(run_command: Run, tmp_path: Path) -> None:
    install(tmp_path, "poor", POOR)
    done = run_command("plugin", "check", "poor", "--json")
    assert done.code == 0, "it can be loaded"
    check = "handler Poor-One"
    assert findings(done)[1:] == [
        ("warning", check, "it has no docstring"),
        ("warning", check, "its name is unlike others"),
        ("warning", check, "config.anything has no description"),
        ("warning", check, "config.anything may be anything"),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", "cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'"),
        ("workflow_engine_api = 2", "it was made for version 2 of the plugin API"),
        (GOOD.replace("acme.order", "input"), "the handler 'input' is registered by workflow-orchestration-engine"),
        (
            "from workflow_engine.plugins import hookimpl\n@hookimpl\ndef workflow_engine_routes(): return ['/x']",
            "its workflow_engine_routes returns '/x', which is no PluginRoute",
        ),
    ],
)
def test_what_would_stop_the_start(run_command: Run, tmp_path: Path, source: str, message: str) -> None:
    install(tmp_path, "acme", source)
    done = run_command("plugin", "check", "acme", "--json")
    assert done.code == 1
    assert any(level == "error" and message in found for level, _, found in findings(done))
    assert "error" in run_command("plugin", "check", "acme").output


def test_what_the_settings_do_not_allow(run_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "acme", GOOD)
    monkeypatch.setenv("PLUGINS_ALLOW", "other")
    done = run_command("plugin", "check", "acme", "--json")
    told = "with these settings it is not loaded: PLUGINS_ALLOW does not name it; add acme to load it"
    assert (done.code, findings(done)[1]) == (0, ("warning", "plugin", told))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nothing", "there is no distribution 'nothing' here, and no file or folder of that name"),
        ("pluggy", "pluggy has no entry point of the group 'workflow_engine'; give it one in its pyproject.toml"),
        (
            "empty",
            "empty has no entry point of the group 'workflow_engine'; write [project.entry-points",
        ),
        ("bad", "bad: the project cannot be read: TOMLDecodeError: "),
    ],
)
def test_targets_that_are_none(run_command: Run, tmp_path: Path, target: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    install_into(tmp_path / "bad", {"pyproject.toml": b"["})
    done = run_command("plugin", "check", target)
    assert done.code == 2
    assert done.errors.startswith(message)


def test_the_documentation_of_a_handler(run_command: Run, tmp_path: Path) -> None:
    install(tmp_path, "acme", GOOD)
    done = run_command("plugin", "docs", "acme.order", "--format", "markdown")
    assert (
        done.output
        == """\
## acme.order

Order a thing.

From acme 1.0.

### Configuration

| key | type | default | meaning |
| --- | --- | --- | --- |
| name | string | required | of the thing |
| lines | array of object | [] | the lines |
| lines[].count | integer | 1 | how many \\| so many |

### Output

| key | type | default | meaning |
| --- | --- | --- | --- |
| total | number | required | in euros |

### Declared

| name | value |
| --- | --- |
| lane | thread |
| timeout_seconds | 5 |
"""
    )
    text = run_command("plugin", "docs", "acme").output
    assert text.startswith("acme.order\n==========\n\nOrder a thing.\n")
    assert "\n  lines[].count  integer          1         how many | so many\n" in text
    assert run_command("plugin", "docs").output.count("\nDeclared\n") == 5


def test_the_documentation_of_nobody(run_command: Run) -> None:
    done = run_command("plugin", "docs", "inputs")
    assert (done.code, done.errors) == (2, "there is no handler and no package 'inputs'; did you mean 'input'?\n")
