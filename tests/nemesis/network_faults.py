"""The way between servers and PostgreSQL goes wrong."""

import asyncio
from math import inf

from tests.nemesis.cluster import LEASE_SECONDS, WAIT_SECONDS, Site
from tests.nemesis.fault import LATE_SECONDS, Fault, Repeated
from tests.nemesis.link import RENEWALS
from tests.nemesis.namespace import Apart, why_not
from tests.nemesis.server_faults import Extra


class Linked(Fault):
    """Something is wrong with the link of one server."""

    async def prepare(self) -> None:
        """Decide on the server."""
        link = self.victim().link
        assert link
        self.link = link


class Cut(Repeated, Linked):
    """The connections of a server are reset again and again."""

    name = "connections cut"

    async def once(self) -> None:
        """Reset them."""
        await asyncio.to_thread(self.link.cut)


class HalfClosed(Repeated, Linked):
    """PostgreSQL sees the end of a server's connections, and the server does not."""

    name = "connections half closed"
    pause_seconds = 0.8

    async def once(self) -> None:
        """Close the half of them."""
        await asyncio.to_thread(self.link.half_close)

    async def end(self) -> None:
        """Close the other half too."""
        await super().end()
        self.link.cut()


class Frozen(Linked):
    """Nothing comes through between a server and PostgreSQL, then everything does."""

    name = "connections frozen"
    is_waited_for = True
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Freeze them when its lease has just been renewed."""
        await self.link.until_carried(RENEWALS)
        self.link.freeze()
        self.count += 1

    async def end(self) -> None:
        """Thaw them."""
        self.link.thaw()


class FrozenThere(Linked):
    """What a server sends to PostgreSQL does not come through, and the late answers to what it has sent before do."""

    name = "connections frozen one way"
    is_waited_for = True
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Delay answers first."""
        self.link.delay(0, LATE_SECONDS)
        # The second renewal is sent when the first one was answered, late.
        for _ in range(2):
            await self.link.until_carried(RENEWALS)
        self.link.delay(inf, LATE_SECONDS)
        self.count += 1

    async def end(self) -> None:
        """Let everything through."""
        self.link.delay()


class Delayed(Repeated, Linked):
    """What travels between a server and PostgreSQL takes long, and not always equally long."""

    name = "connections delayed"
    seconds = 3 * LEASE_SECONDS

    async def once(self) -> None:
        """Take another delay, up to about half a lease."""
        there, back = (self.chance.choice((0.0, 0.02, 0.1, 0.3)) * LEASE_SECONDS for _ in range(2))
        self.link.delay(there, back)

    async def end(self) -> None:
        """Delay nothing any more."""
        await super().end()
        self.link.delay()


class Blackholed(Extra):
    """The network swallows what a server sends to PostgreSQL: no reset, no end, no answer."""

    name = "network blackholed"
    is_waited_for = True
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS

    @classmethod
    def why_not(cls) -> str:
        """Why there can be no network of its own."""
        return why_not()

    async def prepare(self) -> None:
        """Make the network, then start the server."""
        self._apart = Apart()
        self._apart.open()
        await super().prepare()

    def site(self) -> Site:
        """In a namespace."""
        return self._apart.site("d")

    async def begin(self) -> None:
        """Swallow everything."""
        self._apart.swallow()
        self.count += 1

    async def end(self) -> None:
        """Let everything through."""
        self._apart.restore()

    async def clean(self) -> None:
        """End the server and its network."""
        await super().clean()
        self._apart.close()
