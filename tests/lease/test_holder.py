"""The holder: when it may answer from memory, and what it may remember."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from keysvc.core.revision import Revision
from keysvc.lease.holder import Holder, Outcome, Standing
from keysvc.lease.memory import Memory
from keysvc.lease.news import SUBJECTS_MAX, Change, Log, News
from keysvc.lease.terms import Terms
from tests.records import HOME, KEY_ID, record

EPOCH, OTHER_EPOCH = UUID(int=1), UUID(int=2)
ME = UUID(int=3)
AT = datetime(2026, 5, 17, tzinfo=UTC)
TERMS = Terms(lease_seconds=3, renew_seconds=0.5, stale_seconds=2)
LOG = Log(EPOCH, "00000001", 10, AT)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """What it shows."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The holder's clock."""
    return Clock()


@pytest.fixture
def holder(clock: Clock) -> Holder:
    """A member that has applied 10, with a lease from now on, and remembers a key."""
    holder = Holder(Memory(), TERMS, clock)
    holder.joined(ME, LOG)
    assert holder.renewed(clock.now, News(LOG, [])) is Outcome.EXTENDED
    holder.remember(b"key", record(), Revision(EPOCH, 10), ME)
    assert holder.memory.find(b"key") is not None
    return holder


def log(**values: Any) -> Log:
    """Where the log is."""
    return replace(LOG, **values)


def test_before_the_first_renewal_there_is_no_lease(clock: Clock) -> None:
    """A member has none by joining."""
    holder = Holder(Memory(), TERMS, clock)
    assert holder.standing() is Standing.NOTHING
    holder.joined(ME, LOG)
    assert holder.standing() is Standing.NOTHING
    assert (holder.member_id, holder.revision) == (ME, Revision(EPOCH, 10))


def test_a_lease_is_counted_from_the_sending(holder: Holder, clock: Clock) -> None:
    """However late the answer comes; at its end it is over."""
    sent = clock.now
    clock.now += 0.9
    holder.renewed(sent, News(log(at=AT + timedelta(seconds=0.5)), []))
    clock.now = sent + 2.999
    assert holder.standing() is Standing.LEASE
    clock.now = sent + 3
    assert holder.standing() is Standing.NOTHING


def test_an_earlier_renewal_does_not_make_a_lease_shorter(holder: Holder, clock: Clock) -> None:
    """The end never goes back."""
    holder.renewed(clock.now - 2, News(log(at=AT - timedelta(seconds=2)), []))
    clock.now += 2.5
    assert holder.standing() is Standing.LEASE


def test_stale_needs_a_failed_renewal_and_has_an_end(holder: Holder, clock: Clock) -> None:
    """A lease that ended because nobody asked is no outage."""
    clock.now += 4
    assert holder.standing() is Standing.NOTHING
    holder.cut_off()
    assert holder.standing() is Standing.STALE
    clock.now = 100 + 3 + 2
    assert holder.standing() is Standing.NOTHING
    holder.renewed(clock.now, News(log(at=AT + timedelta(seconds=5)), []))
    clock.now += 3.5
    assert holder.standing() is Standing.NOTHING


def test_changes_are_applied_and_said(holder: Holder, clock: Clock) -> None:
    """What they name is forgotten; the next acknowledgement has them."""
    news = News(log(seq=12, at=AT), [Change("keys", [KEY_ID])])
    assert holder.renewed(clock.now, news) is Outcome.MOVED
    assert holder.memory.find(b"key") is None
    assert holder.applied.seq == 12


def test_a_fetch_applies_and_never_extends(holder: Holder, clock: Clock) -> None:
    """A push would look like one."""
    clock.now += 2.9
    assert holder.fetched(News(log(seq=11), [Change("keys", [KEY_ID])])) is Outcome.MOVED
    assert holder.memory.find(b"key") is None
    clock.now += 0.1
    assert holder.standing() is Standing.NOTHING


@pytest.mark.parametrize(
    "news",
    [
        None,
        News(log(epoch=OTHER_EPOCH), []),
        News(log(timeline="00000002"), []),
        News(log(seq=9), []),
    ],
    ids=["no row", "another epoch", "another timeline", "a log that went back"],
)
def test_who_is_no_member_any_more_gives_up_everything(holder: Holder, clock: Clock, news: News | None) -> None:
    """Lease, memory and membership, also the time after the lease."""
    assert holder.renewed(clock.now, news) is Outcome.LOST
    holder.cut_off()
    assert holder.standing() is Standing.NOTHING
    assert holder.member_id is None
    assert holder.memory.find(b"key") is None
    if news is not None:
        holder.joined(ME, LOG)
        assert holder.fetched(news) is Outcome.LOST


def test_what_was_remembered_while_joining_is_forgotten(holder: Holder) -> None:
    """It can be older than what the new row says."""
    holder.joined(UUID(int=4), log(seq=20))
    assert holder.memory.find(b"key") is None


@pytest.mark.parametrize(
    "changes", [None, [Change("keys", [UUID(int=n) for n in range(SUBJECTS_MAX + 1)])]], ids=["a gap", "too many"]
)
def test_what_cannot_be_told_in_detail_is_everything(
    holder: Holder, clock: Clock, changes: list[Change] | None
) -> None:
    """A log that does not reach back so far, or names too much, empties the memory, and the lease goes on."""
    assert holder.renewed(clock.now, News(log(seq=50_000), changes)) is Outcome.MOVED
    assert holder.memory.find(b"key") is None
    assert holder.standing() is Standing.LEASE


@pytest.mark.parametrize(("beyond", "outcome"), [(0.0, Outcome.EXTENDED), (0.01, Outcome.PAUSED)])
def test_a_pause_of_the_machine_is_noticed(holder: Holder, clock: Clock, beyond: float, outcome: Outcome) -> None:
    """When the database's clock went on for longer than 1.2 times ours, a third of a lease and the margin."""
    clock.now += 0.5
    elapsed = 1.2 * 0.5 + 1 + 0.05 + beyond
    assert holder.renewed(clock.now, News(log(at=AT + timedelta(seconds=elapsed)), [])) is outcome
    assert (holder.standing() is Standing.LEASE) == (outcome is Outcome.EXTENDED)
    assert (holder.memory.find(b"key") is not None) == (outcome is Outcome.EXTENDED)
    clock.now += 0.1
    again = News(log(at=AT + timedelta(seconds=elapsed + 0.1)), [])
    assert holder.renewed(clock.now, again) is Outcome.EXTENDED
    assert holder.standing() is Standing.LEASE


def shown(holder: Holder) -> datetime:
    """The database's time, by a holder with a lease."""
    footing = holder.footing()
    assert footing is not None
    assert footing.revision == holder.revision
    return footing.at


def test_the_database_s_time_goes_on_with_our_clock(holder: Holder, clock: Clock) -> None:
    """From the sending of the last renewal on."""
    clock.now += 1.5
    assert shown(holder) == AT + timedelta(seconds=1.5)


@pytest.mark.parametrize(
    ("values", "revision", "asked_as", "is_remembered"),
    [
        ({}, Revision(EPOCH, 10), ME, True),
        ({}, Revision(EPOCH, 12), ME, True),
        ({"changed_seq": 10}, Revision(EPOCH, 12), ME, True),
        ({"revoked": True}, Revision(EPOCH, 10), ME, True),
        ({}, Revision(EPOCH, 9), ME, False),
        ({"changed_seq": 11}, Revision(EPOCH, 12), ME, False),
        ({"home": replace(HOME, changed_seq=11)}, Revision(EPOCH, 12), ME, False),
        ({"revoking": True}, Revision(EPOCH, 10), ME, False),
        ({}, Revision(OTHER_EPOCH, 10), ME, False),
        ({}, Revision(EPOCH, 10), UUID(int=4), False),
        ({}, Revision(EPOCH, 10), None, False),
    ],
    ids=[
        *("now", "later", "not changed since", "revoked"),
        *("older", "key changed since", "workspace changed since", "revoking", "epoch", "membership", "no member"),
    ],
)
def test_only_the_state_at_applied_is_remembered(
    holder: Holder, values: dict[str, Any], revision: Revision, asked_as: UUID | None, is_remembered: bool
) -> None:
    """Not what is from before, not what has changed since, and never what is only being revoked."""
    holder.remember(b"new", record(key_id=UUID(int=8), **values), revision, asked_as)
    assert (holder.memory.find(b"new") is not None) == is_remembered


@pytest.mark.parametrize(("seq", "is_remembered"), [(9, False), (10, True), (11, False)])
def test_a_refusal_is_remembered_only_where_nothing_has_changed(holder: Holder, seq: int, is_remembered: bool) -> None:
    """It has no revision of its own."""
    holder.remember(b"nothing", None, Revision(EPOCH, seq), ME)
    assert holder.memory.is_refused(b"nothing") == is_remembered


def test_which_revisions_it_includes(holder: Holder) -> None:
    """All of its log up to what is applied."""
    assert holder.includes(Revision(EPOCH, 10))
    assert not holder.includes(Revision(EPOCH, 11))
    assert not holder.includes(Revision(OTHER_EPOCH, 1))
    assert holder.is_behind(Revision(EPOCH, 9))
    assert not holder.is_behind(Revision(EPOCH, 10))
    assert not holder.is_behind(Revision(OTHER_EPOCH, 9))


def test_who_has_not_joined_has_applied_nothing(clock: Clock) -> None:
    """It includes no revision, remembers nothing, and no news make it a member."""
    holder = Holder(Memory(), TERMS, clock)
    with pytest.raises(RuntimeError):
        _ = holder.applied
    assert not holder.includes(Revision(EPOCH, 0))
    assert not holder.is_behind(Revision(EPOCH, 0))
    holder.remember(b"key", record(), Revision(EPOCH, 10), None)
    assert holder.memory.find(b"key") is None
    assert holder.fetched(News(LOG, [])) is Outcome.LOST
    assert holder.renewed(clock.now, News(LOG, [])) is Outcome.LOST
    assert holder.standing() is Standing.NOTHING


def test_nothing_is_remembered_across_a_join(holder: Holder) -> None:
    """Neither what was asked before it, nor what was asked while it was on its way."""
    holder.lose()
    holder.remember(b"lost", record(), Revision(EPOCH, 10), ME)
    holder.remember(b"joining", record(), Revision(EPOCH, 10), None)
    holder.joined(UUID(int=4), LOG)
    holder.remember(b"before", record(), Revision(EPOCH, 10), ME)
    holder.remember(b"between", record(), Revision(EPOCH, 10), None)
    assert len(holder.memory) == 0
    holder.remember(b"since", record(), Revision(EPOCH, 10), UUID(int=4))
    assert len(holder.memory) == 1


def test_as_many_subjects_as_may_be_dropped_are(holder: Holder, clock: Clock) -> None:
    """One by one, whether of one change or of many: the rest is remembered."""
    subjects = [UUID(int=1000 + number) for number in range(SUBJECTS_MAX)]
    holder.renewed(clock.now, News(log(seq=11), [Change("keys", subjects)]))
    assert holder.memory.find(b"key") is not None
    holder.renewed(clock.now, News(log(seq=11 + SUBJECTS_MAX), [Change("keys", [each]) for each in subjects]))
    assert holder.memory.find(b"key") is not None
    more = [Change("keys", [each]) for each in (*subjects, UUID(int=1))]
    holder.renewed(clock.now, News(log(seq=12 + 2 * SUBJECTS_MAX), more))
    assert len(holder.memory) == 0


def test_a_member_that_hears_of_nothing_new_remembers_all(holder: Holder, clock: Clock) -> None:
    """A renewal without changes drops nothing, and a pause that is none neither."""
    for _ in range(10):
        clock.now += 0.5
        elapsed = timedelta(seconds=clock.now - 100)
        assert holder.renewed(clock.now, News(log(at=AT + elapsed), [])) is Outcome.EXTENDED
    assert holder.memory.find(b"key") is not None


def test_a_clock_of_the_database_that_goes_back_is_no_pause(holder: Holder, clock: Clock) -> None:
    """It was set; that of the next answers is the one that counts."""
    clock.now += 0.5
    assert holder.renewed(clock.now, News(log(at=AT - timedelta(hours=1)), [])) is Outcome.EXTENDED
    assert shown(holder) == AT - timedelta(hours=1)


def test_who_was_cut_off_and_loses_its_lease_says_nothing(holder: Holder, clock: Clock) -> None:
    """The time after a lease is after one that ended by itself."""
    holder.cut_off()
    assert holder.standing() is Standing.LEASE
    holder.lose()
    assert holder.standing() is Standing.NOTHING
    clock.now += 1
    assert holder.standing() is Standing.NOTHING
