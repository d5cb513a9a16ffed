"""Servers go wrong."""

import asyncio
import contextlib
import signal
from abc import abstractmethod

from tests.nemesis.cluster import LEASE_SECONDS, STEERED, WAIT_SECONDS, Node, Site
from tests.nemesis.fault import LATE_SECONDS, USUAL, Fault
from tests.nemesis.link import RENEWALS
from tests.nemesis.serving import BLOCK_SIGNAL, BLOCK_VARIABLE, RATE_VARIABLE


class Nothing(Fault):
    """All is well."""

    name = "none"

    async def begin(self) -> None:
        """Do nothing."""

    async def end(self) -> None:
        """Do nothing."""


class Stopped(Fault):
    """A server stands still for longer than any lease, with its memory, and goes on; it hears of the database last."""

    name = "stopped"
    is_waited_for = True
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Stop it."""
        self.victim().signal(signal.SIGSTOP)
        self.count += 1

    async def end(self) -> None:
        """Continue it; whoever has asked it something in the meantime is answered before it knows anything new."""
        for node in self.affected:
            assert node.link
            node.link.delay(back=LATE_SECONDS)
            node.signal(signal.SIGCONT)
            # The second renewal is sent when the first one was answered, or given up.
            for _ in range(2):
                await node.link.until_carried(RENEWALS)
            node.link.delay()


class StoppedForLong(Stopped):
    """A server stands still until the others take it for dead, and goes on."""

    name = "stopped for long"
    seconds = 3 * WAIT_SECONDS + 1.5


class Killed(Fault):
    """A server dies, and is started again."""

    name = "killed"
    is_waited_for = True

    async def begin(self) -> None:
        """Kill it."""
        await asyncio.to_thread(self.victim().kill)
        self.count += 1

    async def end(self) -> None:
        """Start it."""
        for node in self.affected:
            node.launch()
            await asyncio.to_thread(node.await_ready)


class Extra(Fault):
    """Happens to a fourth server, which is like no other."""

    extra: Node

    @abstractmethod
    def site(self) -> Site:
        """How to start it."""

    async def prepare(self) -> None:
        """Start it."""
        (self.extra,) = self.cluster.launch(self.site())
        await asyncio.to_thread(self.extra.await_ready)
        self.affected = [self.extra]

    async def clean(self) -> None:
        """End it."""
        for node in self.cluster.nodes[len(USUAL) :]:
            await asyncio.to_thread(self.cluster.remove, node)


class Blocked(Extra):
    """The event loop of a server does nothing for two leases, while the process runs."""

    name = "event loop blocked"
    is_waited_for = True
    seconds = 2 * LEASE_SECONDS + 0.5

    def site(self) -> Site:
        """One that can be told to block."""
        return Site("d", is_linked=True, program=STEERED, variables={BLOCK_VARIABLE: str(2 * LEASE_SECONDS)})

    async def begin(self) -> None:
        """Block it; when it goes on by itself, the database is the last that it hears of."""
        assert self.extra.link
        self.extra.signal(BLOCK_SIGNAL)
        self.extra.link.delay(back=LATE_SECONDS)
        self.count += 1

    async def end(self) -> None:
        """Let it hear."""
        assert self.extra.link
        self.extra.link.delay()


class Clock(Extra):
    """Clocks run at different rates, within what is assumed, and whoever has the slow one cannot be reached.

    Either the holder's is slow, so that its lease lasts longer than the others think, or the revoker's is fast, so that
    it waits for less time than it thinks.
    """

    name = "clock rate"
    is_waited_for = True
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS
    clock_seconds = 0.25 + 0.2 * LEASE_SECONDS

    async def prepare(self) -> None:
        """Start a server with another clock."""
        self.is_fast = self.chance.getrandbits(1)
        await super().prepare()
        frozen = self.extra
        if self.is_fast:
            self.revoker, frozen = self.extra, self.victim()
        link = frozen.link
        assert link
        self.link = link

    def site(self) -> Site:
        """One with another clock."""
        rate = 1.15 if self.is_fast else 1 / 1.15
        return Site("d", is_linked=True, program=STEERED, variables={RATE_VARIABLE: str(rate), BLOCK_VARIABLE: "0"})

    async def begin(self) -> None:
        """Leave the holder alone with its lease, when that has just been renewed."""
        await self.link.until_carried(RENEWALS)
        self.link.freeze()
        self.count += 1

    async def end(self) -> None:
        """Let it hear of everything."""
        self.link.thaw()


class Joining(Fault):
    """Servers join, become busy and leave, one after the other, some of them by dying."""

    name = "joins and leaves"
    seconds = 6 * LEASE_SECONDS

    async def begin(self) -> None:
        """Begin with the first."""
        self._leaving = asyncio.Event()
        self._coming_and_going = asyncio.create_task(self._come_and_go())

    async def end(self) -> None:
        """Let the last one leave."""
        self._leaving.set()
        await self._coming_and_going

    async def _come_and_go(self) -> None:
        for name in "defgh":
            (node,) = self.cluster.launch(Site(name))
            await asyncio.to_thread(node.await_ready)
            self.count += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), self.chance.uniform(0.5, 1.5))
            self.affected = [node]
            leave = self.chance.choice((node.leave, node.leave, node.kill))
            await asyncio.to_thread(leave)
            self.cluster.remove(node)
            self.affected = []
            if self._leaving.is_set():
                break


class RevokerKilled(Fault):
    """A server stands still, so that changes have to wait; the one that waits for it is killed."""

    name = "revoker killed"
    is_waited_for = True
    seconds = WAIT_SECONDS + LEASE_SECONDS

    async def prepare(self) -> None:
        """Decide on both."""
        self.revoker = self.victim()
        self._standing = self.node("c" if self.revoker.site.name == "b" else "b")
        self.affected = [self.revoker, self._standing]

    async def begin(self) -> None:
        """Stop the one."""
        self._standing.signal(signal.SIGSTOP)
        self._killing = asyncio.create_task(self._kill())

    async def end(self) -> None:
        """Continue the one, and wait for the other."""
        await self._killing
        self._standing.signal(signal.SIGCONT)

    async def _kill(self) -> None:
        """Kill the other one while it waits, and start it again."""
        assert self.revoker
        await asyncio.sleep(self.chance.uniform(0.1, 0.5) * LEASE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * LEASE_SECONDS):
                while not self.is_revoking(self.revoker.name):  # noqa: ASYNC110 (a server cannot set our event)
                    await asyncio.sleep(0.002)
        self.count += self.is_revoking(self.revoker.name)
        victim, self.revoker = self.revoker, None
        await asyncio.to_thread(victim.kill)
        victim.launch()
        await asyncio.to_thread(victim.await_ready)
