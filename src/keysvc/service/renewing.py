"""Renews the lease of this process, for as long as it serves."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import structlog

from keysvc.core.errors import Unavailable
from keysvc.lease.holder import Holder, Outcome
from keysvc.lease.sessions import Sessions
from keysvc.lease.terms import Clock
from keysvc.service.ports import Membership

_LEAVE_SECONDS: Final = 0.5

_log = structlog.get_logger("keysvc.lease")


class LeaseTooLongError(Exception):
    """The database allows no such long lease."""


class Renewing:
    """Keeps a holder a member, and its lease running.

    Parameters:
        holder: whose lease it is.
        sessions: of clients that have leases from it.
        membership: where its row is.
        host: by which operators know it.
        new_id: makes member ids.
        report: what the row shall say about this process to operators.
        clock: of the leases.
    """

    def __init__(  # noqa: PLR0913 (one for each thing that a member needs)
        self,
        holder: Holder,
        sessions: Sessions,
        membership: Membership,
        *,
        host: str,
        new_id: Callable[[], UUID],
        report: Callable[[], dict[str, Any]],
        clock: Clock,
    ) -> None:
        self._holder = holder
        self._sessions = sessions
        self._membership = membership
        self._host = host
        self._new_id = new_id
        self._report = report
        self._clock = clock
        self._rows: list[UUID] = []
        self._heard = -1
        self._acknowledged = -1
        self.moved: Callable[[], None] = lambda: None
        """Is told that changes have been applied, for those who wait for them."""
        self.announced: Callable[[], None] = lambda: None
        """Is told that our row says that clients may have leases from us."""
        self._signal = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask for the first lease, and go on in the background, also if there is none yet.

        Raises:
            LeaseTooLongError: there will never be one.
        """
        with suppress(Unavailable):
            await self._join()
            await self._round()
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Give up the lease, then the membership: the row stands for as long as anything is answered from memory.

        Where a client may still do so, somebody else deletes the row: the supervisor, or a collector.
        """
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._holder.lose()
        if self._sessions.ends_at > self._clock():
            return
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._membership.leave(self._rows)

    def wake(self, seq: int) -> None:
        """There is a change: hear of it, and acknowledge it, now. Nothing is lost if nobody calls this, but time."""
        # What is applied is being acknowledged already: another server may have been quicker to say it.
        if seq > self._heard and (self._holder.member_id is None or seq > self._holder.applied.seq):
            self._heard = seq
            self._signal.set()

    def acknowledge(self) -> None:
        """A client has said what it has applied, or has asked for its first lease: tell the database, now."""
        sessions, acknowledged = self._sessions, self._acknowledged
        if self._holder.member_id is None:
            return
        is_behind = acknowledged < self._holder.applied.seq and sessions.acknowledged() > acknowledged
        if is_behind or sessions.is_wanted > sessions.is_announced:
            self._signal.set()

    async def _run(self) -> None:
        while True:
            pause = self._holder.terms.renew_seconds
            try:
                if self._holder.member_id is None:
                    await self._join()
                if await self._round():
                    continue
            except Unavailable:
                self._holder.cut_off()
                pause /= 4
            except LeaseTooLongError as error:
                _log.error("no lease", reason=str(error))
            except Exception:  # noqa: BLE001 (without a lease everything is read, which is slow and right)
                self._holder.lose()
                _log.exception("renewal failed")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._signal.wait(), pause)
            self._signal.clear()

    async def _join(self) -> None:
        """Become a member under a new id; the rows of earlier ids go, also of those that may not have come to be."""
        self._holder.lose()
        member_id = self._new_id()
        earlier, self._rows = self._rows, [*self._rows, member_id]
        terms, sessions = self._holder.terms, self._sessions
        sessions.is_announced = False
        acknowledged = sessions.acknowledged_anew()
        log = await self._membership.join(
            member_id,
            host=self._host,
            lease_ms=terms.lease_ms,
            instead_of=earlier,
            acknowledged=acknowledged,
        )
        if log is None:
            raise LeaseTooLongError(f"a lease of {terms.lease_ms} ms is longer than this database allows")
        self._rows = [member_id]
        self._heard = log.seq
        self._acknowledged = -1
        sessions.is_announced = acknowledged is not None
        self._holder.joined(member_id, log)

    async def _round(self) -> bool:
        """Renew once; whether to renew again at once.

        One thing after the other: were a fetch under way beside a renewal, its answer could go back behind what the
        renewal has applied.
        """
        holder = self._holder
        if holder.member_id is None:
            return False
        if self._heard > holder.applied.seq and not await self._fetch():
            return True
        member_id, applied = holder.member_id, holder.applied
        sessions = self._sessions
        if sessions.is_wanted and not sessions.is_announced:
            sessions.is_announced = await self._membership.announce(member_id)
            self.announced()
        self._acknowledged = sessions.acknowledged()
        sent = self._clock()
        news = await self._membership.renew(member_id, applied, self._acknowledged, self._report())
        outcome = holder.renewed(sent, news)
        if outcome is not Outcome.EXTENDED:
            self.moved()
        if outcome is Outcome.LOST:
            _log.warning("lease lost: joining again")
        elif outcome is Outcome.PAUSED:
            _log.error("this machine was paused for longer than its leases: everything remembered is forgotten")
        return outcome is not Outcome.EXTENDED or self._heard > holder.applied.seq

    async def _fetch(self) -> bool:
        """Apply what we were woken for, so that one renewal acknowledges it; False: we are no member any more."""
        woken_for = self._heard
        outcome = self._holder.fetched(await self._membership.fetch(self._holder.applied.seq))
        if outcome is not Outcome.EXTENDED:
            self.moved()
        if outcome is Outcome.LOST:
            return False
        if self._heard == woken_for:
            self._heard = (
                self._holder.applied.seq
            )  # Or somebody who tells of a change that there is not would keep us busy.
        return True
