"""Failpoints: how they are written, when they fire, and that they are off by default."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from workflow_engine.runtime import failpoints
from workflow_engine.runtime.failpoints import FailpointRaised, configure, failpoint


@pytest.fixture(autouse=True)
def _off_again() -> Iterator[None]:
    yield
    configure("")


@pytest.fixture
def signals(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What would have been sent to which process."""
    sent: list[tuple[int, int]] = []
    kill = SimpleNamespace(kill=lambda pid, number: sent.append((pid, number)), getpid=os.getpid)
    monkeypatch.setattr(failpoints, "os", kill)
    return sent


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long would have been waited."""
    waited: list[float] = []
    event = SimpleNamespace(wait=waited.append)
    monkeypatch.setattr(failpoints, "threading", SimpleNamespace(Event=lambda: event, Lock=threading.Lock))
    return waited


def passes_until_raised(name: str, limit: int = 20) -> list[int]:
    """At which passings (the first is 1) a failpoint raises."""
    raised = []
    for passing in range(1, limit + 1):
        try:
            failpoint(name)
        except FailpointRaised:
            raised.append(passing)
    return raised


def test_off_by_default() -> None:
    assert passes_until_raised("owner.commit.before") == []


def test_raise_at_the_first_passing() -> None:
    configure("owner.commit.before:raise")
    with pytest.raises(FailpointRaised, match=r"^failpoint owner\.commit\.before$"):
        failpoint("owner.commit.before")
    assert passes_until_raised("owner.commit.before") == []


@pytest.mark.parametrize("count", [1, 2, 7])
def test_raise_at_the_nth_passing_and_only_then(count: int) -> None:
    configure(f"a.b@{count}:raise")
    assert passes_until_raised("a.b") == [count]


def test_other_names_do_not_count() -> None:
    configure("a.b@2:raise")
    assert passes_until_raised("a.c") == []
    assert passes_until_raised("a") == []
    assert passes_until_raised("a.b") == [2]


def test_the_star_counts_every_passing() -> None:
    configure("*@4:raise")
    failpoint("a")
    failpoint("b")
    failpoint("a")
    with pytest.raises(FailpointRaised, match=r"^failpoint c$"):
        failpoint("c")
    assert passes_until_raised("a") == []


def test_several_items_each_with_its_own_count() -> None:
    configure(" a@2:raise , a@4:raise,b:raise, ")
    assert passes_until_raised("a") == [2, 4]
    assert passes_until_raised("b") == [1]


def test_configuring_again_starts_counting_anew() -> None:
    configure("a@3:raise")
    failpoint("a")
    failpoint("a")
    configure("a@3:raise")
    assert passes_until_raised("a") == [3]


def test_switching_off() -> None:
    configure("a:raise")
    configure("")
    assert passes_until_raised("a") == []
    configure("a:raise")
    configure("  ,, ")
    assert passes_until_raised("a") == []


def test_delay_of_one_millisecond_goes_on_afterwards() -> None:
    configure("a:delay(1), a@2:raise")
    failpoint("a")
    with pytest.raises(FailpointRaised):
        failpoint("a")


def test_delay_waits_so_many_milliseconds(waits: list[float]) -> None:
    configure("a@2:delay(250)")
    failpoint("a")
    assert waits == []
    failpoint("a")
    failpoint("a")
    assert waits == [0.25]


def test_two_items_at_one_passing_act_in_the_order_written(waits: list[float]) -> None:
    configure("*:delay(5),a:raise")
    with pytest.raises(FailpointRaised):
        failpoint("a")
    assert waits == [0.005]


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_signals_go_to_this_process(signals: list[tuple[int, int]], action: str, number: int) -> None:
    configure(f"a@2:{action}")
    failpoint("a")
    assert signals == []
    failpoint("a")
    failpoint("a")
    assert signals == [(os.getpid(), number)]


@pytest.mark.parametrize(
    "item",
    [
        "a",
        "a:",
        ":raise",
        "a:explode",
        "a@:raise",
        "a@x:raise",
        "a@-1:raise",
        "a@1.5:raise",
        "a:delay",
        "a:delay()",
        "a:delay(x)",
        "a:delay(-1)",
        "a:delay(1.5)",
        "a:raise(1)",
        "a b:raise",
        "A:raise",
        "a:raise b:raise",
        "a:RAISE",
    ],
)
def test_an_error_names_the_item(item: str) -> None:
    with pytest.raises(ValueError, match="FAILPOINTS: ") as caught:
        configure(f"ok:raise,{item},fine@2:kill")
    assert str(caught.value) == (f"FAILPOINTS: {item!r} is not of the form name@n:kill|stop|raise|delay(milliseconds)")


def test_an_error_leaves_everything_as_it_was() -> None:
    configure("a@2:raise")
    failpoint("a")
    with pytest.raises(ValueError, match="'nonsense'"):
        configure("b:raise,nonsense")
    assert passes_until_raised("a") == [1]
    assert passes_until_raised("b") == []


def test_passings_are_counted_across_threads() -> None:
    configure("a@1000:raise")
    with ThreadPoolExecutor(8) as pool:
        raised = list(pool.map(lambda _: passes_until_raised("a", 250), range(8)))
    assert sum(map(len, raised)) == 1
