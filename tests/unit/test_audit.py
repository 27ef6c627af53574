"""The rules of the audit: every healthy history is clean, and each kind of corruption is found, with its ids."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_driver import FINAL, FLAKY, Driver, drain, make_graph, random_graph, step

from workflow_engine.runtime.core.audit import (
    OVERDUE_MILLISECONDS,
    Finding,
    judge,
    judge_claim,
    judge_place,
    judge_resolution,
    judge_retry,
    overdue,
    unsettled,
)
from workflow_engine.runtime.core.machine import AttemptRow, Suspicion, parked_until
from workflow_engine.runtime.core.shares import PartitionRecord, partition_of
from workflow_engine.runtime.core.state import TERMINAL_WORKFLOW_STATES, NodeState, WorkflowState
from workflow_engine.runtime.ports import CommandRecord, ExecutionRecord, LoadedExecution, Resolution

Corrupt = Callable[[LoadedExecution], LoadedExecution]

RUNNING, FAILED, CANCELLED = WorkflowState.RUNNING, WorkflowState.FAILED, WorkflowState.CANCELLED
CHAIN = make_graph([[], [0], [1]], [2, 0, 1])


def stored(driver: Driver, *, parked: bool = False) -> LoadedExecution:
    """What a store holds of an execution by now; `parked` if it can be."""
    execution = driver.execution
    record = ExecutionRecord(
        execution_id="e",
        definition_id="d",
        partition=partition_of("e", 16),
        state=execution.state,
        input_text=b"{}",
        error=execution.error,
        created_at=1,
        started_at=2,
        completed_at=driver.now if execution.terminal else None,
        parked_until=parked_until(execution) if parked else None,
    )
    commands = [
        CommandRecord(command.command_id, "e", 3, consumed=True, sequence=command.sequence)
        for command in driver.commands
    ]
    return LoadedExecution(record, list(driver.rows), commands, [])


def suspected(driver: Driver, chance: random.Random) -> list[Suspicion]:
    """Lost deliveries of attempts that are queued, or run."""
    nodes = driver.graph.node_ids
    queued = (NodeState.QUEUED, NodeState.RUNNING)
    return [
        Suspicion("e", nodes[node], driver.execution.attempts[node], chance.randint(1, 4))
        for node, state in enumerate(driver.execution.node_states)
        if state in queued and chance.random() < 0.2
    ]


# --- what is healthy --------------------------------------------------------------------------------


@settings(max_examples=80)
@given(st.randoms(use_true_random=False), st.integers(0, 40))
def test_whatever_the_machine_has_done_is_clean_at_every_moment(chance: random.Random, steps: int) -> None:
    driver = Driver(random_graph(chance, 8))
    suspicions: dict[tuple[Any, ...], Suspicion] = {}
    for number in range(steps + 1):
        suspicions |= {each[:3]: each for each in suspected(driver, chance)}
        history = stored(driver, parked=chance.random() < 0.5)._replace(suspicions=sorted(suspicions.values()))
        assert judge(history, driver.graph, clocks_agree=False) == []
        if number < steps:
            step(driver, chance, restarts=True)
    drain(driver)
    assert judge(stored(driver), driver.graph, clocks_agree=False) == []


def test_the_random_histories_have_every_end_and_every_kind_of_row() -> None:
    ends: Counter[str] = Counter()
    rows: Counter[str] = Counter()
    for seed in range(300):
        chance = random.Random(seed)
        driver = Driver(random_graph(chance, 12))
        for _ in range(chance.randrange(60)):
            step(driver, chance, restarts=seed % 2 == 0)
        drain(driver)
        assert judge(stored(driver), driver.graph, clocks_agree=False) == []
        ends[driver.execution.state] += 1
        rows.update(row.state if row.retry_at is None else "RETRIED" for row in driver.rows)
    assert set(ends) == TERMINAL_WORKFLOW_STATES
    assert set(rows) == {NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED, "RETRIED"}


def retried() -> Driver:
    """n0 has failed once, and completed; n1 and n2 have completed."""
    driver = Driver(CHAIN)
    driver.outcome(0, 1, FLAKY)
    driver.now += 5_000
    driver.retry_due(0)
    for node in range(3):
        driver.outcome(node, 2 if node == 0 else 1, None)
    return driver


def failed() -> Driver:
    """n0 has completed, n1 has failed for good."""
    driver = Driver(CHAIN)
    driver.outcome(0, 1, None)
    driver.outcome(1, 1, FINAL)
    return driver


def cancelled() -> Driver:
    """n0 has completed, n1 ran when the cancel came, and a second one changed nothing."""
    driver = Driver(CHAIN)
    driver.outcome(0, 1, None)
    driver.start(1, 1)
    driver.cancel()
    driver.cancel()
    return driver


def waiting() -> Driver:
    """n0 has failed, and waits for its next attempt."""
    driver = Driver(CHAIN)
    driver.outcome(0, 1, FLAKY)
    return driver


def begun() -> Driver:
    """n0 has completed, n1 is queued."""
    driver = Driver(CHAIN)
    driver.outcome(0, 1, None)
    return driver


STORIES: dict[str, Callable[[], Driver]] = {
    "retried": retried,
    "failed": failed,
    "cancelled": cancelled,
    "waiting": waiting,
    "begun": begun,
}


@pytest.mark.parametrize("story", STORIES)
def test_the_stories_are_clean(story: str) -> None:
    assert judge(stored(STORIES[story](), parked=True), CHAIN) == []


@pytest.mark.parametrize(
    "record",
    [
        {"state": WorkflowState.PENDING},
        {"state": CANCELLED, "completed_at": 9},
        {"state": RUNNING, "started_at": 2, "input_text": b""},
    ],
)
def test_what_was_never_started_or_has_only_just_been_is_clean(record: dict[str, Any]) -> None:
    history = stored(Driver(CHAIN))
    empty = history.record._replace(state=WorkflowState.PENDING, input_text=None, started_at=None)
    assert judge(history._replace(record=empty._replace(**record)), CHAIN) == []


@pytest.mark.parametrize("waits", [0, 1])
def test_a_cancel_that_nobody_has_consumed_yet_is_clean(waits: int) -> None:
    story = (cancelled, begun)[waits]
    history = stored(story())
    late = CommandRecord(9, "e", 3, consumed=False, sequence=None)
    assert judge(history._replace(commands=[*history.commands, late]), CHAIN) == []


def test_a_dead_letter_is_clean_whatever_became_of_it() -> None:
    history = stored(failed())
    for resolution in (None, Resolution.REQUEUED, Resolution.DISCARDED):
        assert judge(history._replace(record=history.record._replace(resolution=resolution)), CHAIN) == []


# --- what is not ------------------------------------------------------------------------------------


def with_record(**changes: Any) -> Corrupt:
    return lambda history: history._replace(record=history.record._replace(**changes))


def with_row(place: int, **changes: Any) -> Corrupt:
    def corrupt(history: LoadedExecution) -> LoadedExecution:
        rows = list(history.attempts)
        rows[place] = rows[place]._replace(**changes)
        return history._replace(attempts=sorted(rows, key=lambda row: row.sequence))

    return corrupt


def with_rows_of(change: Callable[[list[AttemptRow]], Sequence[AttemptRow]]) -> Corrupt:
    return lambda history: history._replace(attempts=list(change(list(history.attempts))))


def with_command(place: int, **changes: Any) -> Corrupt:
    def corrupt(history: LoadedExecution) -> LoadedExecution:
        commands = list(history.commands)
        commands[place] = commands[place]._replace(**changes)
        return history._replace(commands=commands)

    return corrupt


def with_suspicion(node_id: str, attempt: int, lost: int) -> Corrupt:
    return lambda history: history._replace(suspicions=[Suspicion("e", node_id, attempt, lost)])


def swapped(rows: list[AttemptRow]) -> list[AttemptRow]:
    """The outcomes of n1 and n2 in the other order."""
    first, second, one, two = rows
    return [first, second, two._replace(sequence=one.sequence), one._replace(sequence=two.sequence)]


def doubled(rows: list[AttemptRow]) -> list[AttemptRow]:
    return [*rows, rows[-1]._replace(sequence=len(rows) + 1)]


def continued(rows: list[AttemptRow]) -> list[AttemptRow]:
    """An outcome of n2 after the end."""
    last = rows[-1]
    return [*rows, AttemptRow("e", last.sequence + 2, "n2", 1, NodeState.COMPLETED, b"1", None, 1, 2, None)]


@pytest.mark.parametrize(
    ("story", "corrupt", "invariant", "message"),
    [
        ("retried", with_record(state=FAILED), "I13", "e is FAILED, its rows say COMPLETED"),
        ("retried", with_record(completed_at=None), "I13", "e is COMPLETED and has no time of its end"),
        ("begun", with_record(completed_at=7), "I13", "e is RUNNING and has a time of its end"),
        ("begun", with_record(state=WorkflowState.COMPLETED, completed_at=7), "I13", "its rows say RUNNING"),
        ("begun", with_record(input_text=None), "I13", "has a start without inputs"),
        ("begun", with_record(state=WorkflowState.PENDING), "I13", "e is PENDING and has started"),
        ("begun", with_record(started_at=None, input_text=None), "I13", "e is RUNNING and has not started"),
        ("begun", with_record(started_at=None, input_text=None), "I13", "attempt 1 of n0 in e has an outcome, and the"),
        ("failed", with_record(error="another"), "I13", "e has another error than the attempt that ended it"),
        ("begun", with_record(resolution=Resolution.REQUEUED), "I14", "e is RUNNING and was requeued"),
        ("waiting", with_record(parked_until=1), "I15", "e is parked until 1, its rows say"),
        ("begun", with_record(parked_until=1), "I15", "e is parked until 1, its rows say None"),
        ("failed", with_record(parked_until=1), "I14", "e is FAILED and parked"),
        ("retried", with_row(3, sequence=9), "I13", "the sequence of e is not dense: 9 is at place 4"),
        ("retried", with_row(1, sequence=1), "I13", "the sequence of e is not dense: 1 is at place 2"),
        ("retried", with_row(3, node_id="gone"), "I13", "gone of e is no node of its definition"),
        ("retried", with_rows_of(swapped), "I7", "attempt 1 of n2 in e ran before n1 was committed"),
        ("retried", with_rows_of(lambda rows: rows[:1] + rows[2:]), "I7", "attempt 1 of n1 in e ran before n0 was"),
        ("retried", with_row(1, attempt=3), "I6", "the attempts of n0 in e are numbered [1, 3]"),
        ("retried", with_row(0, attempt=2), "I6", "the attempts of n0 in e are numbered [2, 2]"),
        ("retried", with_rows_of(lambda rows: rows[1:]), "I6", "the attempts of n0 in e are numbered [2]"),
        ("retried", with_rows_of(doubled), "I5", "attempt 1 of n2 in e comes after attempt 1, which ended the node"),
        ("retried", with_rows_of(doubled), "I14", "attempt 1 of n2 in e has an outcome from after the end"),
        ("retried", with_row(0, retry_at=None), "I5", "attempt 2 of n0 in e comes after attempt 1, which ended"),
        ("retried", with_row(0, retry_at=0), "I15", "attempt 1 of n0 in e is to be tried again before it ended"),
        ("retried", with_row(1, started_at=1_000), "I15", "attempt 2 of n0 in e started"),
        ("retried", with_row(1, output=None), "I5", "attempt 2 of n0 in e is COMPLETED and has no output"),
        ("retried", with_row(1, error="late"), "I5", "attempt 2 of n0 in e is COMPLETED and has an error"),
        ("failed", with_row(1, error=None), "I5", "attempt 1 of n1 in e is FAILED and has no error"),
        ("failed", with_row(1, output=b"1"), "I5", "attempt 1 of n1 in e is FAILED and has an output"),
        ("retried", with_row(3, retry_at=99_999), "I5", "attempt 1 of n2 in e is COMPLETED and is to be tried again"),
        ("failed", with_row(1, state=NodeState.CANCELLED), "I14", "attempt 1 of n1 in e was cancelled before the exec"),
        ("cancelled", with_rows_of(continued), "I14", "attempt 1 of n2 in e has an outcome from after the end"),
        ("cancelled", with_rows_of(continued), "I13", "the rows of e contradict each other"),
        ("cancelled", with_command(0, sequence=None), "I19", "e is CANCELLED by no cancel"),
        ("cancelled", with_command(0, consumed=False), "I19", "the cancel 1 of e had an effect, and is not consumed"),
        ("cancelled", with_command(1, sequence=4), "I19", "several cancels of e had an effect: 1, 2"),
        ("cancelled", with_record(state=FAILED), "I19", "e is FAILED, and the cancel 1 had an effect"),
        ("begun", with_suspicion("n1", 1, 0), "I17", "attempt 1 of n1 in e is noted as lost 0 times"),
        ("begun", with_suspicion("n1", 2, 1), "I17", "attempt 2 of n1 in e has lost deliveries, and was never due"),
        ("begun", with_suspicion("n2", 1, 1), "I17", "attempt 1 of n2 in e has lost deliveries, and was never due"),
        ("begun", with_suspicion("gone", 1, 1), "I17", "attempt 1 of gone in e has lost deliveries, and there is no"),
    ],
)
def test_what_is_corrupt_is_found(story: str, corrupt: Corrupt, invariant: str, message: str) -> None:
    findings = judge(corrupt(stored(STORIES[story]())), CHAIN)
    found = [each for each in findings if each.invariant == invariant and message in each.message]
    assert len(found) == 1, [str(each) for each in findings]
    assert found[0].execution_id == "e"
    if "attempt " in message and found[0].node_id is not None:
        assert f"attempt {found[0].attempt} of {found[0].node_id}" in found[0].message


def test_more_attempts_than_allowed_are_found() -> None:
    graph = make_graph([[], [0], [1]], [0, 0, 1])
    [finding] = judge(stored(retried()), graph)
    assert finding == Finding("I6", "e", "n0", 2, "n0 in e had 2 attempts instead of 1 at most")


def test_whether_a_retry_was_early_is_not_judged_where_clocks_disagree() -> None:
    history = with_row(1, started_at=1_000)(stored(retried()))
    assert [each.invariant for each in judge(history, CHAIN)] == ["I15"]
    assert judge(history, CHAIN, clocks_agree=False) == []


def test_an_execution_in_the_wrong_partition_is_found() -> None:
    record = stored(begun()).record
    assert list(judge_place(record, 16)) == []
    [finding] = judge_place(record._replace(partition=15 - record.partition), 16)
    assert (finding.invariant, finding.execution_id) == ("I22", "e")


# --- dead letters and keys --------------------------------------------------------------------------


def carried_on() -> tuple[LoadedExecution, LoadedExecution]:
    """A dead letter, and what carries it on."""
    letter = with_record(resolution=Resolution.REQUEUED)(stored(failed()))
    copied = letter.attempts[0]._replace(execution_id="f")
    record = letter.record._replace(
        execution_id="f", state=RUNNING, error=None, completed_at=None, retry_of="e", resolution=None
    )
    return letter, LoadedExecution(record, [copied], [])


def test_what_carries_a_dead_letter_on_is_clean() -> None:
    letter, retry = carried_on()
    assert judge(retry, CHAIN) == []
    assert list(judge_retry(retry, letter, is_kept=True)) == []
    assert list(judge_retry(retry, None, is_kept=False)) == []
    assert list(judge_resolution(letter.record, "f", is_kept=True)) == []
    assert list(judge_resolution(letter.record, None, is_kept=False)) == []
    assert list(judge_resolution(stored(failed()).record, None, is_kept=True)) == []


@pytest.mark.parametrize(
    ("corrupt_letter", "corrupt_retry", "message"),
    [
        (with_record(resolution=None), with_record(), "which carries on e: that one is FAILED and not resolved"),
        (with_record(resolution=Resolution.DISCARDED), with_record(), "that one is FAILED and discarded"),
        (with_record(state=CANCELLED), with_record(), "that one is CANCELLED and requeued"),
        (with_record(), with_record(input_text=b"1"), "has another definition or other inputs"),
        (with_record(), with_record(definition_id="x"), "has another definition or other inputs"),
        (with_record(), with_row(0, output=b"another"), "does not begin with what that one has completed"),
        (with_record(), with_rows_of(lambda rows: []), "does not begin with what that one has completed"),
        (with_record(), with_row(0, attempt=2), "does not begin with what that one has completed"),
    ],
)
def test_what_carries_a_dead_letter_on_wrongly_is_found(
    corrupt_letter: Corrupt, corrupt_retry: Corrupt, message: str
) -> None:
    letter, retry = carried_on()
    [finding] = judge_retry(corrupt_retry(retry), corrupt_letter(letter), is_kept=True)
    assert finding.execution_id == "f"
    assert message in finding.message


def test_a_dead_letter_whose_other_half_is_lost_is_found() -> None:
    letter, retry = carried_on()
    [finding] = judge_retry(retry, None, is_kept=True)
    assert str(finding) == "I2 f carries on e, which is not there"
    [finding] = judge_resolution(letter.record, None, is_kept=True)
    assert str(finding) == "I2 e was requeued, and nothing carries it on"
    [finding] = judge_resolution(letter.record._replace(resolution=Resolution.DISCARDED), "f", is_kept=True)
    assert str(finding) == "I14 e is discarded, and f carries it on"


def test_an_idempotency_key_has_the_execution_that_was_answered() -> None:
    record = stored(begun()).record
    assert list(judge_claim("key", "e", "d", record, is_kept=True)) == []
    assert list(judge_claim("key", "e", "", record, is_kept=True)) == []
    assert list(judge_claim("key", "e", "d", None, is_kept=False)) == []
    [finding] = judge_claim("key", "e", "d", None, is_kept=True)
    assert str(finding) == "I2 e was the answer to the idempotency key 'key', and is not there"
    [finding] = judge_claim("key", "e", "x", record, is_kept=True)
    assert finding.invariant == "I3"


# --- what takes too long ----------------------------------------------------------------------------

NOW = 10_000_000
LONG_AGO = NOW - OVERDUE_MILLISECONDS - 1
JUST_NOW = NOW - OVERDUE_MILLISECONDS + 1


def owners(expires_in_seconds: float, *, owner: str = "one", other: str = "two") -> dict[int, PartitionRecord]:
    here = partition_of("e", 16)
    return {
        here: PartitionRecord(here, 1, owner, expires_in_seconds),
        here + 1: PartitionRecord(here + 1, 1, other, 5.0),
    }


def parked(until: int) -> LoadedExecution:
    return with_record(parked_until=until)(stored(waiting()))


def commanded(created_at: int) -> LoadedExecution:
    return stored(begun())._replace(commands=[CommandRecord(7, "e", created_at, consumed=False, sequence=None)])


def test_a_timer_or_a_cancel_that_an_owner_has_forgotten_is_found() -> None:
    [finding] = overdue(parked(LONG_AGO), owners(5.0), NOW)
    assert str(finding) == f"I15 e was due at {LONG_AGO} and is still parked"
    [finding] = overdue(commanded(LONG_AGO), owners(5.0), NOW)
    assert str(finding) == "I19 the cancel 7 of e waits"


def test_a_partition_that_nobody_takes_over_is_found() -> None:
    [finding] = overdue(stored(begun()), owners(-61.0), NOW)
    assert finding.invariant == "I22"
    assert finding.message.endswith("which nobody takes from one")


@pytest.mark.parametrize(
    ("history", "owned"),
    [
        (parked(JUST_NOW), owners(5.0)),
        (commanded(JUST_NOW), owners(5.0)),
        (parked(LONG_AGO), owners(-1.0)),
        (commanded(LONG_AGO), owners(0.0, owner="")),
        (stored(begun()), owners(-59.0)),
        (stored(begun()), owners(-61.0, other="")),
        (stored(failed()), owners(-61.0)),
        (stored(begun()), owners(0.0, owner="")),
        (parked(LONG_AGO), {}),
    ],
)
def test_what_is_in_motion_or_stands_still_on_purpose_is_not_found(
    history: LoadedExecution, owned: dict[int, PartitionRecord]
) -> None:
    assert list(overdue(history, owned, NOW)) == []


def test_of_a_settled_system_everything_has_ended() -> None:
    assert [str(each) for each in unsettled(stored(begun()))] == ["I1 e is RUNNING"]
    assert [str(each) for each in unsettled(commanded(1))] == [
        "I1 e is RUNNING",
        "I19 the cancel 7 of e was never consumed",
    ]
    for story in (retried, failed, cancelled):
        assert list(unsettled(stored(story()))) == []
