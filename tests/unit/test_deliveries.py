"""What is known of deliveries that other replicas have: when one exists, who is alive, and who has room."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workflow_engine.runtime.core.backoff import Backoff
from workflow_engine.runtime.core.deliveries import (
    DeliveryKey,
    Heartbeat,
    PartitionSight,
    Replicas,
    SeenHeartbeat,
    Sighting,
    alive,
    milliseconds_left,
    named_by,
)
from workflow_engine.runtime.orchestrator.spare import LEAST_ROOM, PATIENCE_SECONDS, ROOM_PER_SLOT, Spare

TIMEOUT = 15_000
NOW = 1_000_000
HOUR = 3_600_000
KEY = DeliveryKey("e1", 0, 1)


def sight(
    deliveries: dict[DeliveryKey, Sighting] | None = None, handed_in: tuple[DeliveryKey, ...] = (), whole: int = 0
) -> PartitionSight:
    return PartitionSight(NOW, whole, deliveries or {}, handed_in)


def replicas(*seen: SeenHeartbeat, now: int = NOW + HOUR, whole: int = 0) -> Replicas:
    """By a clock that is an hour ahead of the partition's: on a cluster they are on different servers."""
    return Replicas(now, whole, seen)


def beat(at: int, replica: str = "r1", *attempts: DeliveryKey, slots: int = 10, free: int = 10) -> SeenHeartbeat:
    return SeenHeartbeat(at, Heartbeat(replica, ("worker",), ("work",), slots, free, 0, "host", "1", 0, attempts))


@pytest.mark.parametrize(
    ("seen", "named_at", "left"),
    [
        (sight({KEY: Sighting("7", None, "")}), None, math.inf),
        (sight(handed_in=(KEY,)), None, math.inf),
        (sight({KEY: Sighting("7", NOW - 1_000, "r1")}), None, TIMEOUT - 1_000),
        (sight({KEY: Sighting("7", NOW - HOUR, "r1")}), NOW + HOUR - 4_000, TIMEOUT - 4_000),
        (sight(), NOW + HOUR - 4_000, TIMEOUT - 4_000),
        (sight({KEY: Sighting("7", NOW - TIMEOUT, "r1")}), None, 0),
        (sight(), None, TIMEOUT - NOW),
        (sight(whole=NOW - 2_000), None, TIMEOUT - 2_000),
    ],
    ids=["queued", "handed in", "taken", "named", "named only", "silent", "nowhere", "wiped"],
)
def test_how_long_a_delivery_exists(seen: PartitionSight, named_at: int | None, left: float) -> None:
    assert milliseconds_left(KEY, seen, named_at, replicas(), TIMEOUT) == left


def test_what_was_wiped_among_the_heartbeats_is_held_against_nobody() -> None:
    wiped = replicas(whole=NOW + HOUR - 3_000)
    assert milliseconds_left(KEY, sight(), None, wiped, TIMEOUT) == TIMEOUT - 3_000


@given(taken=st.integers(0, NOW), named=st.integers(0, NOW), whole=st.integers(0, NOW))
def test_it_exists_as_long_as_the_latest_word_of_it(taken: int, named: int, whole: int) -> None:
    seen = sight({KEY: Sighting("7", taken, "r1")}, whole=whole)
    left = milliseconds_left(KEY, seen, named + HOUR, replicas(), TIMEOUT)
    assert left == max(taken, named, whole) - NOW + TIMEOUT


def test_the_latest_heartbeat_that_names_it_counts() -> None:
    other = DeliveryKey("e2", 1, 3)
    seen = replicas(beat(5, "r1", KEY, other), beat(9, "r2", KEY), beat(7, "r3", KEY))
    assert named_by(seen) == {KEY: 9, other: 5}


def test_alive_is_who_was_heard_within_the_timeout() -> None:
    seen = Replicas(NOW, 0, [beat(NOW - TIMEOUT + 1, "r1"), beat(NOW - TIMEOUT, "r2"), beat(NOW, "r3")])
    assert [each.replica for each in alive(seen, TIMEOUT)] == ["r1", "r3"]


# --- who has room -------------------------------------------------------------------------------------------


def heartbeats(*seen: SeenHeartbeat) -> list[Heartbeat]:
    return [heartbeat for _, heartbeat in seen]


def test_only_others_can_help() -> None:
    spare = Spare("r1")
    spare.note(heartbeats(beat(0, "r1")), {})
    assert not spare.may_help
    assert not spare.serves("work")
    assert spare.room("work", 0) == 0
    spare.note(heartbeats(beat(0, "r1"), beat(0, "r2", free=3)), {})
    assert spare.may_help
    assert spare.serves("work")
    assert not spare.serves("other")


def test_what_is_out_is_bounded_by_the_slots_there_are() -> None:
    spare = Spare("r1")
    spare.note(heartbeats(beat(0, "r2", slots=1)), {})
    assert spare.room("work", 30) == LEAST_ROOM - 30
    spare.note(heartbeats(beat(0, "r2", slots=10), beat(0, "r3", slots=10)), {})
    assert spare.room("work", 30) == 20 * ROOM_PER_SLOT - 30


def test_what_starts_here_soon_is_not_sent_away() -> None:
    spare = Spare("r1")
    spare.note(heartbeats(beat(0, "r2", free=100)), {})
    assert spare.surplus(queued=50, started=0, now=10.0) == 0, "nothing is known yet of how fast it goes here"
    assert spare.surplus(queued=50, started=0, now=10.0 + PATIENCE_SECONDS / 2) == 0
    # Thirty have started within the patience, so thirty more will.
    assert spare.surplus(queued=50, started=30, now=10.0 + PATIENCE_SECONDS) == pytest.approx(20, abs=1)


def test_no_more_is_sent_away_than_others_have_free_slots() -> None:
    spare = Spare("r1")
    handed_out = {"work": 5}
    spare.note(heartbeats(beat(0, "r2", free=10)), handed_out)
    spare.surplus(queued=100, started=0, now=0.0)
    handed_out["work"] = 9
    assert spare.surplus(queued=100, started=0, now=1.0) == 6
    handed_out["work"] = 2
    assert spare.surplus(queued=100, started=0, now=2.0) == 13, "what has come back has freed its slot"


def test_a_backoff_doubles_up_to_its_longest_and_begins_anew() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next_seconds() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.next_seconds() == 0.5
