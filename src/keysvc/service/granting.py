"""Grants clients leases inside this process's own, and wakes them when there is something to hear."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final, TypeAlias
from uuid import UUID

from keysvc.core.errors import FailedPrecondition, Unavailable
from keysvc.lease import news
from keysvc.lease import sessions as lease_sessions
from keysvc.lease.holder import Holder, Standing
from keysvc.lease.sessions import Sessions
from keysvc.lease.terms import Clock
from keysvc.service.callers import Call

CLOSE_SECONDS: Final = 1.0
"""How long clients have to close their sessions when this process ends; they have heard of it then."""

ANNOUNCE_SECONDS: Final = 0.5
"""How long the first client waits for the holder's row to say that it grants leases."""

Change: TypeAlias = news.Change
Grant: TypeAlias = lease_sessions.Grant
Place: TypeAlias = lease_sessions.Place
WakeUp: TypeAlias = lease_sessions.WakeUp
"""To those who need not know of leases."""


class Granting:
    """Grants leases.

    Parameters:
        holder: whose lease they are within.
        sessions: of the clients.
        acknowledge: is told that a client has said what it has applied.
        clock: of the leases.
    """

    def __init__(self, holder: Holder, sessions: Sessions, acknowledge: Callable[[], None], clock: Clock) -> None:
        self._holder = holder
        self._sessions = sessions
        self._acknowledge = acknowledge
        self._clock = clock
        self._moved = asyncio.Event()
        self._closed = asyncio.Event()
        self.announced = asyncio.Event()
        """Our row in the database says that we grant leases."""
        self._is_stopping = False

    async def renew(self, call: Call, session_id: str, place: Place | None, *, stale: bool) -> Grant:
        """Grant a client a lease.

        Parameters:
            place: up to where it has applied changes; None: it remembers nothing.
            stale: it goes on for a while after its lease if nobody can be reached.

        Raises:
            Unavailable: we have no lease ourselves.
            Overloaded: there are too many sessions.
            FailedPrecondition: the client has said before that it has applied more.
        """
        if not self._sessions.is_announced:
            self._sessions.is_wanted = True
            self._acknowledge()
            with suppress(TimeoutError):
                await asyncio.wait_for(self.announced.wait(), ANNOUNCE_SECONDS)
        grant = self._sessions.renew(call.caller.name, session_id, place, stale=stale)
        if grant is None:
            raise Unavailable("this server has no lease to share")
        self._acknowledge()
        return grant

    def close(self, call: Call, session_id: str) -> None:
        """End a session."""
        self._sessions.close(call.caller.name, session_id)
        self._acknowledge()
        if not self._sessions:
            self._closed.set()

    def epoch(self) -> tuple[UUID, str] | None:
        """Epoch and timeline of the log that our lease is of; None: we have none."""
        if self._holder.standing() is not Standing.LEASE:
            return None
        return self._holder.applied.epoch, self._holder.applied.timeline

    async def watch(self, call: Call, session_id: str) -> AsyncIterator[WakeUp]:
        """What a client has to hear, now and whenever there is more.

        Until this process ends, the session does, or its client opens another stream.

        Raises:
            FailedPrecondition: there is no such session.
        """
        owner = call.caller.name
        number = self._sessions.open_stream(owner, session_id)
        if number is None:
            raise FailedPrecondition("session_id: has no lease from this server; renew it first")
        if number > 1:
            self.wake()  # so that the earlier one notices
        told = None
        while not self._is_stopping and self._sessions.has_stream(owner, session_id, number):
            moved = self._moved
            wake_up = self._sessions.wake_up(owner, session_id)
            if wake_up is not None and wake_up.place != told:
                told = wake_up.place
                yield wake_up
            else:
                await moved.wait()

    def wake(self) -> None:
        """Changes were applied: tell all clients."""
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def stop(self) -> None:
        """Grant nothing any more, send the clients to other servers, and wait until they have closed their sessions.

        Those that have not after a while keep their leases, and our row in the database stays.
        """
        self._sessions.stop()
        self._is_stopping = True
        self._closed.clear()
        self.wake()
        if self._sessions:
            left = self._sessions.ends_at - self._clock()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), min(CLOSE_SECONDS, left))
