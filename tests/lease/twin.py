"""A twin of ``keysvc.store.leases`` in memory. It passes the same tests as the real one: tests/store/test_leases.py."""

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from copy import copy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from keysvc.core.revision import Revision
from keysvc.lease.news import SUBJECTS_MAX, Census, Change, Log, Member, News
from keysvc.lease.sessions import Place

T = TypeVar("T")

OPEN_AFTER = timedelta(seconds=1)
OPEN_MAX = 1000
FLUSH_SECONDS = 0.6
"""What is committed asynchronously is durable after this: three times ``wal_writer_delay``."""


class BlockedError(Exception):
    """A statement waits for a lock; it is to be executed again when that is free."""


class Carry(Protocol):
    """How a statement comes to the database, and its answer back."""

    def __call__(
        self, name: str, act: Callable[[], T], *, limit_seconds: float | None = None, is_repeatable: bool = True
    ) -> Awaitable[T]:
        """Execute ``act`` there."""
        ...


@dataclass
class Row:
    """A row of ``lease_member``."""

    member_id: UUID
    host: str
    applied: int
    beat: int
    lease_ms: int
    report: dict[str, Any]
    grants: bool


@dataclass
class Entry:
    """A row of ``key_change``."""

    kind: str
    subject_ids: list[UUID]
    final: bool
    at: datetime


class Twin:
    """The tables of the lease protocol. Each method is a statement, and a transaction of its own.

    Parameters:
        now: the database's clock.
    """

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self.epoch = UUID(int=0xE)
        self.timeline = "00000001"
        self.seq = 0
        self.log_start = 0
        self.lease_ms_max = 3000
        self.log: dict[int, Entry] = {}
        self.rows: dict[UUID, Row] = {}
        self.is_clock_locked = False
        """By a change that has taken its revision and is not committed yet."""
        self.hear: Callable[[int], None] = lambda _seq: None
        """Brings wake-ups to whoever listens."""
        self._is_durable = True
        self._doubtful: deque[tuple[datetime, dict[UUID, Row]]] = deque()

    def where(self) -> Log:
        """Where the log is."""
        return Log(self.epoch, self.timeline, self.seq, self._now())

    # Members --------------------------------------------------------------------------------------------------------

    def join(
        self,
        member_id: UUID,
        host: str,
        lease_ms: int,
        instead_of: Collection[UUID],
        acknowledged: Place | None = None,
    ) -> Log | None:
        """Insert a member."""
        if self.is_clock_locked:
            raise BlockedError
        self._write()
        for earlier in instead_of:
            self.rows.pop(earlier, None)
        if lease_ms > self.lease_ms_max:
            return None
        seq = self.seq
        if acknowledged is not None:
            is_of_log = (acknowledged.epoch, acknowledged.timeline) == (self.epoch, self.timeline)
            seq = min(seq, acknowledged.seq) if is_of_log else 0
        self.rows[member_id] = Row(member_id, host, seq, 0, lease_ms, {}, acknowledged is not None)
        return self.where()

    def announce(self, member_id: UUID) -> bool:
        """Say that clients may have leases from a member."""
        row = self.rows.get(member_id)
        if row is None:
            return False
        self._write()
        row.grants = True
        return True

    def remove(self, first: UUID, last: UUID, *, granting: bool) -> None:
        """Delete the members of a process that has ended."""
        self._write()
        for member_id, row in list(self.rows.items()):
            if first <= member_id <= last and (granting or not row.grants):
                del self.rows[member_id]

    def renew(self, member_id: UUID, applied: Log, acknowledged: int, report: dict[str, Any] | None) -> News | None:
        """Acknowledge."""
        row = self.rows.get(member_id)
        if row is None or self.seq < applied.seq or (self.epoch, self.timeline) != (applied.epoch, applied.timeline):
            return None
        self._write()
        row.applied, row.beat = max(row.applied, acknowledged), row.beat + 1
        if report is not None:
            row.report = report
        return self.fetch(applied.seq)

    def fetch(self, applied: int) -> News:
        """Read what is new."""
        changes = [Change(entry.kind, list(entry.subject_ids)) for seq, entry in self.log.items() if seq > applied]
        is_complete = self.log_start <= applied and len(changes) <= SUBJECTS_MAX
        return News(self.where(), changes if is_complete else None)

    def leave(self, member_ids: Iterable[UUID]) -> None:
        """Delete members."""
        self._write()
        for member_id in member_ids:
            self.rows.pop(member_id, None)

    # Barriers -------------------------------------------------------------------------------------------------------

    def count(self, session: int) -> Census:
        """All members."""
        members = [Member(row.member_id, row.host, row.applied, row.beat, row.lease_ms) for row in self.rows.values()]
        return Census(self.where(), self.lease_ms_max, members, session)

    def has_change(self, seq: int, at: datetime) -> bool:
        """Whether there is such a change."""
        return seq in self.log and self.log[seq].at <= at

    def mark_final(self, seqs: Iterable[int]) -> None:
        """Mark changes."""
        self._write()
        for seq in seqs:
            if seq in self.log:
                self.log[seq].final = True

    def collect(self, member: Member) -> None:
        """Delete a member, if it has not renewed since."""
        self._write()
        row = self.rows.get(member.id)
        if row is not None and row.beat == member.beat:
            del self.rows[member.id]

    def find_open(self) -> list[int]:
        """Changes that nobody has marked for a while."""
        limit = self._now() - OPEN_AFTER
        return [seq for seq, entry in sorted(self.log.items()) if not entry.final and entry.at < limit][:OPEN_MAX]

    # Changes --------------------------------------------------------------------------------------------------------

    def change(
        self, kind: str, subject_ids: Collection[UUID], *, restrictive: bool = True, at: datetime | None = None
    ) -> int:
        """Commit a change; its revision."""
        self._write()
        self.seq += 1
        self.log[self.seq] = Entry(kind, list(subject_ids), not restrictive, at or self._now())
        return self.seq

    def trim(self, kept: timedelta) -> None:
        """Remove old entries from the log."""
        self._write()
        limit = self._now() - kept
        gone = [seq for seq, entry in self.log.items() if entry.final and entry.at <= limit]
        for seq in gone:
            del self.log[seq]
        self.log_start = max([self.log_start, *gone])

    # The machine ----------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """Lose what is not durable."""
        self._flush()
        if self._doubtful:
            self.rows = self._doubtful[0][1]
        self._doubtful.clear()
        self.is_clock_locked = False

    def promote(self, lost: Iterable[UUID]) -> None:
        """Go on at a standby that lacks rows of members."""
        self.crash()
        self.timeline = f"{int(self.timeline, 16) + 1:08X}"
        for member_id in lost:
            self.rows.pop(member_id, None)

    def go_back(self, seq: int) -> None:
        """Lose the last changes, which is against all assumptions."""
        self.crash()
        self.seq = seq
        self.log = {number: entry for number, entry in self.log.items() if number <= seq}

    def asynchronously(self, act: Callable[[], T]) -> T:
        """Execute a statement without ``synchronous_commit``."""
        self._is_durable = False
        try:
            return act()
        finally:
            self._is_durable = True

    def _write(self) -> None:
        """Before a commit: what it flushes, or what a crash would undo."""
        if self._is_durable:
            self._doubtful.clear()
        else:
            self._flush()
            self._doubtful.append((self._now(), {member_id: copy(row) for member_id, row in self.rows.items()}))

    def _flush(self) -> None:
        """By and by everything becomes durable."""
        while self._doubtful and (self._now() - self._doubtful[0][0]).total_seconds() > FLUSH_SECONDS:
            self._doubtful.popleft()


class TwinMembership:
    """A twin of ``Membership``."""

    def __init__(self, carry: Carry, twin: Twin) -> None:
        self._carry = carry
        self._twin = twin

    async def join(
        self,
        member_id: UUID,
        *,
        host: str,
        lease_ms: int,
        instead_of: Collection[UUID],
        acknowledged: Place | None = None,
    ) -> Log | None:
        """As the real one."""
        earlier = list(instead_of)
        return await self._carry(
            "join", lambda: self._twin.join(member_id, host, lease_ms, earlier, acknowledged), is_repeatable=False
        )

    async def renew(
        self, member_id: UUID, applied: Log, acknowledged: int, report: dict[str, Any] | None
    ) -> News | None:
        """As the real one."""
        return await self._carry("renew", lambda: self._twin.renew(member_id, applied, acknowledged, report))

    async def announce(self, member_id: UUID) -> bool:
        """As the real one."""
        return await self._carry("announce", lambda: self._twin.announce(member_id))

    async def fetch(self, applied: int) -> News:
        """As the real one."""
        return await self._carry("fetch", lambda: self._twin.fetch(applied))

    async def leave(self, member_ids: Iterable[UUID]) -> None:
        """As the real one."""
        leaving = list(member_ids)
        await self._carry("leave", lambda: self._twin.leave(leaving))


class TwinRegistry:
    """A twin of ``Registry``.

    Parameters:
        session: the number of its connection.
    """

    def __init__(self, carry: Carry, twin: Twin, session: Callable[[], int]) -> None:
        self._carry = carry
        self._twin = twin
        self._session = session

    async def wake(self, seq: int) -> None:
        """As the real one."""
        await self._carry("wake", lambda: self._twin.hear(seq))

    async def count(self, limit_seconds: float) -> Census:
        """As the real one."""
        return await self._carry("count", lambda: self._twin.count(self._session()), limit_seconds=limit_seconds)

    async def has_change(self, revision: Revision, at: datetime) -> bool:
        """As the real one."""
        return await self._carry("has_change", lambda: self._twin.has_change(revision.seq, at))

    async def mark_final(self, seqs: Collection[int]) -> None:
        """As the real one."""
        marked = list(seqs)
        await self._carry("mark_final", lambda: self._twin.mark_final(marked))

    async def collect(self, member: Member) -> None:
        """As the real one."""
        await self._carry("collect", lambda: self._twin.collect(member))

    async def find_open(self) -> list[int]:
        """As the real one."""
        return await self._carry("find_open", self._twin.find_open)
