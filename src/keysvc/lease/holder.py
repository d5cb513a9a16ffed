"""The holder: whether this process may answer from memory, and what it may remember.

Nothing here waits. Each method is told what has just come from the database and does all that follows in one go, so
that no verification sees half of it. The comments name the invariants of ``keysvc.lease`` that their order keeps.
"""

import math
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final, NamedTuple
from uuid import UUID

from keysvc.core.revision import Revision
from keysvc.core.verdict import Record, Verdict
from keysvc.lease.memory import Memory
from keysvc.lease.news import SUBJECTS_MAX, Log, News
from keysvc.lease.recent import Recent
from keysvc.lease.terms import Clock, Terms

NOT_ANCHORED: Final = (-math.inf, datetime.min.replace(tzinfo=UTC))


class Outcome(Enum):
    """What a renewal has brought."""

    EXTENDED = auto()
    """The lease goes on."""
    MOVED = auto()
    """The lease goes on, and there were changes: the next renewal acknowledges them, and should come at once."""
    PAUSED = auto()
    """Time went on while our clock stood still: everything is forgotten, and there is no lease before the next one."""
    LOST = auto()
    """We are no member: everything is forgotten."""


class Standing(Enum):
    """On what answers from memory may rest at a moment."""

    LEASE = auto()
    STALE = auto()
    """On a lease that has ended and could not be renewed, within the time that the operator allowed for that."""
    NOTHING = auto()


class Footing(NamedTuple):
    """What answers from memory rest on at a moment.

    Parameters:
        standing: not NOTHING.
        at: the database's clock, without asking: never behind, and ahead by at most what the last renewal took.
        revision: that all that is remembered is true at.
    """

    standing: Standing
    at: datetime
    revision: Revision


class Holder:
    """One process that answers from memory.

    Parameters:
        memory: used by nobody else.
        terms: of its leases.
        clock: of its leases.
    """

    def __init__(self, memory: Memory, terms: Terms, clock: Clock) -> None:
        self.memory = memory
        self.recent = Recent()
        self.terms = terms
        self._clock = clock
        self._member_id: UUID | None = None
        self._log: Log | None = None
        self._deadline = -math.inf
        self._is_cut_off = False
        self._anchor = NOT_ANCHORED
        self._revision: Revision | None = None
        self._revision_of: Log | None = None

    @property
    def member_id(self) -> UUID | None:
        """Its row in the database; None: it is no member, as far as it knows."""
        return self._member_id

    @property
    def applied(self) -> Log:
        """The log up to what it has applied; only of a member."""
        if self._log is None:
            raise RuntimeError("a holder that has not joined has applied nothing")
        return self._log

    @property
    def revision(self) -> Revision:
        """The revision that all it remembers is true at; only of a member. The same object between renewals."""
        if self._revision is None or self._revision_of is not self._log:
            self._revision_of = log = self.applied
            self._revision = Revision(log.epoch, log.seq)
        return self._revision

    def standing(self) -> Standing:
        """On what an answer from memory may rest. Good until the next ``await``, and no longer."""
        return self._standing(self._clock())

    def footing(self) -> Footing | None:
        """All that answers from memory rest on; None: there may be none. Good until the next ``await``."""
        now = self._clock()
        standing = self._standing(now)
        if standing is Standing.NOTHING:
            return None
        sent, at = self._anchor
        return Footing(standing, at + timedelta(0, now - sent), self.revision)

    def lease_left(self, now: float) -> float:
        """How long its lease lasts; 0 or less: it has none."""
        return self._deadline - now

    def _standing(self, now: float) -> Standing:
        if now < self._deadline:
            return Standing.LEASE
        if self._is_cut_off and now < self._deadline + self.terms.stale_seconds:
            return Standing.STALE
        return Standing.NOTHING

    def joined(self, member_id: UUID, log: Log) -> None:
        """The row of a new member is there, durably; it acknowledges what the log has."""
        # Only now, and together: what was remembered while this was on its way may be older than the row says.
        self.lose()
        self._member_id = member_id
        self._log = log
        self.recent.begin(log.seq)

    def renewed(self, sent: float, news: News | None) -> Outcome:
        """A renewal was answered.

        Parameters:
            sent: our clock before it was sent.
            news: None: it found no row of ours.
        """
        if news is None or not self._is_successor(news.log):
            self.lose()
            return Outcome.LOST
        was_paused = self._was_paused(sent, news.log.at)
        self._anchor = sent, news.log.at
        if was_paused:
            self._deadline = -math.inf
            self.memory.flush()
            self.recent.begin(news.log.seq)
            self._log = news.log
            return Outcome.PAUSED
        has_moved = self._apply(news)
        # Last (I1), and counted from the sending: what came after that, these news need not have.
        self._deadline = max(self._deadline, sent + self.terms.lease_seconds)
        self._is_cut_off = False
        return Outcome.MOVED if has_moved else Outcome.EXTENDED

    def fetched(self, news: News) -> Outcome:
        """News were read without a renewal: they never make a lease longer."""
        if not self._is_successor(news.log):
            self.lose()
            return Outcome.LOST
        return Outcome.MOVED if self._apply(news) else Outcome.EXTENDED

    def cut_off(self) -> None:
        """A renewal failed, or was not answered in time."""
        self._is_cut_off = True

    def lose(self) -> None:
        """Give up the lease and forget everything: we may be no member any more, or want to be none."""
        self._deadline = -math.inf
        self._anchor = NOT_ANCHORED
        self.memory.flush()
        self._member_id = None
        self._log = None

    def remember(self, mark: bytes, record: Record | None, revision: Revision, asked_as: UUID | None) -> None:
        """Remember what a look-up has found, if that is what was there at ``applied`` (I2).

        Parameters:
            mark: a hash of the key string.
            record: of the secret that it proves; None: of none.
            revision: of the look-up's snapshot.
            asked_as: our member id when it was sent: what was read before a promotion may be in no log that we know.
        """
        log = self._log
        if log is None or asked_as != self._member_id or revision.epoch != log.epoch or revision.seq < log.seq:
            return
        if record is None:
            # Nothing says since when there is nothing, so only where nothing at all has changed in between.
            if revision.seq == log.seq:
                self.memory.remember_refusal(mark)
        elif record.refusal != Verdict.REVOKING and max(record.changed_seq, record.home.changed_seq) <= log.seq:
            self.memory.remember(mark, record)

    def includes(self, revision: Revision) -> bool:
        """Whether all it remembers includes a change."""
        return self._log is not None and revision.epoch == self._log.epoch and revision.seq <= self._log.seq

    def is_behind(self, revision: Revision) -> bool:
        """Whether a snapshot of the same log is from before what we have applied."""
        return self._log is not None and revision.epoch == self._log.epoch and revision.seq < self._log.seq

    def _is_successor(self, log: Log) -> bool:
        """Whether a log is the one that we have applied the beginning of."""
        ours = self._log
        return ours is not None and log.epoch == ours.epoch and log.timeline == ours.timeline and log.seq >= ours.seq

    def _apply(self, news: News) -> bool:
        """Forget what has changed, then say that it is applied (I2); whether there was anything."""
        if news.changes is None or sum(len(change.subject_ids) for change in news.changes) > SUBJECTS_MAX:
            self.memory.flush()
            self.recent.begin(news.log.seq)
        else:
            for change in news.changes:
                self.memory.drop(change.kind, change.subject_ids)
            self.recent.add(news.changes, news.log.seq)
        has_moved = news.log.seq > self.applied.seq
        self._log = news.log
        return has_moved

    def _was_paused(self, sent: float, at: datetime) -> bool:
        """Whether the database's clock went on for longer between two renewals than ours can have.

        Clocks differ in rate by so much (A1), and each reading is somewhere between a renewal and its answer. If it is
        more, the machine was paused, and our clock with it.
        """
        last_sent, last_at = self._anchor
        ours = self.terms.clock_rate * (sent - last_sent) + self.terms.renewal_limit_seconds + self.terms.margin_seconds
        return (at - last_at).total_seconds() > ours
