"""The collector: which members have died, so that nobody need wait for their leases any more.

Any replica may collect. A member that is only slow learns at its next renewal that it is none any more.
"""

from uuid import UUID

from keysvc.lease.news import Census, Member
from keysvc.lease.terms import Terms


class Collector:
    """Watches whose beat stands still.

    Parameters:
        terms: of the leases.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._view: tuple[object, ...] = ()
        self._seen: dict[UUID, tuple[int, float]] = {}

    def counted(self, census: Census, sent: float, received: float) -> list[Member]:
        """The members were read; those of them that are dead. Only if it still has this beat may a row go.

        Parameters:
            sent, received: our clock before and after.
        """
        view = (census.session, census.log.epoch, census.log.timeline)
        if view != self._view:
            # Another connection may be one to a database that has lost renewals, so that beats are counted again.
            self._view, self._seen = view, {}
        known, self._seen = self._seen, {}
        dead = []
        for member in census.members:
            beat, since = known.get(member.id, (None, received))
            if beat != member.beat:
                since = received
            elif sent - since >= self._terms.collect_seconds(member.lease_ms):
                dead.append(member)
            self._seen[member.id] = (member.beat, since)
        return dead
