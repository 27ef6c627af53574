"""A process of its own for attempts, one after another: what ends it condemns one, and what is left behind ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from commands import PATIENCE_SECONDS
from isolated import (
    ENGINE,
    MAX_OUTPUT_BYTES,
    Result,
    Witness,
    an_attempt,
    error_of,
    is_there,
    nothing,
)

from workflow_engine.runtime.core.queue import Delivery
from workflow_engine.runtime.worker.isolated import Isolation

Apart = Callable[[Delivery], Awaitable[Result]]
Make = Callable[..., Awaitable[Any]]

BEHAVES = an_attempt("leave", {"what": "nothing"})


async def process_of(result: Awaitable[Result]) -> int:
    """The process that an attempt says it has run in."""
    output, error = await result
    assert error is None
    assert output is not None
    return int(output)


async def until_ended(process_id: int) -> None:
    """Wait until a process that this one has started is gone."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while is_there(process_id):
            await asyncio.sleep(0)


async def started_together(apart: Apart, witness: Witness, count: int) -> dict[int, asyncio.Task[Result]]:
    """Attempts that run at the same time until they are released, by their processes."""
    tasks = {}
    for _ in range(count):
        task = asyncio.create_task(apart(an_attempt("stay", {"port": witness.port, "how": "wait"})))
        process_id, _ = await witness.begun()
        tasks[process_id] = task
    assert len(tasks) == count, "each has one to itself"
    return tasks


async def release(witness: Witness, tasks: dict[int, asyncio.Task[Result]]) -> None:
    for process_id, task in tasks.items():
        witness.release(process_id)
        assert await task == (b"true", None)


# --- one after another ----------------------------------------------------------------------------------


async def test_attempts_that_leave_nothing_share_a_process(apart: Apart, make_server: Make) -> None:
    server = await make_server(text="an answer")
    process_id = await process_of(apart(BEHAVES))
    for attempt in (
        an_attempt("raise", {"what": "value"}),
        an_attempt("raise", {"what": "exit"}),
        an_attempt("raise", {"what": "generator exit"}),
        an_attempt("cancel_itself", {"return": True}),
        an_attempt("given_as_an_object"),
        an_attempt("strict", {"count": "many"}),
        an_attempt("fetch", {"url": str(server.make_url("/"))}),
        an_attempt("repeat", {"count": MAX_OUTPUT_BYTES - 2}),
    ):
        await apart(attempt)
        assert await process_of(apart(BEHAVES)) == process_id, attempt
    assert await process_of(apart(an_attempt("use_threads"))) == process_id
    assert await process_of(apart(BEHAVES)) == process_id


@pytest.mark.parametrize(
    "what",
    [
        *("a task", "a thread", "a daemon thread", "a nameless thread", "a thread of the loop"),
        *("another folder", "a descriptor", "a program", "a program of a program"),
    ],
)
async def test_a_process_in_which_something_is_left_is_not_used_again(apart: Apart, what: str) -> None:
    first = await process_of(apart(BEHAVES))
    assert await process_of(apart(an_attempt("leave", {"what": what}))) == first
    assert not is_there(first)
    assert await process_of(apart(BEHAVES)) != first


async def test_a_cancelled_attempt_takes_its_process_along(apart: Apart, witness: Witness) -> None:
    first = await process_of(apart(BEHAVES))
    task = asyncio.create_task(apart(an_attempt("stay", {"port": witness.port, "how": "hang"})))
    assert (await witness.begun())[0] == first
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_there(first)
    assert await process_of(apart(BEHAVES)) != first


async def test_somebody_is_told_when_an_attempt_begins(
    make_isolation: Callable[..., Isolation], witness: Witness
) -> None:
    isolation, begun = make_isolation(), asyncio.Event()
    for _ in range(2):
        begun.clear()
        attempt = an_attempt("stay", {"port": witness.port, "how": "wait"})
        task = asyncio.create_task(isolation.run(attempt, MAX_OUTPUT_BYTES, begun.set))
        assert not begun.is_set()
        process_id, _ = await witness.begun()
        await begun.wait()
        await release(witness, {process_id: task})


# --- the end of one -------------------------------------------------------------------------------------


async def test_a_crash_condemns_one_attempt_and_the_others_go_on(
    apart: Apart, witness: Witness, caplog: pytest.LogCaptureFixture
) -> None:
    first = await started_together(apart, witness, 4)
    await release(witness, first)
    others = await started_together(apart, witness, 3)
    assert others.keys() < first.keys(), "the same processes again"

    error = error_of(await apart(an_attempt("die", {"how": "abort"})))
    assert (error.type, error.message) == ("worker_crashed", "the process that ran it was ended by signal SIGABRT")
    assert not any(map(is_there, first.keys() - others.keys()))
    assert "it runs again in a new process" in caplog.text
    await release(witness, others)


@pytest.mark.parametrize("how", ["exit 0", "kill", "end the connection", "rubbish", "begun again"])
async def test_what_ends_a_process_ends_a_new_one_before_it_is_condemned(apart: Apart, how: str) -> None:
    deadly = an_attempt("die", {"how": how})
    expected = error_of(await apart(deadly))
    await apart(BEHAVES)
    assert error_of(await apart(deadly)) == expected


async def test_nobody_is_condemned_for_what_another_attempt_has_broken(apart: Apart) -> None:
    first = await process_of(apart(an_attempt("set_trap")))
    second = await process_of(apart(an_attempt("step")))
    assert second != first
    assert not is_there(first)


async def test_a_process_that_dies_while_it_waits_is_replaced(apart: Apart) -> None:
    first = await process_of(apart(BEHAVES))
    os.kill(first, signal.SIGKILL)
    assert await process_of(apart(BEHAVES)) != first


async def test_a_process_that_has_died_while_it_waited_is_forgotten(
    apart: Apart, caplog: pytest.LogCaptureFixture
) -> None:
    first = await process_of(apart(BEHAVES))
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
    await asyncio.sleep(0)  # then who waited for it is told
    assert await process_of(apart(BEHAVES)) != first
    assert caplog.text == ""


# --- the end of all -------------------------------------------------------------------------------------


async def test_a_process_that_has_nothing_to_do_ends_in_order(
    make_isolation: Callable[..., Isolation], capfd: pytest.CaptureFixture[str]
) -> None:
    isolation = make_isolation(idle_seconds=0.0)
    first = await process_of(isolation.run(an_attempt("say_goodbye"), MAX_OUTPUT_BYTES, nothing))
    await until_ended(first)
    assert "ended in order" in capfd.readouterr().err
    assert await process_of(isolation.run(BEHAVES, MAX_OUTPUT_BYTES, nothing)) != first


async def test_closing_ends_all_that_wait(make_isolation: Callable[..., Isolation], witness: Witness) -> None:
    isolation = make_isolation()
    tasks = await started_together(lambda attempt: isolation.run(attempt, MAX_OUTPUT_BYTES, nothing), witness, 3)
    await release(witness, tasks)
    assert all(map(is_there, tasks))
    await isolation.close()
    assert not any(map(is_there, tasks))
    await isolation.close()


async def test_an_engine_that_is_killed_leaves_no_process_that_waits() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    engine = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ENGINE, "leave", '{"what": "nothing"}'),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert engine.stdout is not None
    assert engine.stderr is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            assert is_there(int(await engine.stdout.readline()))
        finally:
            engine.kill()
            await engine.wait()
        # The process has this one's output as its own: the end of the output is its end.
        await engine.stderr.read()
