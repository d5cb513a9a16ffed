"""The barrier: when a change is certain, and who must be waited for."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from keysvc.core.receipt import Path
from keysvc.core.revision import Revision
from keysvc.lease.barrier import Barrier, Commit, Promotions
from keysvc.lease.news import Census, Log, Member
from keysvc.lease.terms import Terms

EPOCH = UUID(int=1)
AT = datetime(2026, 5, 17, tzinfo=UTC)
TERMS = Terms()
LOG = Log(EPOCH, "00000001", 20, AT)
COMMIT = Commit(Revision(EPOCH, 20), "00000001", 5000, AT)


def member(applied: int, *, host: str = "a", lease_ms: int = 3000) -> Member:
    """A member."""
    return Member(UUID(int=ord(host)), host, applied, 1, lease_ms)


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


def test_what_was_read_once_is_forgotten_when_more_is_known() -> None:
    """Of two censuses the later one counts: for whom it waits, and how long."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    counted(barrier, census(member(19, lease_ms=5000), member(19, host="b", lease_ms=1000)), 100.0)
    assert barrier.ends_at == pytest.approx(100 + 1.2 * 5 + 0.05)
    counted(barrier, census(member(20, lease_ms=5000), member(19, host="b", lease_ms=1000)), 100.1)
    assert [each.host for each in barrier.unacknowledged] == ["b"]
    assert barrier.ends_at == pytest.approx(100 + 1.2 + 0.05)


def test_who_joins_after_the_change_has_acknowledged_it() -> None:
    """Its row says so from the beginning, so it is waited for by nobody."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    counted(barrier, census(member(20), member(21, host="n")), 100.0)
    assert barrier.certain(100.0) is Path.ACK


def test_where_rows_may_be_missing_they_may_be_found_again() -> None:
    """When the promotion is over acknowledgements count, for a change that was committed after it."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    counted(barrier, census(member(20)), 100.0, is_complete=False)
    assert barrier.certain(103.0) is None
    counted(barrier, census(member(20)), 103.0, is_complete=True)
    assert barrier.certain(103.0) is Path.ACK


def test_a_change_that_has_moved_is_never_acknowledged() -> None:
    """Not even when the promotion is over: its number may have been acknowledged in the other log."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    log = replace(LOG, epoch=UUID(int=2))
    barrier.moved(log, 4000, 101.0)
    assert barrier.commit.revision == Revision(log.epoch, 20)
    assert barrier.ends_at == pytest.approx(101 + 1.2 * 4 + 0.05)
    counted(barrier, census(member(20), log=log), 102.0)
    assert barrier.certain(102.0) is None
    assert barrier.ends_at == pytest.approx(101 + 1.2 * 5 + 0.05)


def test_a_change_can_move_twice() -> None:
    """Each time the wait begins anew."""
    barrier = Barrier(COMMIT, 100.0, TERMS)
    barrier.moved(replace(LOG, timeline="00000002"), 5000, 101.0)
    assert not counted(barrier, census(log=replace(LOG, timeline="00000003")), 102.0)
    barrier.moved(replace(LOG, timeline="00000003"), 5000, 102.0)
    assert counted(barrier, census(log=replace(LOG, timeline="00000003")), 103.0)
    assert barrier.certain(101 + 1.2 * 5 + 0.06) is None
    assert barrier.certain(102 + 1.2 * 5 + 0.06) is Path.TIMER


def test_a_timeline_of_another_epoch_is_another_one() -> None:
    """A restored database may count its timelines again."""
    promotions = Promotions()
    promoted = census(log=replace(LOG, timeline="00000002"))
    promotions.note(promoted.log, 100.0)
    restored = census(log=replace(promoted.log, epoch=UUID(int=2)))
    promotions.note(restored.log, 110.0)
    assert not promotions.is_over(restored, 111.0, TERMS)
