"""Sessions: the leases that clients have from a holder, inside its own.

What a server pushes cannot carry a lease, since a message that was delayed looks like a fresh one. So the client asks,
counts from when it asked, and says each time what it has applied. A third invariant carries this:

I3. While the lease of a client may last, the holder that granted it acknowledges nothing beyond what the client has
    said that it has applied.

A client's lease ends before the holder's from which it was granted. So what I1 says of the holder is true of the client
(TIMER), and by I3 whoever finds a change acknowledged by all members finds it applied by all clients (ACK).
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from keysvc.core.errors import FailedPrecondition, Overloaded
from keysvc.lease.holder import Holder
from keysvc.lease.news import Change, Log
from keysvc.lease.terms import Clock

SESSIONS_MAX: Final = 2_000
"""Each is looked at in every renewal of the holder, and has a stream, which is a call that goes on."""


class Place(NamedTuple):
    """Up to where a client has applied changes.

    Parameters:
        epoch, timeline: of the log.
    """

    epoch: UUID
    timeline: str
    seq: int


class Grant(NamedTuple):
    """What a client gets.

    Parameters:
        lease_seconds: of its own clock, from when it asked: until then it may answer from memory.
        stale_seconds: for how much longer, if nobody can be reached and the operators allow it.
        log: what it has applied once it has dropped the changes.
        changes: None: it must forget everything.
        at: the database's clock, as ``Footing.at``.
    """

    lease_seconds: float
    stale_seconds: float
    log: Log
    changes: Collection[Change] | None
    at: datetime


class WakeUp(NamedTuple):
    """What there is to hear for a client.

    Parameters:
        place: what it has applied once it has dropped the changes.
        after: what it has said that it has applied; None: nothing of this log.
        changes: since then; None: only a renewal tells.
    """

    place: Place
    after: int | None
    changes: Collection[Change] | None


@dataclass(slots=True)
class _Session:
    """A client that may answer from memory.

    Parameters:
        bound: until then, on our clock.
        reported: what it has said last that it has applied; None: nothing.
        streams: how many it has opened, the last of which tells it when to renew.
    """

    bound: float = -math.inf
    reported: Place | None = None
    streams: int = 0


class Sessions:
    """The sessions with one holder.

    Parameters:
        holder: grants no more than it has.
        clock: of the leases.
        sessions_max: how many clients there may be at once.
    """

    def __init__(self, holder: Holder, clock: Clock, *, sessions_max: int = SESSIONS_MAX) -> None:
        self._holder = holder
        self._clock = clock
        self._sessions_max = sessions_max
        self._sessions: dict[tuple[str, str], _Session] = {}
        self._is_closed = False
        self.is_wanted = False
        """A client has asked for a lease. The holder's row must say so before it gets one."""
        self.is_announced = False
        """The holder's row says so."""

    def __len__(self) -> int:
        """How many clients may answer from memory, some of which may have ended."""
        return len(self._sessions)

    def renew(self, owner: str, session_id: str, place: Place | None, *, stale: bool) -> Grant | None:
        """A client asks for a lease; None: there is none to grant.

        Parameters:
            owner: the caller that the client calls as: nobody else knows its session.
            place: up to where it has applied changes; None: it remembers nothing.
            stale: it wants to know for how long it may go on if nobody can be reached.

        Raises:
            Overloaded: there are too many sessions.
            FailedPrecondition: it has said more before: it is two clients, or this request is an old one.
        """
        now = self._clock()
        holder = self._holder
        left = holder.lease_left(now)
        footing = holder.footing()
        if self._is_closed or not self.is_announced or left <= 0 or footing is None:
            return None
        log = holder.applied
        session = self._find((owner, session_id), now)
        if _is_before(place, session.reported):
            raise FailedPrecondition("applied is less than before: each client needs a session_id of its own")
        longest = left + (holder.terms.stale_seconds if stale else 0)
        # Before the answer is on its way; and not what the client has after it, since the answer may be lost.
        session.bound = max(session.bound, now + longest)
        session.reported = place
        rate = holder.terms.clock_rate
        changes = holder.recent.since(place.seq) if place is not None and _is_of(place, log) else None
        return Grant(left / rate, (longest - left) / rate, log, changes, footing.at)

    def open_stream(self, owner: str, session_id: str) -> int | None:
        """Begin to tell a client when to renew, and have an earlier stream of its end; None: it has no session."""
        session = self._sessions.get((owner, session_id))
        if session is None:
            return None
        session.streams += 1
        return session.streams

    def has_stream(self, owner: str, session_id: str, number: int) -> bool:
        """Whether a stream is the last of a session that goes on."""
        session = self._sessions.get((owner, session_id))
        return session is not None and session.streams == number

    def wake_up(self, owner: str, session_id: str) -> WakeUp | None:
        """What a client has not said that it has applied; None: it has said so of everything."""
        holder = self._holder
        session = self._sessions.get((owner, session_id))
        if session is None or holder.member_id is None:
            return None
        log, reported = holder.applied, session.reported
        place = Place(log.epoch, log.timeline, log.seq)
        if reported is None or not _is_of(reported, log):
            return WakeUp(place, None, None)
        return None if reported.seq >= log.seq else WakeUp(place, reported.seq, holder.recent.since(reported.seq))

    def close(self, owner: str, session_id: str) -> None:
        """A client answers nothing from memory any more, and hears no earlier answer."""
        self._sessions.pop((owner, session_id), None)

    def stop(self) -> None:
        """Grant nothing any more."""
        self._is_closed = True

    def acknowledged(self) -> int:
        """What the holder may acknowledge of its log: what it has applied, and every client that has a lease."""
        log = self._holder.applied
        return min([log.seq, *(_reported(place, log) for place in self._reports())])

    def acknowledged_anew(self) -> Place | None:
        """What the holder may acknowledge when it joins, of whichever log that turns out to be; None: everything.

        Where clients have said nothing in common, that is revision 0.
        """
        places = self._reports()
        if not places:
            return None
        known = [place for place in places if place is not None]
        if len(known) < len(places) or len({(place.epoch, place.timeline) for place in known}) > 1:
            return Place(UUID(int=0), "", 0)
        return min(known, key=lambda place: place.seq)

    @property
    def ends_at(self) -> float:
        """When, on our clock, the last client's lease has ended."""
        return max((session.bound for session in self._sessions.values()), default=-math.inf)

    def _reports(self) -> list[Place | None]:
        """What clients that may have a lease have said."""
        self._sweep(self._clock())
        return [session.reported for session in self._sessions.values()]

    def _find(self, name: tuple[str, str], now: float) -> _Session:
        """The session of a client, a new one if need be."""
        session = self._sessions.get(name)
        if session is None:
            if len(self._sessions) >= self._sessions_max:
                self._sweep(now)
            if len(self._sessions) >= self._sessions_max:
                raise Overloaded(f"this server has the {self._sessions_max} sessions that it may have")
            session = self._sessions[name] = _Session()
        return session

    def _sweep(self, now: float) -> None:
        """Forget sessions whose leases have ended."""
        ended = [name for name, session in self._sessions.items() if session.bound <= now]
        for name in ended:
            del self._sessions[name]


def _is_before(place: Place | None, reported: Place | None) -> bool:
    """Whether somebody says that they have applied less of the same log than they have said before."""
    return place is not None and reported is not None and place[:2] == reported[:2] and place.seq < reported.seq


def _reported(place: Place | None, log: Log) -> int:
    """What a client has applied of a log; of another one its revisions say nothing."""
    return place.seq if place is not None and _is_of(place, log) else 0


def _is_of(place: Place, log: Log) -> bool:
    """Whether a client speaks of this log."""
    return (place.epoch, place.timeline) == (log.epoch, log.timeline)
