"""Answers that are remembered under a lease, and given again in this process.

The protocol is "nested leases" of docs/consistency.md. Its client half is all here, and waits for nothing:

- An answer is given from memory only before the lease's end, which is counted from the *sending* of a renewal.
- A renewal brings what has changed. That is forgotten first; then it is applied; then the lease is longer.
- An answer is remembered only if it is from no earlier than what is applied, and of the same epoch.

Whoever looks at anything here or changes it holds the one lock meanwhile, so that no thread sees half of a renewal.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from secrets import token_bytes
from threading import Lock
from typing import Final, TypeAlias

from keysvc.core.revision import Revision
from keysvc.v1.key_service_pb2 import RenewLeaseResponse, WatchWakeUpsResponse
from keysvc.v1.verify_pb2 import Memo
from keysvc_client.counting import Counting, Kind, Sheet
from keysvc_client.verification import Basis, Verdict, Verification

ANSWERS_MAX: Final = 20_000
"""Of some 1.5 KB each."""

CLOCK_RATE: Final = 1.2
"""At most so much faster does one machine's clock go than another's: docs/consistency.md, A1."""

MARGIN_SECONDS: Final = 0.05

Clock: TypeAlias = Callable[[], float]
"""Seconds since some moment, on a clock that goes on while the process stands still."""


boottime: Final[Clock] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""The clock of leases: not that of the wall, which may be set."""

Question: TypeAlias = tuple[object, ...]
"""A hash of what was presented, and all that was asked about it."""


@dataclass(frozen=True, slots=True, eq=False)
class _Stamp:
    """What answers from memory say of themselves; the same object for all that say the same.

    Parameters:
        seq: of the revision up to which changes are applied.
    """

    basis: Basis
    revision: str
    seq: int


_NO_STAMP: Final = _Stamp(Basis.MEMORY, "", -1)


class _Remembered:
    """An answer that is remembered.

    Parameters:
        given: as it was given last.
        seq: of the revision that it was judged at.
        ends_at: by the database's clock, in seconds since 1970.
        subject_ids: what it depends on.

    Attributes:
        sheet, slot: where it is counted how often it is given, while the sheet is open.
    """

    __slots__ = ("ends_at", "given", "seq", "sheet", "slot", "stamp", "subject_ids")

    def __init__(self, given: Verification, seq: int, ends_at: float, subject_ids: tuple[str, ...]) -> None:
        self.given = given
        self.stamp = _NO_STAMP
        self.seq = seq
        self.ends_at = ends_at
        self.subject_ids = subject_ids
        self.sheet: Sheet | None = None
        self.slot = 0


class Answers:
    """What is remembered, and the lease that it is given under.

    Parameters:
        holder: what answers say of who gave them.
        counting: of the answers that are given here.
        stale: go on after the lease, for as long as the service allows, while no server can be reached.
        clock: of the lease.
        answers_max: how many are remembered; then those go that were not asked for lately.
    """

    def __init__(
        self,
        holder: str,
        counting: Counting,
        *,
        stale: bool = False,
        clock: Clock = boottime,
        answers_max: int = ANSWERS_MAX,
    ) -> None:
        self._holder = holder
        self._counting = counting
        self._stale = stale
        self._clock = clock
        self._generation_max = max(1, answers_max // 2)
        self._lock = Lock()
        self._hashing = blake2b(digest_size=16, key=token_bytes(32))
        self._young: dict[Question, _Remembered] = {}
        self._old: dict[Question, _Remembered] = {}
        self._subjects: dict[str, set[Question]] = {}
        self._epoch = ""
        self._applied: Revision | None = None
        self._ends_at = self._stale_ends_at = -math.inf
        self._is_cut_off = False
        self._anchor: tuple[float, float] | None = None
        self._clock_ahead = 0.0
        self._stamps = _stamps(None)

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._young) + len(self._old)

    @property
    def place(self) -> tuple[str, str]:
        """Epoch and revision up to which changes are applied, for the next renewal; empty: nothing is."""
        with self._lock:
            return ("", "") if self._applied is None else (self._epoch, str(self._applied))

    def question(
        self, key_string: str, workspace: str | None, environment: str | None, required_scopes: tuple[str, ...]
    ) -> Question:
        """By what an answer is known again: nobody else can compute it from the key string."""
        hashing = self._hashing.copy()
        hashing.update(key_string.encode("utf-8", "surrogatepass"))
        return (hashing.digest(), workspace, environment, required_scopes)

    def find(self, question: Question, source_ip: str | None, *, counted: bool = True) -> Verification | None:
        """The answer from memory; None: the service must be asked.

        Parameters:
            counted: it is given to somebody who has presented the key.
        """
        with self._lock:
            remembered = self._young.get(question) or self._find_older(question, source_ip)
            if remembered is None:
                return None
            now = self._clock()
            if now >= self._ends_at and not (self._is_cut_off and now < self._stale_ends_at):
                return None
            at = now + self._clock_ahead
            if at >= remembered.ends_at:
                return None
            stamp = self._stamps[now >= self._ends_at]
            if remembered.stamp is not stamp:
                self._stamp(remembered, stamp)
            if not counted:
                return remembered.given
            sheet = remembered.sheet
            if sheet is None or not sheet.is_open:
                sheet = self._place(remembered)
            sheet.times[remembered.slot] = at
            sheet.counts[remembered.slot] += 1
            return remembered.given

    def take_counts(self) -> list[Sheet]:
        """How often answers were given since the last time, as batches; also those that have been forgotten since."""
        with self._lock:
            return self._counting.seal()

    def remember(self, question: Question, source_ip: str | None, given: Verification, memo: Memo) -> None:
        """Remember an answer of the service, if it is from no earlier than what is applied (I2).

        Parameters:
            source_ip: of the presentation.
        """
        if given.verdict is Verdict.UNKNOWN:
            return  # it is newer than we are, and could not be counted
        revision = Revision.parse(given.revision)
        ends_at = memo.end_time.ToNanoseconds() / 1e9 if memo.HasField("end_time") else math.inf
        known = (*question, source_ip) if memo.for_address else question
        with self._lock:
            applied = self._applied
            if applied is None or (memo.epoch, revision.epoch) != (self._epoch, applied.epoch):
                return
            if revision.seq < applied.seq:
                return
            self._forget(known)
            self._make_room()
            self._young[known] = _Remembered(given, revision.seq, ends_at, tuple(memo.subject_ids))
            for subject_id in memo.subject_ids:
                self._subjects.setdefault(subject_id, set()).add(known)

    def renewed(self, sent: float, answer: RenewLeaseResponse, *, anew: bool = False) -> bool:
        """A renewal was answered; whether to renew again at once, so that the service hears what was applied.

        Parameters:
            sent: our clock before it was sent.
            anew: by another server. What the last one has granted is not used any more, so that it may be told so.
        """
        revision = Revision.parse(answer.revision)
        lease_seconds = answer.ttl.ToNanoseconds() / 1e9
        stale_seconds = answer.stale_ttl.ToNanoseconds() / 1e9
        at = answer.database_time.ToNanoseconds() / 1e9
        with self._lock:
            was_paused, self._anchor = self._was_paused(sent, at, lease_seconds), (sent, at)
            if was_paused:
                self._lose()
                return True
            before = self._applied
            if before is None or answer.epoch != self._epoch:
                self._lose()
                self._epoch, applied = answer.epoch, revision
            else:
                if answer.flush:
                    self._forget_all()
                self._forget_changed(answer.changed_ids)
                # A server that we have come to may be behind the one that we left: never back.
                applied = max(before, revision, key=lambda each: each.seq)
            if applied != before:
                self._apply(applied)
            # Last (I1), and counted from the sending: what came after that, this answer need not have.
            self._clock_ahead = at - sent
            if anew:
                self._ends_at = self._stale_ends_at = -math.inf
            self._ends_at = max(self._ends_at, sent + lease_seconds)
            self._stale_ends_at = max(self._stale_ends_at, sent + lease_seconds + stale_seconds)
            self._is_cut_off = False
            return applied != before

    def told(self, wake_up: WatchWakeUpsResponse) -> None:
        """Changes came between renewals: the next one says that they are applied. They make no lease longer.

        They come by another way than renewals, and may be overtaken: those that do not follow what is applied are left
        to the next renewal.
        """
        if not wake_up.epoch:
            return
        after, revision = Revision.parse(wake_up.after), Revision.parse(wake_up.revision)
        with self._lock:
            applied = self._applied
            if applied is not None and wake_up.epoch == self._epoch and after.seq <= applied.seq < revision.seq:
                self._forget_changed(wake_up.changed_ids)
                self._apply(revision)

    def cut_off(self) -> None:
        """A renewal failed, or was not answered in time."""
        with self._lock:
            self._is_cut_off = self._stale

    def lose(self) -> None:
        """Give up the lease, and forget everything but what is applied: that never goes back."""
        with self._lock:
            self._lose()

    def _find_older(self, question: Question, source_ip: str | None) -> _Remembered | None:
        """An answer that was not asked for lately, or that depends on the address."""
        by_address = (*question, source_ip)
        for known in (question, by_address):
            if (remembered := self._old.pop(known, None)) is not None:
                self._make_room()
                self._young[known] = remembered
                return remembered
        return self._young.get(by_address)

    def _place(self, remembered: _Remembered) -> Sheet:
        """Where to count an answer from now on."""
        given = remembered.given
        kind = Kind(given.key_id, given.secret_id, given.verdict.name)
        sheet, remembered.slot = self._counting.place(kind)
        remembered.sheet = sheet
        return sheet

    def _make_room(self) -> None:
        """Have room for one that was asked for lately: all others grow old, and those go that were old already."""
        if len(self._young) >= self._generation_max:
            for each, remembered in self._old.items():
                self._unlink(each, remembered)
            self._old, self._young = self._young, {}

    def _stamp(self, remembered: _Remembered, stamp: _Stamp) -> None:
        """Have an answer say what is true of it now: it was judged at a revision, and nothing has changed since."""
        given = remembered.given
        revision = stamp.revision if stamp.seq >= remembered.seq else given.revision
        remembered.given = replace(given, basis=stamp.basis, revision=revision, holder=self._holder)
        remembered.stamp = stamp

    def _was_paused(self, sent: float, at: float, lease_seconds: float) -> bool:
        """Whether the database's clock went on for longer between two renewals than ours can have.

        If so this machine was paused, and its clock with it.
        """
        if self._anchor is None:
            return False
        last_sent, last_at = self._anchor
        return at - last_at > CLOCK_RATE * (sent - last_sent) + lease_seconds + MARGIN_SECONDS

    def _lose(self) -> None:
        self._ends_at = self._stale_ends_at = -math.inf
        self._forget_all()

    def _forget_changed(self, subject_ids: Iterable[str]) -> None:
        """Forget what depends on any of these."""
        for subject_id in subject_ids:
            for question in tuple(self._subjects.get(subject_id, ())):
                self._forget(question)

    def _apply(self, revision: Revision) -> None:
        """All changes up to here are forgotten."""
        self._applied, self._stamps = revision, _stamps(revision)

    def _forget_all(self) -> None:
        self._young, self._old, self._subjects = {}, {}, {}

    def _forget(self, question: Question) -> None:
        """Forget one answer."""
        remembered = self._young.pop(question, None) or self._old.pop(question, None)
        if remembered is not None:
            self._unlink(question, remembered)

    def _unlink(self, question: Question, remembered: _Remembered) -> None:
        """Forget what goes with an answer that has been taken out."""
        for subject_id in remembered.subject_ids:
            questions = self._subjects.get(subject_id)
            if questions is not None:
                questions.discard(question)
                if not questions:
                    del self._subjects[subject_id]


def _stamps(applied: Revision | None) -> tuple[_Stamp, _Stamp]:
    """Of answers under a lease, and of those after it."""
    if applied is None:
        return _NO_STAMP, _NO_STAMP
    under, after = (_Stamp(basis, str(applied), applied.seq) for basis in (Basis.MEMORY, Basis.STALE))
    return under, after
