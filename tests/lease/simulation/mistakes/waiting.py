"""Mistakes of who makes a change: how it commits, and for whom it waits."""

import asyncio
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from keysvc.core.errors import Overloaded
from keysvc.core.receipt import Path
from keysvc.lease.barrier import Barrier, Commit, Promotions
from keysvc.lease.news import Census
from keysvc.lease.terms import Terms
from keysvc.service.waiting import Waiting
from tests.lease.simulation.changes import Transaction, TwinChanges
from tests.lease.simulation.mistakes.mistake import (
    ASK_FIRST,
    BOTH_LATER,
    CUT,
    LATER,
    LOSE_COMMIT,
    OF_TWO_LENGTHS,
    PROMOTE,
    RESTART,
    REVOKE,
    SUSPEND,
    VERIFY,
    WITH_STALE,
    Mistake,
    delay,
    delay_answer,
)
from tests.lease.simulation.parts import Parts
from tests.lease.simulation.process import LEASE
from tests.lease.simulation.schedule import some
from tests.lease.simulation.steps import Cut, Delay, DelayAnswer, LoseCommit, Promote, Revoke, Start, Suspend, Verify


@dataclass(frozen=True, slots=True)
class Impatient(Terms):
    """Waits for half a lease."""

    def wait_seconds(self, lease_ms: int) -> float:
        """Too short."""
        return lease_ms / 2000


@dataclass(frozen=True, slots=True)
class TrustsClocks(Terms):
    """Waits for other machines as if all clocks were equally fast."""

    def wait_seconds(self, lease_ms: int) -> float:
        """Too short for a fast clock."""
        return lease_ms / 1000


@dataclass(frozen=True, slots=True)
class ForgetsStale(Terms):
    """Does not tell others for how long it answers when it is cut off."""

    @property
    def lease_ms(self) -> int:
        """The lease alone."""
        return math.ceil(self.lease_seconds * 1000)


class WithBarrier(Waiting):
    """Waits with another kind of barriers."""

    barrier: type[Barrier] = Barrier

    def open(self, commit: Commit) -> "tuple[Barrier, asyncio.Future[Path]]":
        """Open one."""
        barrier, future = super().open(commit)
        barrier.__class__ = self.barrier
        return barrier, future


class ByRowsLeft(Barrier):
    """Does not wait for rows that a promotion may have lost, but for those that are left."""

    def counted(self, census: Census, sent: float, *, is_complete: bool) -> bool:
        """Count."""
        told = super().counted(census, sent, is_complete=is_complete)
        self._lease_ms = max((member.lease_ms for member in self.unacknowledged), default=0)
        return told


class ByOwnLease(Barrier):
    """Waits for every lease as long as for its own."""

    def counted(self, census: Census, sent: float, *, is_complete: bool) -> bool:
        """Count."""
        told = super().counted(census, sent, is_complete=is_complete)
        self._lease_ms = min(self._lease_ms, self._terms.lease_ms)
        return told


class CountsEarlier(Barrier):
    """Counts the members that were read before the commit, too."""

    def counted(self, census: Census, _sent: float, *, is_complete: bool) -> bool:
        """Count."""
        return super().counted(census, math.inf, is_complete=is_complete)


@dataclass(frozen=True, slots=True)
class OtherCommit(Commit):
    """Knows more than it should.

    Parameters:
        members: before the commit.
        began: when it was sent.
    """

    members: Collection[UUID] = ()
    began: float = 0.0
    is_repeat: bool = False


class KnowsTooMuch(TwinChanges):
    """Looks at members and clocks before the commit."""

    async def commit(self, *args: Any) -> tuple[Any, Commit]:
        """Commit."""
        members, began = frozenset(self._content.twin.rows), asyncio.get_running_loop()._clock()
        result, commit = await super().commit(*args)
        told = {name: getattr(commit, name) for name in Commit.__slots__}
        return result, OtherCommit(**told, members=members, began=began, is_repeat=commit.revision.seq == 0)


class OfMembersBefore(Barrier):
    """Waits for those only who were members before the commit."""

    def counted(self, census: Census, sent: float, *, is_complete: bool) -> bool:
        """Count."""
        known = [member for member in census.members if member.id in self.commit.members]
        return super().counted(replace(census, members=known), sent, is_complete=is_complete)


class OfThoseBefore(WithBarrier):
    """Has such barriers."""

    barrier = OfMembersBefore


class OfRowsLeft(WithBarrier):
    """Has such barriers."""

    barrier = ByRowsLeft


class OfOwnLease(WithBarrier):
    """Has such barriers."""

    barrier = ByOwnLease


class OfEarlierCounts(WithBarrier):
    """Has such barriers."""

    barrier = CountsEarlier


class TimesFromSending(Waiting):
    """Counts the timer from the sending of the commit."""

    def open(self, commit: OtherCommit) -> "tuple[Barrier, asyncio.Future[Path]]":
        """Open a barrier that has begun before."""
        barrier, future = super().open(commit)
        barrier.since = commit.began
        return barrier, future


class RepeatsAtOnce(Waiting):
    """Does not wait for what was changed before."""

    def open(self, commit: OtherCommit) -> "tuple[Barrier, asyncio.Future[Path]]":
        """Open a barrier; for a repeat, one that is over."""
        barrier, future = super().open(commit)
        if commit.is_repeat:
            self._open.pop(barrier)
            future.set_result(Path.ACK)
        return barrier, future


class MarksEarly(Waiting):
    """Marks a change as final before its barrier is over."""

    def open(self, commit: Commit) -> "tuple[Barrier, asyncio.Future[Path]]":
        """Open a barrier."""
        marking = self._registry.mark_final([commit.revision.seq])
        self._marking = asyncio.get_running_loop().create_task(marking)
        return super().open(commit)


class NeverPromoted(Promotions):
    """Trusts the rows that are there, whatever has happened to the database."""

    def is_over(self, *_args: object) -> bool:
        """Always."""
        return True


class ReadsBack(TwinChanges):
    """Looks for a commit whose answer was lost, and says that nothing was changed if it is not there."""

    async def lost(self, transaction: Transaction) -> None:
        """Look for it."""
        if transaction.stamp.event_id not in self._content.events:
            raise Overloaded("nothing was changed")


class AssumesCommit(TwinChanges):
    """Takes a commit whose answer was lost for made."""

    async def lost(self, transaction: Transaction) -> tuple[Any, Commit] | None:
        """It will be."""
        return transaction.result


WAITING: Final = (
    Mistake(
        "wait too short",
        Parts(terms=Impatient),
        "(T)",
        (Cut(0.0, 1, LEASE, 0.9), Revoke(0.9, 0, 0)),
        (REVOKE, CUT),
    ),
    Mistake(
        "rates of clocks ignored",
        Parts(terms=TrustsClocks),
        "(S)",
        (Revoke(0.02, 0, 1), Cut(0.0, 1, LEASE, 0.9), Revoke(0.9, 0, 0)),
        (REVOKE, CUT),
    ),
    Mistake(
        "stale answers not waited for",
        Parts(terms=ForgetsStale),
        "(S)",
        (Cut(0.0, 1, LEASE, 2.5), Revoke(0.9, 0, 0)),
        (REVOKE, CUT),
        setting=WITH_STALE,
    ),
    Mistake(
        "timer by own lease",
        Parts(waiting=OfOwnLease),
        "(S)",
        (Cut(0.0, 1, LEASE, 2.5), Revoke(0.9, 0, 0)),
        (REVOKE, CUT),
        setting=OF_TWO_LENGTHS,
    ),
    Mistake(
        "timer from sending",
        Parts(changes=KnowsTooMuch, waiting=TimesFromSending),
        "(S)",
        (Delay(0.0, 0, "commit", 0.3), Revoke(0.28, 0, 0), Cut(0.9, 1, LEASE, 0.9)),
        (REVOKE, CUT, delay("commit", who=0), delay_answer("commit", who=0)),
        is_slow=True,
    ),
    Mistake(
        "members before commit",
        Parts(changes=KnowsTooMuch, waiting=OfThoseBefore),
        "(S)",
        (Delay(0.0, 0, "lock", 0.15), Revoke(0.01, 0, 0), Start(0.05, 1), Verify(0.05, 1), Cut(0.9, 1, LEASE, 0.4)),
        (REVOKE, VERIFY, RESTART, CUT, delay("lock", who=0)),
        setting=LATER,
        is_rare=True,
    ),
    Mistake(
        "earlier count",
        Parts(waiting=OfEarlierCounts),
        "(S)",
        (
            Cut(0.0, 0, LEASE, 2.5),
            Start(0.01, 0),
            DelayAnswer(0.0, 0, "count", 0.15),
            Suspend(0.05, 0, 1),
            Start(0.01, 1),
            Verify(0.05, 1),
            Cut(0.0, 1, LEASE, 0.9),
            Revoke(0.9, 0, 0),
        ),
        (REVOKE, SUSPEND, VERIFY, CUT, some(Start), delay_answer("count", who=0), some(Cut, who=0, line=LEASE)),
        setting=BOTH_LATER,
        is_rare=True,
    ),
    Mistake(
        "promotion ignored",
        Parts(promotions=NeverPromoted),
        "(S)",
        (Cut(0.0, 1, LEASE, 0.9), Promote(0.0, 2), Revoke(0.1, 0, 0)),
        (REVOKE, PROMOTE, CUT),
    ),
    Mistake(
        "timer by rows left",
        Parts(waiting=OfRowsLeft),
        "(T)",
        (Promote(0.0, 2), Revoke(0.1, 0, 0)),
        (REVOKE, PROMOTE, CUT),
    ),
    Mistake(
        "repeat at once",
        Parts(changes=KnowsTooMuch, waiting=RepeatsAtOnce),
        "(S)",
        (Cut(0.0, 1, LEASE, 0.9), Revoke(0.01, 0, 0), Revoke(0.1, 0, 0)),
        (REVOKE, CUT),
    ),
    Mistake(
        "marked early",
        Parts(waiting=MarksEarly),
        "(A)",
        (Cut(0.0, 1, LEASE, 0.9), Revoke(0.05, 0, 0), Verify(0.05, 0)),
        (REVOKE, CUT, ASK_FIRST),
    ),
    Mistake(
        "lost commit read back",
        Parts(changes=ReadsBack),
        "(E)",
        (LoseCommit(0.0, 0, 0.05), Revoke(0.3, 0, 0)),
        (REVOKE, LOSE_COMMIT),
    ),
    Mistake(
        "lost commit assumed",
        Parts(changes=AssumesCommit),
        "(S)",
        (LoseCommit(0.0, 0, math.inf), Revoke(0.9, 0, 0)),
        (REVOKE, LOSE_COMMIT),
    ),
)
