"""Attempts in processes of their own: the same outcomes as here, and nothing left of what ends its process."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from isolated import ENGINE, MAX_OUTPUT_BYTES, Result, Witness, an_attempt, error_of, nothing, until_gone

from workflow_engine.runtime.core.json_text import encode
from workflow_engine.runtime.core.limits import MAX_ATTEMPT_INPUT_BYTES
from workflow_engine.runtime.core.machine import AttemptError
from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.worker.assignment import ChildSettings, read_assignment, write_assignment
from workflow_engine.runtime.worker.attempt import AttemptInputs
from workflow_engine.runtime.worker.isolated import Isolation

Make = Callable[..., Awaitable[Any]]

MIB = 1024 * 1024
ENTRY = Path(__file__).parents[3] / "deploy" / "binary" / "entry.py"


# --- the same as here -----------------------------------------------------------------------------------

TEMPLATES = {
    "text": "{{ input.name }} has {{ b.output.items[1] }}",
    "whole": "{{ a.output }}",
    "default": "{{ default(b.output.absent, [1]) }}",
    "braces": '{{ "{{" }} stays',
    "constant": {"deep": [None, True, "ü"]},
}
OUTPUTS = {"a": {"of": "a", "ü": "日本語 \U0001f600"}, "b": {"items": [1, "two"]}}

SAME: dict[str, Delivery] = {
    "everything": an_attempt("tell", TEMPLATES, {"name": "Ada ✓"}, **OUTPUTS),
    "nothing": an_attempt("tell"),
    "a parameter called output": an_attempt("tell", {"x": "{{ input.output }}"}, {"output": 1}, input=2),
    "a node called input": an_attempt("tell", {"x": "{{ input.output.n }}"}, {}, input={"n": 2}),
    "null": an_attempt("give", {"value": None}),
    "unicode": an_attempt("give", {"value": "\x00 \u2028 \u202e 日本語 \U0001f600"}),
    "large": an_attempt("give", {"value": "{{ a.output }}"}, {}, a="ü" * (2 * MIB)),
    "too large": an_attempt("repeat", {"count": MAX_OUTPUT_BYTES + 1}),
    "as large as can be": an_attempt("repeat", {"count": MAX_OUTPUT_BYTES - 2}),
    "no JSON": an_attempt("give", {"value": "set"}),
    "not a number": an_attempt("give", {"value": "nan"}),
    "a lone surrogate": an_attempt("give", {"value": "surrogate"}),
    "a config that fits": an_attempt("strict", {"count": "{{ input.count }}"}, {"count": 3}),
    "a config that does not fit": an_attempt("strict", {"count": "{{ input.count }}"}, {"count": "many"}),
    "a template that fails": an_attempt("tell", {"x": "{{ a.output.absent }}"}, {}, a={"b": 1}),
    "cancels itself": an_attempt("cancel_itself", {"return": False}),
    "cancels itself too late": an_attempt("cancel_itself", {"return": True}),
    **{
        f"raises {what}": an_attempt("raise", {"what": what})
        for what in (
            *("permanent", "later", "later without seconds", "value", "os", "long", "impolite", "unprintable"),
            *("exit", "interrupt", "cancelled", "generator exit"),
        )
    },
}


async def outcome_here(here: Callable[[Delivery], Awaitable[Result]], delivery: Delivery) -> Result:
    """In a task of its own, and what the pool makes of a handler that cancels it."""
    from workflow_engine.runtime.worker.failure import describe_failure

    task = asyncio.ensure_future(here(delivery))
    await asyncio.wait([task])
    try:
        return task.result()
    except (asyncio.CancelledError, GeneratorExit) as error:
        return None, describe_failure(error)


@pytest.mark.parametrize("case", SAME)
async def test_the_outcome_is_the_same_as_here(here: Any, apart: Any, case: str) -> None:
    expected = await outcome_here(here, SAME[case])
    assert await apart(SAME[case]) == expected


async def test_what_is_raised_arrives_with_all_it_says(apart: Any) -> None:
    gone = await apart(an_attempt("raise", {"what": "permanent"}))
    busy = await apart(an_attempt("raise", {"what": "later"}))
    assert error_of(gone) == AttemptError("gone", "never: ✗", False)
    assert error_of(busy) == AttemptError("busy", "later", True, 12.5)


async def test_inputs_of_four_mebibytes(apart: Any) -> None:
    large = ["x" * 1000, "日本語"] * (4 * MIB // 1012)
    output, error = await apart(an_attempt("tell", {}, {"large": large}, a=1))
    assert error is None
    assert encode(large, 5 * MIB) in output


async def test_ten_at_the_same_time(apart: Any) -> None:
    results = await asyncio.gather(*(apart(an_attempt("give", {"value": number})) for number in range(10)))
    assert results == [(str(number).encode(), None) for number in range(10)]


async def test_what_a_handler_leaves_behind_does_not_keep_its_outcome(apart: Any) -> None:
    assert await apart(an_attempt("leave_things")) == (b"2", None)


async def test_plugins_get_the_settings_as_they_are_here(apart: Any, settings: ChildSettings) -> None:
    output, _ = await apart(an_attempt("show_settings"))
    shown = {name: str(value) for name, value in settings.plugin_settings.items()}
    assert output == encode(shown, MIB)
    assert shown["llm_api_key"] == "a secret"


# --- how much of what came before is sent -----------------------------------------------------------------


def assigned(delivery: Delivery) -> tuple[Delivery, int]:
    """The delivery as the child gets it, and how many bytes that takes."""
    from workflow_engine.runtime.worker.assignment import HEADER

    request = write_assignment(delivery)
    return read_assignment(request[HEADER.size :]), len(request)


def test_only_what_a_node_may_read_is_sent() -> None:
    delivery, size_bytes = assigned(an_attempt("tell", {"x": "{{ a.output }}"}, {}, b=2, a=1))
    assert delivery.execution.graph.node_ids == ("a", "b", "node")
    assert delivery.execution.outputs == [b"1", b"2", None]
    assert AttemptInputs(delivery.execution, delivery.node).dependency_outputs() == [("b", b"2"), ("a", b"1")]
    assert size_bytes < 10_000


async def test_outputs_that_are_too_large_together_fail_only_who_reads_them(here: Any, apart: Any) -> None:
    outputs = {f"n{number}": "x" * (4 * MIB - 2) for number in range(6)}
    unread = an_attempt("give", {"value": "{{ n5.output }}"}, {}, **outputs)
    inputs_read = an_attempt("tell", {}, {}, **outputs)
    templates = {name: f"{{{{ {name}.output }}}}" for name in outputs}
    templates_read = an_attempt("give", {"value": templates}, {}, **outputs)
    many = an_attempt("give", {"value": templates | {"more": "{{ m.output }}"}}, {}, **outputs, m="x" * (15 * MIB))

    assert (await apart(unread))[0] == encode(outputs["n5"], 5 * MIB)
    for delivery in (inputs_read, templates_read, many):
        expected = await here(delivery)
        assert error_of(expected).type == "inputs_too_large"
        assert await apart(delivery) == expected
    assert assigned(unread)[1] < 5 * MIB
    assert assigned(many)[1] < 2 * MAX_ATTEMPT_INPUT_BYTES + 16 * MIB


# --- the end of the process ---------------------------------------------------------------------------------

DEATHS = {
    "exit 0": "ended with exit code 0 before the handler returned",
    "exit 3": "ended with exit code 3 before the handler returned",
    "kill": "was ended by signal SIGKILL",
    "abort": "was ended by signal SIGABRT",
    "segmentation fault": "was ended by signal SIGSEGV",
    "real-time signal": f"was ended by signal {signal.SIGRTMIN + 5}",
    "end the connection": "closed its connection to the engine before the handler returned",
    "close the descriptor": "ended with exit code 1 before the handler returned",
    "rubbish": "wrote something else than an outcome",
    "no such kind": "wrote something else than an outcome",
    "huge": "wrote something else than an outcome",
    "wrong checksum": "wrote something else than an outcome",
    "begun again": "wrote something else than an outcome",
}


@pytest.mark.parametrize("how", DEATHS)
async def test_a_process_that_ends_without_an_outcome_has_crashed(apart: Any, how: str) -> None:
    error = error_of(await apart(an_attempt("die", {"how": how, "return": how == "close the descriptor"})))
    assert error == AttemptError("worker_crashed", f"the process that ran it {DEATHS[how]}", False)


async def test_what_a_dying_process_says_is_in_the_log(apart: Any, capfd: pytest.CaptureFixture[str]) -> None:
    await apart(an_attempt("print"))
    await apart(an_attempt("die", {"how": "segmentation fault"}))
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "printed before the end\n" in shown.err
    assert "complained before the end\n" in shown.err
    assert "Fatal Python error: Segmentation fault" in shown.err
    assert "in _segmentation_fault" in shown.err


async def test_in_a_binary_the_binary_is_started_once_more(
    apart: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "workflow-engine"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} {ENTRY} "$@"\n')
    file.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(file))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    output, _ = await apart(an_attempt("give", {"value": 1}))
    assert output == b"1"
    await apart(an_attempt("print"))
    await apart(an_attempt("die", {"how": "segmentation fault"}))
    shown = capfd.readouterr().err
    assert "printed before the end\n" in shown
    assert "Fatal Python error: Segmentation fault" in shown


async def test_a_trace_of_a_handler_is_in_the_log(apart: Any, capfd: pytest.CaptureFixture[str]) -> None:
    await apart(an_attempt("raise", {"what": "value"}))
    assert "handler raise raised ValueError in node node" in capfd.readouterr().err


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
async def test_a_process_that_cannot_be_started_may_be_tried_again(
    apart: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    async def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse)
    error = error_of(await apart(an_attempt("tell")))
    assert (error.type, error.retryable) == ("worker_failed", True)
    assert os.strerror(number) in error.message


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("#!/bin/sh\nexit 7\n", "ended with exit code 7"),
        ("#!/bin/sh\nkill -9 $$\n", "was ended by signal SIGKILL"),
    ],
)
async def test_a_process_that_does_not_get_as_far_as_the_attempt_may_be_tried_again(
    apart: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str, how: str
) -> None:
    file = tmp_path / "python"
    file.write_text(program)
    file.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(file))
    error = error_of(await apart(an_attempt("tell")))
    reason = f"the process that was to run it {how} before it began; see the log"
    assert error == AttemptError("worker_failed", reason, True)


async def test_a_process_that_takes_too_long_to_begin_is_given_up(
    make_isolation: Callable[..., Isolation], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "python"
    file.write_text("#!/bin/sh\nexec sleep 1000\n")
    file.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(file))
    error = error_of(await make_isolation(start_seconds=0.0).run(an_attempt("tell"), MAX_OUTPUT_BYTES, nothing))
    reason = "the process that was to run it did not begin within 0 s"
    assert error == AttemptError("worker_failed", reason, True)


async def test_a_plugin_that_cannot_be_loaded_there_is_in_the_log(
    apart: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    information = tmp_path / "broken-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[workflow_engine]\nbroken = absent_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    error = error_of(await apart(an_attempt("tell")))
    assert (error.type, error.retryable) == ("worker_failed", True)
    assert "(entry point broken = absent_module) cannot be loaded: ModuleNotFoundError" in capfd.readouterr().err


async def test_a_handler_that_is_only_here_is_named(apart: Any) -> None:
    error = error_of(await apart(an_attempt("given_as_an_object")))
    reason = "a process of its own does not find the handler given_as_an_object: it is of no installed plugin"
    assert error == AttemptError("worker_failed", reason, True)


# --- nothing is left ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["hang", "swallow", "block"])
async def test_a_cancelled_attempt_is_killed(apart: Any, witness: Witness, how: str) -> None:
    task = asyncio.create_task(apart(an_attempt("stay", {"port": witness.port, "how": how})))
    process_id, connection = await witness.begun()
    assert os.getpgid(process_id) == process_id
    assert os.getsid(process_id) == process_id
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_gone(connection)


async def test_an_attempt_that_is_cancelled_again_while_it_is_killed_leaves_nothing(
    apart: Any, witness: Witness
) -> None:
    task = asyncio.create_task(apart(an_attempt("stay", {"port": witness.port, "how": "hang"})))
    _, connection = await witness.begun()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until_gone(connection)
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)


async def test_an_attempt_that_is_cancelled_while_its_process_starts_leaves_nothing(apart: Any) -> None:
    for turns in range(12):
        task = asyncio.create_task(apart(an_attempt("give", {"value": 1})))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_signal_to_the_whole_service_is_the_engines_affair(apart: Any, witness: Witness) -> None:
    result = await apart(an_attempt("stay", {"port": witness.port, "how": "sigterm"}))
    assert result == (b"true", None)


@pytest.mark.parametrize("copies", ["hang", "return"])
@pytest.mark.parametrize("original", ["return", "die", "hang"])
async def test_processes_that_a_handler_makes_end_with_it(
    apart: Any, witness: Witness, original: str, copies: str
) -> None:
    config = {"port": witness.port, "original": original, "copies": copies}
    task = asyncio.create_task(apart(an_attempt("fork", config)))
    _, connection = await witness.begun()
    if original == "hang":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    elif original == "die":
        assert error_of(await task).type == "worker_crashed"
    else:
        assert await task == (b"[true,true]", None)
    await until_gone(connection)


async def test_programs_that_a_handler_starts_end_with_it(apart: Any, witness: Witness) -> None:
    assert await apart(an_attempt("run_program", {"port": witness.port})) == (b'"returned"', None)
    _, connection = await witness.begun()
    await until_gone(connection)


@pytest.mark.parametrize("how", ["hang", "block"])
async def test_an_engine_that_is_killed_leaves_nothing(witness: Witness, how: str) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    config = json.dumps({"port": witness.port, "how": how})
    engine = await asyncio.create_subprocess_exec(sys.executable, "-c", ENGINE, "stay", config, env=environment)
    try:
        _, connection = await witness.begun()
    finally:
        engine.kill()
        await engine.wait()
    await until_gone(connection)


# --- surroundings ---------------------------------------------------------------------------------------------


async def test_handlers_reach_http_by_the_same_rules(
    apart: Any, make_isolation: Callable[..., Isolation], settings: ChildSettings, make_server: Make
) -> None:
    server = await make_server(text="an answer")
    attempt = an_attempt("fetch", {"url": str(server.make_url("/"))})
    strict = settings._replace(allow_private_addresses=False)

    assert await apart(attempt) == (b'["an answer","an answer"]', None)
    error = error_of(await make_isolation(strict).run(attempt, MAX_OUTPUT_BYTES, nothing))
    assert (error.type, error.retryable) == ("address_refused", False)


async def test_a_process_without_outputs_runs_attempts_too(apart: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "__stderr__", None)
    assert error_of(await apart(an_attempt("print"))).type == "worker_crashed"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has it")
async def test_it_is_killed_first_when_memory_runs_out(apart: Any, witness: Witness) -> None:
    task = asyncio.create_task(apart(an_attempt("stay", {"port": witness.port, "how": "hang"})))
    process_id, _ = await witness.begun()
    assert await asyncio.to_thread(Path(f"/proc/{process_id}/oom_score_adj").read_text) == "1000\n"
    task.cancel()
    await asyncio.wait([task])
