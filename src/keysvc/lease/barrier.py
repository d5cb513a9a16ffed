"""The barrier: what a change waits for before it may be called true everywhere.

Nothing here waits: ``Barrier`` is told what was read and what time it is, and says whether the change is certain.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from keysvc.core.receipt import Path
from keysvc.core.revision import Revision
from keysvc.lease.news import Census, Log, Member
from keysvc.lease.terms import Terms

NEVER_PROMOTED = frozenset({"", "00000001"})
"""Timelines of databases in which no row was lost by a promotion, or that cannot tell."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Where a change was committed.

    Parameters:
        revision: of the change.
        timeline: of the database it was committed in.
        lease_ms_max: what no member's lease exceeded then, or will as long as nothing is read of the members.
        at: the database's clock before that.
        is_restrictive: it may refuse what was accepted before.
    """

    revision: Revision
    timeline: str
    lease_ms_max: int
    at: datetime
    is_restrictive: bool = True


class Promotions:
    """Since when this process knows the timeline of the database: after a promotion, rows of members may be missing."""

    def __init__(self) -> None:
        self._known: tuple[UUID, str] | None = None
        self._since = 0.0

    def note(self, log: Log, received: float) -> None:
        """An answer named the timeline.

        Parameters:
            received: our clock afterwards.
        """
        if self._known != (log.epoch, log.timeline):
            self._known, self._since = (log.epoch, log.timeline), received

    def is_over(self, census: Census, now: float, terms: Terms) -> bool:
        """Whether every lease from before the last promotion has ended, of members whose rows were lost with it too."""
        return census.log.timeline in NEVER_PROMOTED or now - self._since >= terms.wait_seconds(census.lease_ms_max)


class Barrier:
    """Waits for one change.

    Parameters:
        commit: of the change.
        since: our clock after the commit was answered.
        terms: of the leases.
    """

    def __init__(self, commit: Commit, since: float, terms: Terms) -> None:
        self.commit = commit
        self.unacknowledged: tuple[Member, ...] = ()
        self.since = since
        self._terms = terms
        self._lease_ms = commit.lease_ms_max
        self._is_acknowledged = False
        self._is_timer_only = False

    def counted(self, census: Census, sent: float, *, is_complete: bool) -> bool:
        """The members were read; False: in another log than the change was committed to, so that ``moved`` must follow.

        Parameters:
            sent: our clock before that.
            is_complete: no rows of members can be missing.
        """
        if sent < self.since:
            return True  # Read before the commit: somebody may have joined since without knowing of the change.
        if (census.log.epoch, census.log.timeline) != (self.commit.revision.epoch, self.commit.timeline):
            return False
        seq = self.commit.revision.seq
        self.unacknowledged = tuple(member for member in census.members if member.applied < seq)
        if is_complete and not self._is_timer_only:
            self._is_acknowledged = not self.unacknowledged
            self._lease_ms = max((member.lease_ms for member in self.unacknowledged), default=0)
        else:
            self._lease_ms = census.lease_ms_max
        return True

    def moved(self, log: Log, lease_ms_max: int, now: float) -> None:
        """The log is another one now, and has the change: acknowledgements say nothing, so all leases must end."""
        revision = Revision(log.epoch, self.commit.revision.seq)
        self.commit = replace(self.commit, revision=revision, timeline=log.timeline, lease_ms_max=lease_ms_max)
        self.since = now
        self._lease_ms = lease_ms_max
        self._is_acknowledged = False
        self._is_timer_only = True

    def certain(self, now: float) -> Path | None:
        """How it is certain that the change is true everywhere; None: it is not yet."""
        if self._is_acknowledged:
            return Path.ACK
        return Path.TIMER if now >= self.ends_at else None

    @property
    def ends_at(self) -> float:
        """When, by our clock, the change is true everywhere at the latest."""
        return self.since + self._terms.wait_seconds(self._lease_ms)
