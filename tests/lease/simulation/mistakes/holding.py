"""Mistakes of who answers from memory: what it remembers, and until when it may."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final
from uuid import UUID

from keysvc.core.revision import Revision
from keysvc.core.verdict import Record, Verdict
from keysvc.lease.holder import Holder, Outcome
from keysvc.lease.memory import Memory
from keysvc.lease.news import Log, News
from tests.lease.simulation.mistakes.mistake import (
    ASK_FIRST,
    BUMP,
    CUT,
    DEAF,
    LATER,
    LOSE_RENEWAL,
    PROMOTE,
    RESTART,
    REVOKE,
    SUSPEND,
    SWEEP,
    VERIFY,
    Mistake,
    delay,
    delay_answer,
)
from tests.lease.simulation.parts import Parts
from tests.lease.simulation.process import LEASE
from tests.lease.simulation.schedule import some
from tests.lease.simulation.steps import (
    BringIn,
    Bump,
    Cut,
    Deafen,
    Delay,
    DelayAnswer,
    GoBack,
    Pause,
    Promote,
    Restart,
    Retire,
    Revoke,
    Start,
    Stop,
    Suspend,
    SuspendHome,
    Sweep,
    Trim,
    Verify,
    Wake,
)


class FillsUnchecked(Holder):
    """Remembers what a look-up has found, whatever its revision."""

    def remember(self, mark: bytes, record: Record | None, revision: Revision, asked_as: UUID | None) -> None:
        """As if its snapshot were of now."""
        if self._log is not None:
            super().remember(mark, record, replace(revision, seq=max(revision.seq, self._log.seq)), asked_as)


class RemembersNewer(Holder):
    """Remembers a record that has changed since what is applied."""

    def remember(self, mark: bytes, record: Record | None, revision: Revision, asked_as: UUID | None) -> None:
        """Look at the snapshot alone."""
        if record is None:
            super().remember(mark, record, revision, asked_as)
        elif self._log is not None and revision.seq >= self._log.seq and record.refusal != Verdict.REVOKING:
            self.memory.remember(mark, record)


class RemembersRevoking(Holder):
    """Remembers REVOKING like every other answer."""

    def remember(self, mark: bytes, record: Record | None, revision: Revision, asked_as: UUID | None) -> None:
        """Look at everything else."""
        super().remember(mark, record, revision, asked_as)
        if (
            record is not None
            and record.refusal == Verdict.REVOKING
            and self.includes(replace(revision, seq=record.changed_seq))
        ):
            self.memory.remember(mark, record)


class RemembersRevokingAsFinal(Holder):
    """Remembers REVOKING as REVOKED."""

    def remember(self, mark: bytes, record: Record | None, revision: Revision, asked_as: UUID | None) -> None:
        """Take it for final."""
        if record is not None and record.refusal == Verdict.REVOKING:
            record = record._replace(refusal=Verdict.REVOKED.value)
        super().remember(mark, record, revision, asked_as)


class CountsFromReceipt(Holder):
    """Counts the lease from the answer."""

    def renewed(self, sent: float, news: News | None) -> Outcome:
        """Renew, for too long."""
        outcome = super().renewed(sent, news)
        if outcome in {Outcome.EXTENDED, Outcome.MOVED}:
            self._deadline = self._clock() + self.terms.lease_seconds
        return outcome


class IgnoresNoRow(Holder):
    """Takes a renewal that found no row for one that did."""

    def renewed(self, sent: float, news: News | None) -> Outcome:
        """Renew."""
        if news is None:
            self._deadline = sent + self.terms.lease_seconds
            return Outcome.EXTENDED
        return super().renewed(sent, news)


class ExtendsByFetch(Holder):
    """Takes news for a lease."""

    def fetched(self, news: News) -> Outcome:
        """Renew."""
        outcome = super().fetched(news)
        if outcome is not Outcome.LOST:
            self._deadline = self._clock() + self.terms.lease_seconds
        return outcome


class KeepsMemory(Holder):
    """Keeps what it remembers when it is no member any more."""

    def lose(self) -> None:
        """Lose the lease alone."""
        memory, self.memory = self.memory, Memory()
        super().lose()
        self.memory = memory


class JoinsWithMemory(Holder):
    """Joins with what it remembers by then."""

    def joined(self, member_id: UUID, log: Log) -> None:
        """Forget nothing."""
        self._member_id = member_id
        self._log = log


class RemembersAlways(Holder):
    """Remembers what it looks up also while it is no member."""

    def remember(self, mark: bytes, record: Record | None, revision: Revision, asked_as: UUID | None) -> None:
        """Remember, where nothing is known that speaks against it."""
        if self._log is None and record is not None:
            self.memory.remember(mark, record)
        else:
            super().remember(mark, record, revision, self.member_id)


class JoinsWithMemoryAndRemembersAlways(JoinsWithMemory, RemembersAlways):
    """Both."""


class RemembersNewerRefusals(Holder):
    """Remembers that there is no such key, though that may not have been so at what is applied."""

    def remember(self, mark: bytes, record: Record | None, revision: Revision, asked_as: UUID | None) -> None:
        """Look at the snapshot as at any other one."""
        if record is None and self._log is not None and revision.seq >= self._log.seq:
            self.memory.remember_refusal(mark)
        else:
            super().remember(mark, record, revision, asked_as)


class GoesBack(Holder):
    """Takes a log that is shorter than what it has applied for the same log."""

    def _is_successor(self, log: Log) -> bool:
        return super()._is_successor(replace(log, seq=max(log.seq, self.applied.seq) if self._log else log.seq))


class NoticesNoPause(Holder):
    """Does not compare its clock with the database's."""

    def _was_paused(self, *_args: object) -> bool:
        return False


class IgnoresTrimming(Holder):
    """Takes a log that does not reach so far back for one with nothing in it."""

    def _apply(self, news: News) -> bool:
        return super()._apply(news if news.changes is not None else News(news.log, ()))


class ForgetsKeysOnly(Memory):
    """Does not know that workspaces change, too."""

    def drop(self, kind: str, subject_ids: Iterable[UUID]) -> None:
        """Drop keys."""
        if kind != "workspaces":
            super().drop(kind, subject_ids)


class IgnoresUnknown(Memory):
    """Does not care for kinds that it does not know."""

    def drop(self, kind: str, subject_ids: Iterable[UUID]) -> None:
        """Drop what it knows."""
        if kind in {"keys", "workspaces", "refusals"}:
            super().drop(kind, subject_ids)


class KeepsRefusals(Memory):
    """Remembers that a text is no key, whatever is imported."""

    def drop(self, kind: str, subject_ids: Iterable[UUID]) -> None:
        """Drop the rest."""
        if kind != "refusals":
            super().drop(kind, subject_ids)


HOLDING: Final = (
    Mistake(
        "fill unchecked",
        Parts(holder=FillsUnchecked),
        "(A)",
        (
            Delay(0.0, 1, "renew", math.inf),
            Delay(0.0, 1, "renew", math.inf),
            DelayAnswer(0.0, 1, "renew", 0.15),
            DelayAnswer(0.0, 1, "find", 0.3),
            Start(0.23, 1),
            Verify(0.01, 1),
            Revoke(0.9, 0, 0),
        ),
        (RESTART, VERIFY, REVOKE, LOSE_RENEWAL, delay_answer("renew"), delay_answer("find")),
        setting=LATER,
        is_rare=True,
    ),
    Mistake(
        "newer record remembered",
        Parts(holder=RemembersNewer),
        "(R)",
        (Bump(0.1, 0, new_epoch=False), Cut(0.0, 1, LEASE, 0.9), Suspend(0.01, 0, 0), Verify(0.01, 1)),
        (SUSPEND, VERIFY, CUT, BUMP),
    ),
    Mistake(
        "newer refusal remembered",
        Parts(holder=RemembersNewerRefusals),
        "(R)",
        (Bump(0.1, 0, new_epoch=False), Cut(0.0, 1, LEASE, 0.9), Retire(0.01, 0, 0), Verify(0.01, 1)),
        (some(Retire, who=0), VERIFY, CUT, BUMP),
    ),
    Mistake(
        "revoking remembered",
        Parts(holder=RemembersRevoking),
        "(R)",
        (Cut(0.0, 1, LEASE, 0.9), Revoke(0.01, 0, 0), Verify(0.9, 0)),
        (REVOKE, ASK_FIRST, CUT),
    ),
    Mistake(
        "revoking remembered as final",
        Parts(holder=RemembersRevokingAsFinal),
        "(A)",
        (Cut(0.0, 1, LEASE, 0.9), Revoke(0.01, 0, 0), Verify(0.01, 0)),
        (REVOKE, ASK_FIRST, CUT),
    ),
    Mistake(
        "deadline from receipt",
        Parts(holder=CountsFromReceipt),
        "(S)",
        (DelayAnswer(0.1, 1, "renew", 0.15), Cut(0.0, 1, LEASE, 0.9), Revoke(0.9, 0, 0)),
        (REVOKE, delay_answer("renew", seconds=0.15), CUT),
        is_slow=True,
    ),
    Mistake(
        "no row ignored",
        Parts(holder=IgnoresNoRow),
        "(S)",
        (Deafen(0.0, 1, 4.5), Stop(0.0, 1, 4.0), Sweep(2.2, 0), Sweep(0.1, 0), Revoke(2.2, 0, 0)),
        (REVOKE, some(Stop, who=1, seconds=4.0), SWEEP, DEAF),
    ),
    Mistake(
        "fetch extends",
        Parts(holder=ExtendsByFetch),
        "(S)",
        (DelayAnswer(0.0, 1, "fetch", 0.15), Revoke(0.01, 0, 0), Cut(0.0, 1, LEASE, 0.9), Revoke(0.9, 0, 1)),
        (REVOKE, delay_answer("fetch", seconds=0.15), CUT),
        is_slow=True,
    ),
    Mistake(
        "rejoined with its memory",
        Parts(holder=KeepsMemory),
        "(R)",
        (Promote(0.0, 2), Revoke(0.1, 0, 0)),
        (REVOKE, PROMOTE, CUT),
    ),
    Mistake(
        "memory survives join",
        Parts(holder=JoinsWithMemoryAndRemembersAlways),
        "(A)",
        (Delay(0.0, 1, "join", 0.15), Restart(0.0, 1), Verify(0.0, 1), Revoke(0.3, 0, 0)),
        (RESTART, VERIFY, REVOKE, delay("join")),
        is_slow=True,
    ),
    Mistake(
        "seq going back ignored",
        Parts(holder=GoesBack),
        "(R)",
        (Suspend(0.1, 0, 0), Verify(0.1, 1), GoBack(0.0, 1), Wake(0.1, 1)),
        (SUSPEND, VERIFY, some(Wake, who=1), some(GoBack)),
    ),
    Mistake(
        "pause not noticed",
        Parts(holder=NoticesNoPause),
        "(P)",
        (Pause(0.9, 1, 0.7),),
        (REVOKE, some(Pause, who=1)),
    ),
    Mistake(
        "trimmed log ignored",
        Parts(holder=IgnoresTrimming),
        "(R)",
        (Cut(0.0, 1, LEASE, 0.9), Suspend(0.9, 0, 0), Trim(0.3)),
        (SUSPEND, CUT, some(Trim)),
    ),
    Mistake(
        "workspaces ignored",
        Parts(memory=ForgetsKeysOnly),
        "(R)",
        (SuspendHome(0.1, 0, 0),),
        (some(SuspendHome, who=0), VERIFY),
    ),
    Mistake(
        "unknown kind ignored",
        Parts(memory=IgnoresUnknown),
        "(R)",
        (Retire(0.1, 0, 0),),
        (some(Retire, who=0), VERIFY),
    ),
    Mistake(
        "import ignored",
        Parts(memory=KeepsRefusals),
        "(R)",
        (BringIn(0.1, 0, 3),),
        (some(BringIn, who=0), VERIFY),
    ),
)
