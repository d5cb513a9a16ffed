"""The collector: who is dead."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from keysvc.lease.collector import Collector
from keysvc.lease.news import Census, Log, Member
from keysvc.lease.terms import Terms

AT = datetime(2026, 5, 17, tzinfo=UTC)
TERMS = Terms()
LOG = Log(UUID(int=1), "00000001", 20, AT)

DEAD_SECONDS = 3 * (1.2 * 3 + 0.05)


def member(*, host: str = "a", lease_ms: int = 3000, beat: int = 1) -> Member:
    """A member."""
    return Member(UUID(int=ord(host)), host, 20, beat, lease_ms)


def census(*members: Member, **values: Any) -> Census:
    """What was read of the members."""
    return replace(Census(LOG, 5000, members, session=1), **values)


def test_a_member_is_dead_when_its_beat_stands_still() -> None:
    """From the answer that showed it first to the question that shows it again."""
    collector = Collector(TERMS)
    assert collector.counted(census(member()), 100.0, 100.5) == []
    assert collector.counted(census(member()), 100.5 + DEAD_SECONDS - 0.01, 200.0) == []
    assert collector.counted(census(member()), 100.5 + DEAD_SECONDS, 200.0) == [member()]


def test_each_row_has_its_own_time() -> None:
    """A longer lease takes longer to be dead."""
    collector = Collector(TERMS)
    rows = census(member(), member(host="b", lease_ms=30_000))
    collector.counted(rows, 100.0, 100.0)
    assert [each.host for each in collector.counted(rows, 100 + DEAD_SECONDS, 120.0)] == ["a"]


@pytest.mark.parametrize(
    "later",
    [
        census(member(beat=2)),
        census(member(), session=2),
        census(member(), log=replace(LOG, timeline="00000002")),
        census(member(), log=replace(LOG, epoch=UUID(int=2))),
    ],
    ids=["it renewed", "another connection", "a promotion", "another epoch"],
)
def test_an_observation_begins_anew(later: Census) -> None:
    """What was seen before says nothing of what is there now."""
    collector = Collector(TERMS)
    collector.counted(census(member()), 100.0, 100.0)
    assert collector.counted(later, 100 + DEAD_SECONDS, 100 + DEAD_SECONDS) == []
    assert collector.counted(later, 100 + 2 * DEAD_SECONDS, 200.0) == [*later.members]


def test_who_was_away_is_observed_anew() -> None:
    """A row that comes back, as after a restore, has not stood still for all that time."""
    collector = Collector(TERMS)
    collector.counted(census(member()), 100.0, 100.0)
    collector.counted(census(), 101.0, 101.0)
    assert collector.counted(census(member()), 100 + DEAD_SECONDS, 100 + DEAD_SECONDS) == []


def test_the_dead_stay_dead() -> None:
    """A row that could not be deleted is told of again."""
    collector = Collector(TERMS)
    collector.counted(census(member()), 100.0, 100.0)
    for now in (120.0, 121.0):
        assert collector.counted(census(member()), now, now) == [member()]


def test_a_beat_that_goes_back_is_another_one_too() -> None:
    """Nobody counts on across it."""
    collector = Collector(TERMS)
    collector.counted(census(member(beat=5)), 100.0, 100.0)
    assert collector.counted(census(member(beat=4)), 120.0, 120.0) == []
    assert collector.counted(census(member(beat=5)), 121.0, 121.0) == []
