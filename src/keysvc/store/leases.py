"""The tables of the lease protocol: members, and the log of changes. Each statement is a transaction of its own."""

# ruff: noqa: S608 (the statements are made of texts of ours; values are parameters)

import asyncio
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
import structlog
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb
from sqlalchemy import delete, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core.revision import Revision
from keysvc.lease.news import SUBJECTS_MAX, Census, Change, Log, Member, News
from keysvc.lease.sessions import Place
from keysvc.store.database import Database, abandon, connect_arguments
from keysvc.store.line import Line
from keysvc.store.schema import lease_member

TIMELINE: Final = "left(pg_walfile_name(pg_current_wal_lsn()), 8)"
"""The timeline of the write-ahead log, which every promotion changes."""

NO_TIMELINE: Final = "''"
"""Where the database has no such function, or does not let us call it."""

_QUICKLY: Final = "set_config('synchronous_commit', 'off', true)"
"""For what may be lost in a crash: whoever finds it missing does it again. It then need not wait for the disk."""

_CHANNEL: Final = "keysvc_wake"
_LISTEN_PAUSE_SECONDS: Final = 0.5

_log = structlog.get_logger("keysvc.store")


async def find_timeline(database: Database) -> str:
    """The SQL for the timeline in this database: ``TIMELINE``, or ``NO_TIMELINE`` after a word to the operators."""

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(text(f"SELECT {TIMELINE}"))

    try:
        await database.read(work)
    except DBAPIError:
        _log.warning("this database does not tell its timeline: after a promotion run keysvc bump")
        return NO_TIMELINE
    return TIMELINE


class Membership:
    """The row of a member, and what is new in the log.

    Parameters:
        line: used for nothing else.
        timeline: SQL of it.
    """

    def __init__(self, line: Line, timeline: str) -> None:
        self._line = line
        where = f"c.epoch, {timeline}, c.seq, clock_timestamp()"
        # One more change than can be dropped tells that there are too many.
        changes = (
            "SELECT kind, subject_ids FROM key_change WHERE seq > %(applied)s AND c.log_start <= %(applied)s "
            f"ORDER BY seq LIMIT {SUBJECTS_MAX + 1}"
        )
        news = (
            f"SELECT {where}, c.log_start <= %(applied)s, k.kind, k.subject_ids "
            f"FROM revocation_clock c LEFT JOIN LATERAL ({changes}) k ON true"
        )
        self._fetch = news
        # An acknowledgement must not reach a log that it is not of, where its number means another change.
        self._renew = f"""
            WITH mine AS (
                UPDATE lease_member m
                   SET applied_seq = greatest(m.applied_seq, %(acknowledged)s), beat = m.beat + 1,
                       report = coalesce(%(report)s || jsonb_build_object('time', clock_timestamp()), m.report)
                  FROM revocation_clock c
                 WHERE m.member_id = %(member_id)s AND c.epoch = %(epoch)s AND c.seq >= %(applied)s
                   AND {timeline} = %(timeline)s
             RETURNING m.member_id
            )
            {news} WHERE EXISTS (SELECT FROM mine)"""
        # The lock: nobody lowers the longest lease that is allowed while we come in with a longer one.
        self._join = f"""
            WITH c AS MATERIALIZED (SELECT epoch, seq, lease_ms_max FROM revocation_clock FOR SHARE),
            earlier AS (DELETE FROM lease_member WHERE member_id = ANY(%(instead_of)s)),
            new AS (
                INSERT INTO lease_member (member_id, applied_seq, beat, lease_ms, host, started_at, report, grants)
                SELECT %(member_id)s,
                       CASE WHEN %(epoch)s::uuid IS NULL THEN c.seq
                            WHEN c.epoch = %(epoch)s AND {timeline} = %(timeline)s THEN least(c.seq, %(acknowledged)s)
                            ELSE 0 END,
                       0, %(lease_ms)s, %(host)s, clock_timestamp(), '{{}}', %(epoch)s::uuid IS NOT NULL
                  FROM c WHERE c.lease_ms_max >= %(lease_ms)s
             RETURNING member_id
            )
            SELECT {where} FROM c WHERE EXISTS (SELECT FROM new)"""

    async def join(
        self,
        member_id: UUID,
        *,
        host: str,
        lease_ms: int,
        instead_of: Collection[UUID],
        acknowledged: Place | None = None,
    ) -> Log | None:
        """Insert a member, and delete others; None: the lease is too long.

        Durable when it returns. Not to be repeated with the same id: the first attempt may still arrive.

        Parameters:
            acknowledged: no more than this, and nothing of another log, since clients have leases from it; None: all.
        """
        epoch, timeline, seq = acknowledged or (None, None, None)
        values = {
            "member_id": member_id,
            "host": host,
            "lease_ms": lease_ms,
            "instead_of": list(instead_of),
            "epoch": epoch,
            "timeline": timeline,
            "acknowledged": seq,
        }
        rows = await self._line.ask(self._join, values, is_repeatable=False)
        return Log(*rows[0]) if rows else None

    async def renew(
        self, member_id: UUID, applied: Log, acknowledged: int, report: dict[str, Any] | None
    ) -> News | None:
        """Acknowledge, and read what is new; None: there is no such member of this log.

        Parameters:
            applied: since when.
            acknowledged: no more than is applied. What was acknowledged before stays so.
        """
        values = {
            "member_id": member_id,
            "epoch": applied.epoch,
            "timeline": applied.timeline,
            "applied": applied.seq,
            "acknowledged": acknowledged,
            "report": None if report is None else Jsonb(report),
        }
        rows = await self._line.ask(self._renew, values)
        return _news_of(rows) if rows else None

    async def announce(self, member_id: UUID) -> bool:
        """Say that clients may have leases from a member: its row then stays for as long as these may last.

        Returns whether there is such a member.
        """
        statement = "UPDATE lease_member SET grants = true WHERE member_id = %s RETURNING member_id"
        return bool(await self._line.ask(statement, (member_id,)))

    async def fetch(self, applied: int) -> News:
        """Read what is new."""
        return _news_of(await self._line.ask(self._fetch, {"applied": applied}))

    async def leave(self, member_ids: Iterable[UUID]) -> None:
        """Delete members."""
        await self._line.ask("DELETE FROM lease_member WHERE member_id = ANY(%s)", (list(member_ids),))


class Registry:
    """All members, and which changes are final.

    Parameters:
        line: of its own.
        timeline: SQL of it.
    """

    def __init__(self, line: Line, timeline: str) -> None:
        self._line = line
        self._count = f"""
            SELECT c.epoch, {timeline}, c.seq, clock_timestamp(), c.lease_ms_max,
                   m.member_id, m.host, m.applied_seq, m.beat, m.lease_ms
              FROM revocation_clock c LEFT JOIN lease_member m ON true"""
        # Not at once: whoever has made the change is waiting itself, most likely.
        self._find_open = (
            "SELECT seq FROM key_change WHERE NOT final AND at < clock_timestamp() - interval '1 second' "
            "ORDER BY seq LIMIT 1000"
        )

    async def wake(self, seq: int) -> None:
        """Tell all members that there is a change."""
        # Never in the transaction of the change: this takes a lock of the whole database when it commits.
        await self._line.ask(f"SELECT {_QUICKLY}, pg_notify(%s, %s)", (_CHANNEL, str(seq)))

    async def count(self, limit_seconds: float) -> Census:
        """All members, read from a primary in a statement that is sent after this call."""
        rows = await self._line.ask(self._count, limit_seconds=limit_seconds)
        members = [Member(*row[5:]) for row in rows if row[5] is not None]
        return Census(Log(*rows[0][:4]), rows[0][4], members, self._line.session)

    async def has_change(self, revision: Revision, at: datetime) -> bool:
        """Whether the log still has a change, and not another one with its number, which was made after ``at``."""
        # With a column: a row without any is no row to the driver.
        return bool(await self._line.ask("SELECT 1 FROM key_change WHERE seq = %s AND at <= %s", (revision.seq, at)))

    async def mark_final(self, seqs: Collection[int]) -> None:
        """Say of changes that nobody answers any more as if they had not been made. A crash may undo that."""
        statement = f"""
            UPDATE key_change SET final = true FROM (SELECT {_QUICKLY}) AS quickly
             WHERE seq = ANY(%s) AND NOT final"""
        await self._line.ask(statement, (list(seqs),))

    async def collect(self, member: Member) -> None:
        """Delete a member, if it has not renewed since."""
        statement = "DELETE FROM lease_member WHERE member_id = %s AND beat = %s"
        await self._line.ask(statement, (member.id, member.beat))

    async def find_open(self) -> list[int]:
        """The revisions of changes that nobody has marked as final for a while."""
        return [seq for (seq,) in await self._line.ask(self._find_open)]


async def remove_members(database: Database, first: UUID, last: UUID, *, granting: bool) -> None:
    """Delete the members whose ids are in a range: those of a process that has ended.

    Parameters:
        granting: also those that clients may have leases from; they can not any more.
    """
    statement = delete(lease_member).where(lease_member.c.member_id.between(first, last))
    if not granting:
        statement = statement.where(~lease_member.c.grants)

    async def work(connection: AsyncConnection, _attempt: int) -> None:
        await connection.execute(statement)

    await database.run(work, commit=True)


class Listener:
    """Hears wake-ups. They are a favour and never needed: whatever goes wrong here costs time alone.

    Parameters:
        url: whatever libpq takes.
        heard: is told the revision of each.
        limit_seconds: how long the database may be silent when it is asked something.
        silence_seconds: after so long without a wake-up it is asked whether the connection still lives.
    """

    def __init__(
        self, url: str, heard: Callable[[int], None], limit_seconds: float, *, silence_seconds: float = 5.0
    ) -> None:
        self._url = url
        self._heard = heard
        self._limit_seconds = limit_seconds
        self._silence_seconds = silence_seconds
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen."""
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Listen no more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            with suppress(psycopg.Error, TimeoutError):
                await self._listen()
            await asyncio.sleep(_LISTEN_PAUSE_SECONDS)

    async def _listen(self) -> None:
        """Listen until the connection is lost."""
        async with asyncio.timeout(2 * self._limit_seconds):
            connection = await psycopg.AsyncConnection.connect(
                self._url, autocommit=True, **connect_arguments("keysvc listen", self._limit_seconds)
            )
        try:
            await self._execute(connection, f"LISTEN {_CHANNEL}")
            while True:
                async for wake_up in connection.notifies(timeout=self._silence_seconds):
                    if wake_up.payload.isdecimal():
                        self._heard(int(wake_up.payload))
                await self._execute(connection, "SELECT 1")
        finally:
            connection.pgconn.finish()

    async def _execute(self, connection: psycopg.AsyncConnection[TupleRow], statement: LiteralString) -> None:
        """Execute a statement. When this ends nothing waits at the connection any more, so that it may be closed."""
        task = asyncio.ensure_future(connection.execute(statement))
        try:
            await asyncio.wait({task}, timeout=self._limit_seconds)
        finally:
            if not task.done():
                abandon(task, [connection])
                await asyncio.wait({task})
        task.result()


def _news_of(rows: list[TupleRow]) -> News:
    """Rows of news: where the log is, in each of them, and a change in each, if there is one."""
    changes = [Change(row[5], row[6]) for row in rows if row[5] is not None]
    is_complete = rows[0][4] and len(changes) <= SUBJECTS_MAX
    return News(Log(*rows[0][:4]), changes if is_complete else None)
