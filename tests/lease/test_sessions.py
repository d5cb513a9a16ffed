"""Sessions: what clients are granted, and what their holder may acknowledge meanwhile (I3)."""

from dataclasses import replace
from uuid import UUID

import pytest

from keysvc.core.errors import FailedPrecondition, Overloaded
from keysvc.lease.holder import Holder
from keysvc.lease.memory import Memory
from keysvc.lease.news import SUBJECTS_MAX, Change, News
from keysvc.lease.sessions import Place, Sessions
from tests.lease.test_holder import AT, EPOCH, LOG, ME, OTHER_EPOCH, TERMS, Clock

HERE = Place(EPOCH, LOG.timeline, 10)
CHANGED = Change("keys", [UUID(int=7)])


@pytest.fixture
def clock() -> Clock:
    """The holder's clock."""
    return Clock()


@pytest.fixture
def holder(clock: Clock) -> Holder:
    """A member that has applied 10, with a lease of 3 seconds from now on."""
    holder = Holder(Memory(), TERMS, clock)
    holder.joined(ME, LOG)
    holder.renewed(clock.now, News(LOG, []))
    return holder


@pytest.fixture
def sessions(holder: Holder, clock: Clock) -> Sessions:
    """Those with the holder, whose row says that it grants leases."""
    sessions = Sessions(holder, clock)
    sessions.is_announced = True
    return sessions


def changed(holder: Holder, clock: Clock, seq: int) -> None:
    """A renewal brings changes."""
    holder.renewed(clock.now, News(replace(LOG, seq=seq), [CHANGED]))


def test_a_client_gets_what_is_left_of_the_holders_lease(sessions: Sessions, clock: Clock) -> None:
    """On the client's clock, which may go slower; and the time of the database."""
    clock.now += 1
    grant = sessions.renew("me", "s", HERE, stale=False)
    assert grant is not None
    assert grant.lease_seconds == pytest.approx(2 / 1.2)
    assert grant.stale_seconds == 0
    assert (grant.log, grant.changes) == (LOG, [])
    assert (grant.at - AT).total_seconds() == pytest.approx(1)


def test_without_a_lease_there_is_nothing_to_grant(sessions: Sessions, holder: Holder, clock: Clock) -> None:
    """Neither after its end, nor while stale answers are allowed, nor when the process is about to stop."""
    clock.now += 3
    assert sessions.renew("me", "s", HERE, stale=True) is None
    holder.cut_off()
    assert sessions.renew("me", "s", HERE, stale=True) is None
    holder.renewed(clock.now, News(LOG, []))
    assert sessions.renew("me", "s", HERE, stale=True) is not None
    sessions.stop()
    assert sessions.renew("me", "s", HERE, stale=True) is None


def test_nothing_is_granted_before_the_row_says_so(holder: Holder, clock: Clock) -> None:
    """Or whoever finds the process dead would not wait for its clients."""
    sessions = Sessions(holder, clock)
    assert sessions.renew("me", "s", HERE, stale=False) is None
    assert len(sessions) == 0


def test_only_who_asks_is_granted_more_than_the_lease(sessions: Sessions, clock: Clock) -> None:
    """What the operators allow for an outage; and then it is waited for."""
    for stale, seconds in ((False, 3), (True, 5)):
        grant = sessions.renew("me", f"s{stale}", HERE, stale=stale)
        assert grant is not None
        assert grant.lease_seconds + grant.stale_seconds == pytest.approx(seconds / 1.2)
        assert sessions.ends_at == clock.now + seconds


def test_a_client_hears_what_has_changed_since(sessions: Sessions, holder: Holder, clock: Clock) -> None:
    """Since what it has applied; and everything must go where nobody knows."""
    changed(holder, clock, 11)
    changed(holder, clock, 12)
    for number, (place, changes) in enumerate(
        (
            (HERE, [CHANGED, CHANGED]),
            (HERE._replace(seq=11), [CHANGED]),
            (HERE._replace(seq=12), []),
            (HERE._replace(seq=99), []),
            (HERE._replace(seq=9), None),
            (HERE._replace(epoch=OTHER_EPOCH), None),
            (HERE._replace(timeline="00000002"), None),
            (None, None),
        )
    ):
        grant = sessions.renew("me", f"s{number}", place, stale=False)
        assert grant is not None
        assert grant.changes == changes, place
        assert grant.log.seq == 12


def test_a_client_is_told_what_it_has_not_said(sessions: Sessions, holder: Holder, clock: Clock) -> None:
    """Nothing once it has said all; and only to renew where nobody knows what has changed for it."""
    assert sessions.wake_up("me", "s") is None, "it has no session"
    changed(holder, clock, 11)
    changed(holder, clock, 12)
    there = HERE._replace(seq=12)
    for number, (place, told) in enumerate(
        (
            (HERE, (there, 10, [CHANGED, CHANGED])),
            (HERE._replace(seq=11), (there, 11, [CHANGED])),
            (there, None),
            (HERE._replace(seq=99), None),
            (HERE._replace(seq=9), (there, 9, None)),
            (HERE._replace(epoch=OTHER_EPOCH), (there, None, None)),
            (HERE._replace(timeline="00000002"), (there, None, None)),
            (None, (there, None, None)),
        )
    ):
        sessions.renew("me", f"s{number}", place, stale=False)
        assert sessions.wake_up("me", f"s{number}") == told, place
    assert sessions.acknowledged() == 0, "it has said nothing because of that"


def test_nobody_goes_back(sessions: Sessions) -> None:
    """Who says less than before in the same session is another client, or an old request: what was said stays."""
    for place in (HERE._replace(seq=7), None, HERE._replace(seq=8), HERE._replace(epoch=OTHER_EPOCH, seq=3)):
        assert sessions.renew("me", "s", place, stale=False)
    assert sessions.renew("me", "s", HERE._replace(seq=8), stale=False)
    with pytest.raises(FailedPrecondition, match="session_id"):
        sessions.renew("me", "s", HERE._replace(seq=7), stale=False)
    assert sessions.acknowledged() == 8


def test_a_session_has_one_stream(sessions: Sessions) -> None:
    """The last one, for as long as the session lasts."""
    assert sessions.open_stream("me", "s") is None
    sessions.renew("me", "s", None, stale=False)
    assert sessions.open_stream("somebody", "s") is None
    first = sessions.open_stream("me", "s")
    assert first is not None
    assert sessions.has_stream("me", "s", first)
    second = sessions.open_stream("me", "s")
    assert second is not None
    assert (sessions.has_stream("me", "s", first), sessions.has_stream("me", "s", second)) == (False, True)
    sessions.close("me", "s")
    assert not sessions.has_stream("me", "s", second)


def test_many_changes_are_not_kept(sessions: Sessions, holder: Holder, clock: Clock) -> None:
    """Clients that would have to drop more than a holder forget everything instead."""
    many = Change("keys", [UUID(int=number) for number in range(SUBJECTS_MAX)])
    for seq, changes, kept in ((11, [CHANGED], [CHANGED]), (12, [many], None), (13, [CHANGED, many], None)):
        holder.renewed(clock.now, News(replace(LOG, seq=seq), changes))
        grant = sessions.renew("me", "s", HERE, stale=False)
        assert grant is not None
        assert grant.changes == kept


def test_nothing_is_acknowledged_over_clients_heads(sessions: Sessions, holder: Holder, clock: Clock) -> None:
    """What has been answered to a client it need not have applied; what it has said, it has."""
    assert sessions.acknowledged() == 10
    sessions.renew("me", "s", HERE, stale=False)
    sessions.renew("me", "t", HERE, stale=False)
    changed(holder, clock, 11)
    assert sessions.acknowledged() == 10
    sessions.renew("me", "s", HERE, stale=False)
    assert sessions.acknowledged() == 10, "it was told, and may not have heard"
    sessions.renew("me", "s", HERE._replace(seq=11), stale=False)
    assert sessions.acknowledged() == 10, "the other one"
    sessions.renew("me", "t", HERE._replace(seq=11), stale=False)
    assert sessions.acknowledged() == 11


def test_a_new_client_has_applied_nothing(sessions: Sessions, holder: Holder, clock: Clock) -> None:
    """Until it says so."""
    sessions.renew("me", "s", None, stale=False)
    assert sessions.acknowledged() == 0


def test_a_client_may_be_ahead_of_its_holder(sessions: Sessions) -> None:
    """It has moved from another one; the holder acknowledges only what it has applied itself."""
    sessions.renew("me", "s", HERE._replace(seq=12), stale=False)
    assert sessions.acknowledged() == 10


@pytest.mark.parametrize("ends", ["by its end", "by closing it"])
def test_a_session_that_has_ended_holds_up_nothing(sessions: Sessions, holder: Holder, clock: Clock, ends: str) -> None:
    """The lease has passed, or the client says that it will answer nothing any more."""
    sessions.renew("me", "s", HERE, stale=False)
    clock.now += 2
    changed(holder, clock, 11)
    sessions.close("you", "s")
    assert sessions.acknowledged() == 10, "somebody else's session of the same name"
    if ends == "by closing it":
        sessions.close("me", "s")
    else:
        clock.now += 0.99
        assert sessions.acknowledged() == 10
        clock.now += 0.01
    assert sessions.acknowledged() == 11
    assert len(sessions) == 0


def test_a_shorter_lease_ends_no_earlier_one(sessions: Sessions, holder: Holder, clock: Clock) -> None:
    """The answer to the second renewal may be lost, or never be sent."""
    sessions.renew("me", "s", HERE, stale=True)
    sessions.renew("me", "s", HERE, stale=False)
    assert sessions.ends_at == clock.now + 5


def test_a_new_member_acknowledges_no_more_than_the_old_one(sessions: Sessions, holder: Holder, clock: Clock) -> None:
    """Where a holder must join again its clients' leases go on, which it knows them by."""
    assert sessions.acknowledged_anew() is None
    sessions.renew("me", "s", HERE, stale=False)
    holder.lose()
    assert sessions.acknowledged_anew() == HERE
    holder.joined(UUID(int=4), replace(LOG, seq=12))
    assert sessions.acknowledged() == 10
    holder.joined(UUID(int=4), replace(LOG, seq=12, timeline="00000002"))
    assert sessions.acknowledged() == 0, "revisions of another timeline say nothing"
    clock.now += 3
    assert sessions.acknowledged() == 12
    assert sessions.acknowledged_anew() is None


def test_clients_of_several_logs_have_nothing_in_common(sessions: Sessions) -> None:
    """Then a new member acknowledges nothing at first."""
    sessions.renew("me", "s", HERE, stale=False)
    sessions.renew("me", "t", HERE._replace(epoch=OTHER_EPOCH), stale=False)
    found = sessions.acknowledged_anew()
    assert found is not None
    assert found.seq == 0
    assert sessions.acknowledged() == 0


def test_there_are_only_so_many_sessions(holder: Holder, clock: Clock) -> None:
    """More are refused, until one has ended."""
    sessions = Sessions(holder, clock, sessions_max=2)
    sessions.is_announced = True
    for name in ("a", "b", "a"):
        sessions.renew("me", name, HERE, stale=False)
    with pytest.raises(Overloaded):
        sessions.renew("me", "c", HERE, stale=False)
    sessions.close("me", "a")
    assert sessions.renew("me", "c", HERE, stale=False) is not None
    clock.now += 2
    holder.renewed(clock.now, News(LOG, []))
    clock.now += 1
    assert sessions.renew("me", "d", HERE, stale=False) is not None
    assert len(sessions) == 1
