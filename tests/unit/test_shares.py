"""Which replica owns which partition."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.core.shares import (
    LEFT_OVER_SECONDS,
    NOBODY,
    Look,
    PartitionRecord,
    partition_of,
    plan,
    share_of,
)

REPLICAS = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=9, unique=True)
INTERVAL = 15.0


def record(partition: int, owner: str = NOBODY, expires_in_seconds: float = 10.0) -> PartitionRecord:
    return PartitionRecord(partition, 7, owner, expires_in_seconds if owner else 0.0)


def taken(look: Look, replica: str, owned: set[int]) -> list[int]:
    return [each.partition for each in plan(look, replica, owned, INTERVAL).take]


@given(st.integers(1, 1024), st.text())
def test_an_executions_partition_is_one_of_them_and_always_the_same(partitions: int, execution_id: str) -> None:
    assert 0 <= partition_of(execution_id, partitions) < partitions
    assert partition_of(execution_id, partitions) == partition_of(execution_id, partitions)


def test_executions_spread_over_the_partitions() -> None:
    counts = [0] * 16
    for number in range(16_000):
        counts[partition_of(f"execution-{number}", 16)] += 1
    assert min(counts) > 800
    assert max(counts) < 1_200


@given(REPLICAS, st.integers(0, 1024))
def test_shares_add_up_and_differ_by_one_at_most(replicas: list[str], partitions: int) -> None:
    shares = [share_of(replica, replicas, partitions) for replica in replicas]
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


def test_nobody_starves() -> None:
    assert [share_of(each, "abcde", 16) for each in "abcde"] == [4, 3, 3, 3, 3]


def test_what_nobody_owns_is_taken_up_to_the_share() -> None:
    look = Look([record(number) for number in range(5)], ["a", "b"])
    assert taken(look, "a", set()) == [0, 1, 2]
    assert taken(look, "b", set()) == [0, 1]
    assert taken(look, "a", {0, 1, 2}) == [0, 1, 2], "what it believes to own and does not is lost, and free"


def test_what_has_expired_is_taken_and_what_has_not_is_left() -> None:
    look = Look([record(0, "b", 0.0), record(1, "b", -5.0), record(2, "b", 3.0), record(3, "a")], ["a"])
    decided = plan(look, "a", {3}, INTERVAL)
    assert [each.partition for each in decided.take] == [0, 1]
    assert (decided.release, decided.lost, decided.next_look_seconds) == ([], [], 3.0)


def test_its_own_former_partitions_are_taken_back_at_once() -> None:
    look = Look([record(0, "a", 100.0), record(1, "b", 100.0)], ["a", "b"])
    assert taken(look, "a", set()) == [0]


def test_what_another_owns_by_now_is_lost() -> None:
    look = Look([record(0, "b"), record(1, "a"), record(2)], ["a", "b"])
    decided = plan(look, "a", {0, 1, 2}, INTERVAL)
    assert decided.lost == [0, 2]
    assert [each.partition for each in decided.take] == [2]


def test_more_than_the_share_is_handed_over_one_at_a_time() -> None:
    look = Look([record(number, "a") for number in range(4)], ["a", "b"])
    decided = plan(look, "a", {0, 1, 2, 3}, INTERVAL)
    assert (decided.release, decided.take, decided.next_look_seconds) == ([3], [], INTERVAL)


def test_whoever_has_its_share_looks_when_a_lease_of_others_runs_out() -> None:
    look = Look([record(0, "a"), record(1, "b", 2.0)], ["a", "b"])
    assert plan(look, "a", {0}, INTERVAL).next_look_seconds == 2.0


def test_whoever_leaves_what_is_free_to_others_looks_again_soon() -> None:
    """Its owner is dead, and still counts as alive."""
    look = Look([record(0, "a"), record(1, "b", -1.0)], ["a", "b"])
    decided = plan(look, "a", {0}, INTERVAL)
    assert (decided.take, decided.next_look_seconds) == ([], LEFT_OVER_SECONDS)


def test_alone_and_without_end() -> None:
    """The embedded store: one partition, one process, a lease that never runs out."""
    decided = plan(Look([record(0)], ["me"]), "me", set(), math.inf)
    assert ([each.partition for each in decided.take], decided.next_look_seconds) == ([0], math.inf)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 20])
def test_replicas_that_come_one_after_another_end_with_fair_shares(count: int) -> None:
    """Each round every replica looks once, in turn: after a few rounds everybody has its share and nobody moves."""
    owners = [NOBODY] * 16
    replicas: list[str] = []
    for number in range(count):
        replicas.append(f"replica-{number:02}")
        for _ in range(40):
            for replica in replicas:
                look = Look([record(each, owner) for each, owner in enumerate(owners)], list(replicas))
                mine = {each for each, owner in enumerate(owners) if owner == replica}
                decided = plan(look, replica, mine, INTERVAL)
                assert decided.lost == []
                for each in decided.take:
                    owners[each.partition] = replica
                for partition in decided.release:
                    owners[partition] = NOBODY
    assert [owners.count(each) for each in replicas] == [share_of(each, replicas, 16) for each in replicas]
