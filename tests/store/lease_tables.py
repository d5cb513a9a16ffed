"""The tables of the lease protocol: the real ones, and their twin, for tests that both must pass."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid4

import psycopg

from keysvc.service.ports import Membership as MembershipPort
from keysvc.service.ports import Registry as RegistryPort
from keysvc.store.database import Database
from keysvc.store.leases import TIMELINE, Listener, Membership, Registry, remove_members
from keysvc.store.line import Line
from tests.lease.twin import BlockedError, Twin, TwinMembership, TwinRegistry

T = TypeVar("T")

PATIENT_SECONDS = 20.0


class Tables(Protocol):
    """What tests do to them, besides what the ports ask."""

    membership: MembershipPort
    registry: RegistryPort

    async def change(self, kind: str = "keys", subjects: Collection[UUID] = (), *, restrictive: bool = True) -> int:
        """Commit a change; its revision."""
        ...

    async def change_often(self, times: int) -> None:
        """Commit so many changes."""
        ...

    def changing(self) -> Any:
        """A change that takes its revision, and commits it at the end of the block."""
        ...

    async def remove(self, first: UUID, last: UUID, *, granting: bool) -> None:
        """Remove the members of a process that has ended."""
        ...

    async def trim(self) -> None:
        """Remove all that is final from the log."""
        ...

    async def age(self) -> None:
        """Let all changes be two seconds older."""
        ...

    async def begin_epoch(self) -> None:
        """Begin another epoch."""
        ...

    async def reconnect(self) -> None:
        """Lose the connection that counts members."""
        ...

    async def listen(self, heard: Callable[[int], None]) -> None:
        """Hear wake-ups."""
        ...

    async def clear(self) -> None:
        """Be as at the beginning."""
        ...


class RealTables:
    """Those of PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._database = Database(url, limit_seconds=PATIENT_SECONDS)
        self._lines = [Line(url, f"test {number}", PATIENT_SECONDS) for number in range(2)]
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._listener: Listener | None = None
        self.membership = Membership(self._lines[0], TIMELINE)
        self.registry = Registry(self._lines[1], TIMELINE)

    async def close(self) -> None:
        """Close all connections."""
        if self._listener is not None:
            await self._listener.stop()
        if self._connection is not None:
            await self._connection.close()
        for line in self._lines:
            await line.close()
        await self._database.close()

    async def _execute(self, statement: str, *values: object) -> psycopg.AsyncCursor[Any]:
        """Execute a statement, in the transaction that there is, or in one of its own."""
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        return await self._connection.execute(statement, values)

    async def change(self, kind: str = "keys", subjects: Collection[UUID] = (), *, restrictive: bool = True) -> int:
        """As a closing statement."""
        statement = """
            WITH c AS (UPDATE revocation_clock SET seq = seq + 1 RETURNING seq)
            INSERT INTO key_change (seq, kind, subject_ids, restrictive, final, at)
            SELECT seq, %s, %s, %s, %s, clock_timestamp() FROM c RETURNING seq"""
        cursor = await self._execute(statement, kind, list(subjects), restrictive, not restrictive)
        ((seq,),) = await cursor.fetchall()
        return seq

    async def change_often(self, times: int) -> None:
        """All at once."""
        statement = """
            INSERT INTO key_change (seq, kind, subject_ids, restrictive, final, at)
            SELECT seq, 'keys', '{}', true, false, clock_timestamp() FROM generate_series(1, %s) seq"""
        await self._execute(statement, times)
        await self._execute("UPDATE revocation_clock SET seq = %s", times)

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[int]:
        """As a closing statement, and then a commit."""
        await self._execute("BEGIN")
        yield await self.change()
        await self._execute("COMMIT")

    async def remove(self, first: UUID, last: UUID, *, granting: bool) -> None:
        """As the supervisor does."""
        await remove_members(self._database, first, last, granting=granting)

    async def trim(self) -> None:
        """As ``Sweeper.trim_changes``."""
        statement = """
            WITH gone AS (DELETE FROM key_change WHERE final RETURNING seq)
            UPDATE revocation_clock SET log_start = greatest(log_start, (SELECT max(seq) FROM gone))"""
        await self._execute(statement)

    async def age(self) -> None:
        """Move their times."""
        await self._execute("UPDATE key_change SET at = at - interval '2 seconds'")

    async def begin_epoch(self) -> None:
        """Set another one."""
        await self._execute("UPDATE revocation_clock SET epoch = %s", uuid4())

    async def reconnect(self) -> None:
        """Close it."""
        await self._lines[1].close()

    async def listen(self, heard: Callable[[int], None]) -> None:
        """Start a listener."""
        self._listener = Listener(self._url, heard, PATIENT_SECONDS)
        self._listener.start()

    async def clear(self) -> None:
        """Delete all."""
        await self._execute("DELETE FROM lease_member")
        await self._execute("DELETE FROM key_change")
        await self._execute("UPDATE revocation_clock SET seq = 0, log_start = 0")


class TwinTables:
    """Those in memory."""

    def __init__(self) -> None:
        self._session = 1
        self._twin = Twin(lambda: datetime.now(UTC))
        self.membership = TwinMembership(self._carry, self._twin)
        self.registry = TwinRegistry(self._carry, self._twin, lambda: self._session)

    async def _carry(self, _name: str, act: Callable[[], T], **_how: Any) -> T:
        while True:
            try:
                return act()
            except BlockedError:
                await asyncio.sleep(0.001)

    async def change(self, kind: str = "keys", subjects: Collection[UUID] = (), *, restrictive: bool = True) -> int:
        """Change."""
        return self._twin.change(kind, subjects, restrictive=restrictive)

    async def change_often(self, times: int) -> None:
        """One by one."""
        for _ in range(times):
            self._twin.change("keys", ())

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[int]:
        """Lock the clock, and change."""
        self._twin.is_clock_locked = True
        yield self._twin.seq + 1
        self._twin.is_clock_locked = False
        self._twin.change("keys", ())

    async def remove(self, first: UUID, last: UUID, *, granting: bool) -> None:
        """Remove them."""
        self._twin.remove(first, last, granting=granting)

    async def trim(self) -> None:
        """Trim."""
        self._twin.trim(timedelta())

    async def age(self) -> None:
        """Move their times."""
        for entry in self._twin.log.values():
            entry.at -= timedelta(seconds=2)

    async def begin_epoch(self) -> None:
        """Set another one."""
        self._twin.epoch = uuid4()

    async def reconnect(self) -> None:
        """Count on."""
        self._session += 1

    async def listen(self, heard: Callable[[int], None]) -> None:
        """Hear."""
        self._twin.hear = heard

    async def clear(self) -> None:
        """Delete all."""
        self._twin.rows.clear()
        self._twin.log.clear()
        self._twin.seq = self._twin.log_start = 0
