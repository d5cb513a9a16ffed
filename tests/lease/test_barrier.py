"""The barrier: when a change is certain; who must be waited for, and who is dead."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from keysvc.core.receipt import Path
from keysvc.core.revision import Revision
from keysvc.lease.barrier import Barrier, Commit, Promotions
from keysvc.lease.collector import Collector
from keysvc.lease.news import Census, Log, Member
from keysvc.lease.terms import Terms

EPOCH = UUID(int=1)
AT = datetime(2026, 5, 17, tzinfo=UTC)
TERMS = Terms()
LOG = Log(EPOCH, "00000001", 20, AT)
COMMIT = Commit(Revision(EPOCH, 20), "00000001", 5000, AT)


def member(applied: int, *, host: str = "a", lease_ms: int = 3000, beat: int = 1) -> Member:
    """A member."""
    return Member(UUID(int=ord(host)), host, applied, beat, lease_ms)


def census(*members: Member, **values: Any) -> Census:
    """What was read of the members."""
    return replace(Census(LOG, 5000, members, session=1), **values)


def counted(barrier: Barrier, found: Census, sent: float, *, is_complete: bool = True) -> bool:
    """Tell a barrier what was read."""
    return barrier.counted(found, sent, is_complete=is_complete)


def test_without_members_a_change_is_certain() -> None:
    """As soon as they were read after the commit."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    assert barrier.certain(100.0) is None
    assert counted(barrier, census(), 100.0)
    assert barrier.certain(100.0) is Path.ACK


def test_members_read_before_the_commit_say_nothing() -> None:
    """Somebody may have joined since."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    counted(barrier, census(), 99.999)
    assert barrier.certain(100.0) is None


def test_everybody_must_acknowledge() -> None:
    """Who has not is named."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    counted(barrier, census(member(20), member(19, host="b")), 100.0)
    assert barrier.certain(100.0) is None
    assert [each.host for each in barrier.unacknowledged] == ["b"]
    counted(barrier, census(member(20), member(20, host="b")), 100.1)
    assert barrier.certain(100.1) is Path.ACK


def test_the_longest_lease_of_those_who_have_not_is_waited_for() -> None:
    """Counted from the commit; those who have acknowledged do not matter."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    found = census(member(19), member(19, host="b", lease_ms=4000), member(20, host="c", lease_ms=5000))
    counted(barrier, found, 100.0)
    assert barrier.ends_at == pytest.approx(100 + 1.2 * 4 + 0.05)
    assert barrier.certain(barrier.ends_at - 0.001) is None
    assert barrier.certain(barrier.ends_at) is Path.TIMER


def test_when_the_members_were_never_read_the_longest_that_is_allowed_is_waited_for() -> None:
    """The database is away: the timer runs on."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    assert barrier.certain(100 + 1.2 * 5 + 0.049) is None
    assert barrier.certain(100 + 1.2 * 5 + 0.051) is Path.TIMER


def test_where_rows_may_be_missing_nobody_s_acknowledgement_counts() -> None:
    """Shortly after a promotion: the longest lease that is allowed, whoever is there."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    counted(barrier, census(member(20)), 100.0, is_complete=False)
    assert barrier.certain(106.0) is None
    assert barrier.certain(106.06) is Path.TIMER


@pytest.mark.parametrize("log", [replace(LOG, timeline="00000002"), replace(LOG, epoch=UUID(int=2))])
def test_in_another_log_only_the_timer_ends_it(log: Log) -> None:
    """If the change is there too, the wait begins anew."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    assert not counted(barrier, census(log=log), 101.0)
    barrier.moved(log, 5000, 102.0)
    assert counted(barrier, census(log=log), 103.0)
    assert barrier.certain(103.0) is None
    assert barrier.certain(102 + 1.2 * 5 + 0.06) is Path.TIMER


def test_a_promotion_is_over_when_the_longest_lease_is() -> None:
    """Known for so long to this process; a database that was never promoted, or cannot tell, needs no waiting."""
    promotions = Promotions()
    promoted = census(log=replace(LOG, timeline="00000002"))
    promotions.note(promoted.log, 100.0)
    assert not promotions.is_over(promoted, 106.0, TERMS)
    promotions.note(promoted.log, 105.0)
    assert promotions.is_over(promoted, 106.06, TERMS)
    again = census(log=replace(LOG, timeline="00000003"))
    promotions.note(again.log, 107.0)
    assert not promotions.is_over(again, 108.0, TERMS)
    for timeline in ("00000001", ""):
        assert promotions.is_over(census(log=replace(LOG, timeline=timeline)), 0.0, TERMS)


DEAD_SECONDS = 3 * (1.2 * 3 + 0.05)


def test_a_member_is_dead_when_its_beat_stands_still() -> None:
    """From the answer that showed it first to the question that shows it again."""
    collector = Collector(TERMS)
    assert collector.counted(census(member(20)), 100.0, 100.5) == []
    assert collector.counted(census(member(20)), 100.5 + DEAD_SECONDS - 0.01, 200.0) == []
    assert collector.counted(census(member(20)), 100.5 + DEAD_SECONDS, 200.0) == [member(20)]


def test_each_row_has_its_own_time() -> None:
    """A longer lease takes longer to be dead."""
    collector = Collector(TERMS)
    rows = census(member(20), member(20, host="b", lease_ms=30_000))
    collector.counted(rows, 100.0, 100.0)
    assert [each.host for each in collector.counted(rows, 100 + DEAD_SECONDS, 120.0)] == ["a"]


@pytest.mark.parametrize(
    "later",
    [
        census(member(20, beat=2)),
        census(member(20), session=2),
        census(member(20), log=replace(LOG, timeline="00000002")),
        census(member(20), log=replace(LOG, epoch=UUID(int=2))),
    ],
    ids=["it renewed", "another connection", "a promotion", "another epoch"],
)
def test_an_observation_begins_anew(later: Census) -> None:
    """What was seen before says nothing of what is there now."""
    collector = Collector(TERMS)
    collector.counted(census(member(20)), 100.0, 100.0)
    assert collector.counted(later, 100 + DEAD_SECONDS, 100 + DEAD_SECONDS) == []
    assert collector.counted(later, 100 + 2 * DEAD_SECONDS, 200.0) == [*later.members]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"lease_seconds": 0.1}, "lease_seconds"),
        ({"renew_seconds": 2}, "renew_seconds"),
        ({"clock_rate": 0.9}, "clock"),
    ],
)
def test_terms_that_cannot_be_kept_are_refused(values: dict[str, float], named: str) -> None:
    """The parameter is named."""
    with pytest.raises(ValueError, match=named):
        Terms(**values)


def test_a_lease_as_others_see_it_includes_the_time_after_it() -> None:
    """Every wait is for both."""
    terms = Terms(lease_seconds=3, stale_seconds=2.0004)
    assert terms.lease_ms == 5001
    assert terms.wait_seconds(5000) == pytest.approx(6.05)
    assert terms.collect_seconds(5000) == pytest.approx(18.15)
