"""`doctor`: each thing that can be wrong is found, and nothing else."""

from __future__ import annotations

import resource
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from commands import Done

from workflow_engine.runtime.clock import SystemClock
from workflow_engine.runtime.store.file_lock import FileLock

RunCommand = Callable[..., Done]
Examine = Callable[..., dict[str, list[tuple[str, str, str]]]]


def by_check(done: Done) -> dict[str, list[tuple[str, str, str]]]:
    """(level, message, remedy) of each finding, by check."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for each in done.document["findings"]:
        found.setdefault(each["check"], []).append((each["level"], each["message"], each["remedy"] or ""))
    return found


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


@pytest.fixture
def examine(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch, free_port: int) -> Examine:
    """`examine({"DEMO_MODE": "true"})`: what `doctor` finds with these variables, on a free port."""

    def run(variables: Mapping[str, str] | None = None, code: int = 0) -> dict[str, list[tuple[str, str, str]]]:
        monkeypatch.setenv("API_PORT", str(free_port))
        for name, value in (variables or {}).items():
            monkeypatch.setenv(name, value)
        done = run_command("doctor", "--json")
        assert (done.code, done.errors) == (code, "")
        return by_check(done)

    return run


def test_a_sound_setup(examine: Examine) -> None:
    found = examine()
    assert {level for findings in found.values() for level, _, _ in findings} == {"ok"}
    assert {*found} == {"versions", "settings", "plugins", "limits", "database", "clock", "port", "keys", "llm"}


def test_it_changes_nothing(examine: Examine, tmp_path: Path) -> None:
    examine()
    assert list(tmp_path.iterdir()) == []


def test_the_table(run_command: RunCommand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_HSOT", "x\x1b")
    done = run_command("doctor", "--port", "0")
    assert done.code == 0
    [row] = [row for row in done.rows if row[0] == "warning"]
    assert row[1] == "settings"
    assert "REDIS_HSOT is no setting; did you mean REDIS_HOST? Correct the variable" in " ".join(row)


def test_settings_that_are_not_allowed(examine: Examine) -> None:
    found = examine({"WORKER_CONCURRENCY": "0", "LOG_LEVEL": "loud"}, 1)
    assert [(level, message.partition(":")[0]) for level, message, _ in found["settings"]] == [
        ("error", "LOG_LEVEL"),
        ("error", "WORKER_CONCURRENCY"),
    ]


def test_roles_that_the_backend_has_no_use_for(examine: Examine) -> None:
    [(level, message, _)] = examine({"RUNTIME_ROLES": "api"}, 1)["settings"]
    assert (level, message.partition(":")[0]) == ("error", "RUNTIME_ROLES")


def test_failpoints(examine: Examine) -> None:
    assert ("warning", "FAILPOINTS is set: this process fails on purpose", "Unset it.") in examine(
        {"FAILPOINTS": "engine.submit.stored=kill"}
    )["settings"]


def test_a_plugin_that_cannot_be_loaded(
    examine: Examine, install_plugin: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plugin("broken", "import no_such_module")
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    [(level, message, remedy)] = examine(code=1)["plugins"]
    assert level == "error"
    assert "plugin broken-plugin 1.0 (entry point broken = " in message
    assert "uninstall broken-plugin" in message
    assert remedy == "Run workflow-engine plugin list."


def test_few_open_files(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, 4096))
    [(level, message, remedy)] = examine()["limits"]
    assert (level, remedy) == ("warning", "Run ulimit -n 1110 before, or lower them.")
    assert "may open 256 files" in message


def test_a_folder_that_cannot_be_written(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = examine({"SQLITE_PATH": str(tmp_path / "file" / "x.db")}, 1)["database"]
    level, message, _ = found[0]
    assert level == "error"
    assert "is no folder" in message


def test_a_network_file_system(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflow_engine.runtime.cli.checks.database._file_system", lambda _folder: "nfs4")
    level, message, remedy = examine(code=1)["database"][0]
    assert level == "error"
    assert "network file system (nfs4)" in message
    assert "SQLITE_PATH" in remedy


@pytest.mark.parametrize(("free_blocks", "level", "code"), [(10, "error", 1), (20_000, "warning", 0)])
def test_a_disk_without_room(
    examine: Examine, monkeypatch: pytest.MonkeyPatch, free_blocks: int, level: str, code: int
) -> None:
    class Disk:
        f_bavail = free_blocks
        f_frsize = 4096

    monkeypatch.setattr("os.statvfs", lambda _path: Disk)
    assert [found[0] for found in examine(code=code)["database"]][-1] == level


def test_a_file_that_is_no_database(examine: Examine, tmp_path: Path) -> None:
    (tmp_path / "workflow-engine.db").write_text("text " * 1000)
    [(level, message, _)] = examine(code=1)["schema"]
    assert level == "error"
    assert "is not a sound SQLite database" in message


def test_a_database_that_another_process_has(run_command: RunCommand, examine: Examine, tmp_path: Path) -> None:
    assert run_command("migrate", "up").code == 0
    lock = FileLock(tmp_path / "workflow-engine.db")
    lock.acquire()
    level, message, _ = examine(code=1)["database"][0]
    lock.release()
    assert level == "error"
    assert "another process (pid " in message
    assert examine()["schema"][0][0] == "ok"


def test_a_clock_that_is_behind(
    run_command: RunCommand, examine: Examine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert run_command("migrate", "up").code == 0
    ahead = SystemClock().now() + 60_000
    monkeypatch.setattr("workflow_engine.runtime.cli.checks.database.newest_execution_at", lambda _path: ahead)
    [(level, message, _)] = examine()["clock"]
    assert level == "warning"
    assert "60 seconds" in message or "59 seconds" in message
    monkeypatch.setattr(SystemClock, "now", lambda _self: 1000)
    assert examine(code=1)["clock"][0][:2] == ("error", "it says 1970-01-01T00:00:01+00:00")


def test_a_port_that_is_taken(examine: Examine, free_port: int) -> None:
    with socket.create_server(("127.0.0.1", free_port)):
        [(level, message, remedy)] = examine(code=1)["port"]
    assert (level, message) == ("error", f"another program listens on 127.0.0.1:{free_port}")
    assert "API_PORT" in remedy


@pytest.mark.parametrize(
    ("port", "said"),
    [
        ("", "none: without the role api, and without HEALTH_PORT, it listens nowhere"),
        ("0", "the system picks a free one"),
    ],
)
def test_the_port_of_a_process_without_the_api(examine: Examine, port: str, said: str) -> None:
    variables = {"BACKEND": "distributed", "POSTGRES_HOST": "127.0.0.1", "REDIS_HOST": "127.0.0.1"}
    variables |= {"POSTGRES_PORT": "1", "REDIS_PORT": "1", "RUNTIME_ROLES": "worker", "HEALTH_PORT": port}
    assert examine(variables, 1)["port"] == [("ok", said, "")]


def test_a_host_that_is_none(examine: Examine) -> None:
    [(level, message, _)] = examine({"API_HOST": "no-such-host.invalid", "API_KEYS_REQUIRED": "false"}, 1)["port"]
    assert level == "error"
    assert "cannot listen on no-such-host.invalid" in message


async def test_beside_a_server_that_runs(
    command: Callable[..., Awaitable[Done]],
    start_runtime: Callable[..., Any],
    make_api: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = await make_api(await start_runtime())
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "engine.db"))
    done = await command("doctor", "--json", "--port", client.server.port)
    found = by_check(done)
    assert done.code == 0
    assert found["port"][0][:2] == ("ok", f"an engine listens on 127.0.0.1:{client.server.port}, and is ready")
    assert "which the server that answers is using" in found["database"][0][1]
    assert found["schema"][0][0] == "ok"


def test_a_server_that_is_not_started_yet(examine: Examine, free_port: int) -> None:
    [(level, message, _)] = examine({"WORKFLOW_ENGINE_URL": f"http://127.0.0.1:{free_port}"})["server"]
    assert level == "warning"
    assert "Is it running?" in message


async def test_the_server_of_the_client_commands(
    command: Callable[..., Awaitable[Done]],
    start_runtime: Callable[..., Any],
    make_api: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = await make_api(await start_runtime(), keys_required=True)
    monkeypatch.setenv("WORKFLOW_ENGINE_URL", f"http://127.0.0.1:{client.server.port}")
    without = await command("doctor", "--json", "--port", 0)
    [(level, message, _)] = by_check(without)["server"]
    assert (without.code, level) == (0, "warning")
    assert "An API key is needed" in message
    monkeypatch.setenv("WORKFLOW_ENGINE_API_KEY", "wfe_nobodys")
    refused = await command("doctor", "--json", "--port", 0)
    [(level, message, _)] = by_check(refused)["server"]
    assert (refused.code, level) == (1, "error")
    assert "this API key is not known" in message
    open_client = await make_api(await start_runtime(sqlite_path="other.db"))
    monkeypatch.setenv("WORKFLOW_ENGINE_URL", url := f"http://127.0.0.1:{open_client.server.port}")
    accepted = by_check(await command("doctor", "--json", "--port", 0))
    assert accepted["server"] == [("ok", f"{url} (WORKFLOW_ENGINE_URL) answers", "")]


def test_keys_that_are_needed(run_command: RunCommand, examine: Examine) -> None:
    [(level, message, remedy)] = examine({"ENVIRONMENT": "prod", "RETENTION_DAYS": "30"}, 1)["keys"]
    assert (level, message) == ("error", "needed, and there are none: nobody can use the API")
    made = run_command(*remedy.partition("workflow-engine ")[2].split())
    assert made.code == 0
    assert examine()["keys"] == [("ok", "needed, and there are 1", "")]


def test_nobody_needs_a_key(examine: Examine) -> None:
    found = examine({"API_HOST": "0.0.0.0", "API_KEYS_REQUIRED": "false"})["keys"]
    assert found[0][:2] == ("warning", "everybody who reaches 0.0.0.0 may do everything")


def test_production(examine: Examine) -> None:
    variables = {
        "ENVIRONMENT": "prod",
        "API_KEYS_REQUIRED": "false",
        "DEMO_MODE": "true",
        "HTTP_ALLOW_PRIVATE": "true",
    }
    found = examine(variables)["production"]
    assert [(level, message.split()[0]) for level, message, _ in found] == [
        ("warning", "DEMO_MODE"),
        ("warning", "HTTP_ALLOW_PRIVATE"),
        ("warning", "executions"),
    ]


@pytest.mark.parametrize(
    ("variables", "level", "words"),
    [
        ({}, "ok", "not set up"),
        ({"DEMO_MODE": "true"}, "ok", "mocked"),
        ({"LLM_API_KEY": "k"}, "warning", "LLM_BASE_URL is not"),
        ({"LLM_BASE_URL": "https://llm.example.com/v1"}, "warning", "LLM_API_KEY is not"),
        ({"LLM_BASE_URL": "https://llm.example.com/v1", "LLM_API_KEY": "k"}, "ok", "https://llm.example.com/v1"),
        ({"LLM_BASE_URL": "http://localhost:11434/v1"}, "ok", "http://localhost:11434/v1"),
        ({"LLM_BASE_URL": "http://10.0.0.1/v1", "HTTP_ALLOW_PRIVATE": "false"}, "error", "is a private address"),
    ],
)
def test_the_llm_service(examine: Examine, variables: dict[str, str], level: str, words: str) -> None:
    [(found_level, message, _)] = examine(variables, 1 if level == "error" else 0)["llm"]
    assert found_level == level
    assert words in message


def test_a_check_that_fails_itself(examine: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_settings: Any) -> Any:
        raise ZeroDivisionError("odd")

    monkeypatch.setattr("workflow_engine.runtime.cli.checks.CHECKS", [("odd", fail)])
    assert examine(code=1)["odd"] == [("error", "cannot be checked: ZeroDivisionError: odd", "")]
