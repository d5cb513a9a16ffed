"""What goes wrong while keys are revoked. Each fault begins and ends, and everything about it is bounded in time."""

import asyncio
import contextlib
import random
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import ClassVar, Final

from tests.nemesis.cluster import LEASE_SECONDS, STEERED, WAIT_SECONDS, Cluster, Node, Site
from tests.nemesis.link import RENEWALS
from tests.nemesis.namespace import Apart, why_not
from tests.nemesis.serving import BLOCK_SIGNAL, BLOCK_VARIABLE, RATE_VARIABLE

USUAL: Final = (Site("a"), Site("b", is_linked=True), Site("c", is_linked=True))
"""The servers that are there whatever the fault is."""

LATE_SECONDS: Final = LEASE_SECONDS / 5
"""So much later than usual the database answers a server that shall show first what it remembers."""

BOUND_SECONDS: Final = 60.0
"""To begin and to end a fault takes less than so long, starts of servers included."""


class Fault(ABC):
    """Something that goes wrong for a while.

    Parameters:
        cluster: it happens to.
        chance: decides what is left to chance.
        is_revoking: tells whether a server, by its name, is revoking something at the moment.

    Attributes:
        count: how often something went wrong so far.
        affected: servers that are seldom asked for changes, since they would not answer in time.
        revoker: the server that is asked for all revocations, if it matters who is.
        clock_seconds: what ends by time may be missed by so much.
    """

    name: ClassVar[str]
    seconds: float = 2 * LEASE_SECONDS
    clock_seconds: float = 0.25

    def __init__(self, cluster: Cluster, chance: random.Random, is_revoking: Callable[[str], bool]) -> None:
        self.cluster = cluster
        self.chance = chance
        self.is_revoking = is_revoking
        self.count = 0
        self.affected = list[Node]()
        self.revoker: Node | None = None

    @classmethod
    def why_not(cls) -> str:
        """Why it cannot happen here; empty: it can."""
        return ""

    async def prepare(self) -> None:  # noqa: B027 (most need nothing)
        """Build whatever it needs, with nothing wrong yet."""

    @abstractmethod
    async def begin(self) -> None:
        """Let it go wrong."""

    @abstractmethod
    async def end(self) -> None:
        """Let all be well again."""

    async def clean(self) -> None:  # noqa: B027 (most have built nothing)
        """Take down what ``prepare`` built, as far as it came."""

    def node(self, name: str) -> Node:
        """A server by its name."""
        return next(node for node in self.cluster.nodes if node.site.name == name)

    def victim(self) -> Node:
        """One of the usual servers that reaches PostgreSQL through a link."""
        node = self.node(self.chance.choice("bc"))
        self.affected = [node]
        return node


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
            await asyncio.sleep(2 * LATE_SECONDS)
            node.link.delay()


class StoppedForLong(Stopped):
    """A server stands still until the others take it for dead, and goes on."""

    name = "stopped for long"
    seconds = 3 * WAIT_SECONDS + 1.5


class Killed(Fault):
    """A server dies, and is started again."""

    name = "killed"

    async def begin(self) -> None:
        """Kill it."""
        await asyncio.to_thread(self.victim().kill)
        self.count += 1

    async def end(self) -> None:
        """Start it."""
        for node in self.affected:
            node.launch()
            await asyncio.to_thread(node.await_ready)


class _PostgresEnded(Fault):
    """PostgreSQL ends, and is started again at once."""

    how: ClassVar[signal.Signals]
    seconds = 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Restart it."""
        await asyncio.to_thread(self.cluster.end_postgres, self.how)
        await asyncio.to_thread(self.cluster.revive_postgres)
        self.count += 1

    async def end(self) -> None:
        """Nothing is left to do."""


class PostgresRestarted(_PostgresEnded):
    """PostgreSQL is restarted: it ends all connections and writes everything down."""

    name = "postgres restarted"
    how = signal.SIGINT


class PostgresAborted(_PostgresEnded):
    """PostgreSQL is ended without a shutdown, and recovers."""

    name = "postgres aborted"
    how = signal.SIGQUIT


class PostgresKilled(_PostgresEnded):
    """PostgreSQL is killed, its backends finish by themselves, and it recovers."""

    name = "postgres killed"
    how = signal.SIGKILL


class _Repeated(Fault):
    """Something that goes wrong again and again until the end."""

    pause_seconds: float = 0.25

    async def begin(self) -> None:
        """Begin."""
        self._repeating = asyncio.create_task(self._repeat())

    async def end(self) -> None:
        """End, after the time that is under way."""
        self._repeating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._repeating

    async def _repeat(self) -> None:
        while True:
            await self.once()
            self.count += 1
            await asyncio.sleep(self.chance.uniform(0.2, 1.8) * self.pause_seconds)

    @abstractmethod
    async def once(self) -> None:
        """What goes wrong."""


class Terminated(_Repeated):
    """PostgreSQL ends all connections of all servers, again and again."""

    name = "connections terminated"
    pause_seconds = 0.4

    async def once(self) -> None:
        """End them."""
        await asyncio.shield(asyncio.to_thread(self.cluster.terminate_backends))


class _Linked(Fault):
    """Something is wrong with the link of one server."""

    async def prepare(self) -> None:
        """Decide on the server."""
        link = self.victim().link
        assert link
        self.link = link


class Cut(_Repeated, _Linked):
    """The connections of a server are reset again and again."""

    name = "connections cut"

    async def once(self) -> None:
        """Reset them."""
        await asyncio.to_thread(self.link.cut)


class HalfClosed(_Repeated, _Linked):
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


class Frozen(_Linked):
    """Nothing comes through between a server and PostgreSQL, then everything does."""

    name = "connections frozen"
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Freeze them when its lease has just been renewed."""
        await self.link.until_carried(RENEWALS)
        self.link.freeze()
        self.count += 1

    async def end(self) -> None:
        """Thaw them."""
        self.link.thaw()


class FrozenThere(_Linked):
    """What a server sends to PostgreSQL does not come through, and the late answers to what it has sent before do."""

    name = "connections frozen one way"
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Delay answers first."""
        self.link.delay(0, LATE_SECONDS)
        await asyncio.sleep(2 * LATE_SECONDS)
        await self.link.until_carried(RENEWALS)
        self.link.delay(inf, LATE_SECONDS)
        self.count += 1

    async def end(self) -> None:
        """Let everything through."""
        self.link.delay()


class Delayed(_Repeated, _Linked):
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


class _Extra(Fault):
    """Happens to a fourth server, which is like no other."""

    extra: Node

    def site(self) -> Site:
        """How to start it."""
        raise NotImplementedError

    async def prepare(self) -> None:
        """Start it."""
        (self.extra,) = self.cluster.launch(self.site())
        await asyncio.to_thread(self.extra.await_ready)
        self.affected = [self.extra]

    async def clean(self) -> None:
        """End it."""
        for node in self.cluster.nodes[len(USUAL) :]:
            await asyncio.to_thread(self.cluster.remove, node)


class Blackholed(_Extra):
    """The network swallows what a server sends to PostgreSQL: no reset, no end, no answer."""

    name = "network blackholed"
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


class Blocked(_Extra):
    """The event loop of a server does nothing for two leases, while the process runs."""

    name = "event loop blocked"
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


class Clock(_Extra):
    """Clocks run at different rates, within what is assumed, and whoever has the slow one cannot be reached.

    Either the holder's is slow, so that its lease lasts longer than the others think, or the revoker's is fast, so that
    it waits for less time than it thinks.
    """

    name = "clock rate"
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
    seconds = WAIT_SECONDS + LEASE_SECONDS

    async def prepare(self) -> None:
        """Decide on both."""
        self.revoker = self.victim()
        self._standing = self.node("c" if self.revoker.site.name == "b" else "b")
        self.affected = [self.revoker, self._standing]

    async def begin(self) -> None:
        """Stop the one; kill the other when it is waiting."""
        assert self.revoker
        self._standing.signal(signal.SIGSTOP)
        await asyncio.sleep(self.chance.uniform(0.0, 0.5) * LEASE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * LEASE_SECONDS):
                while not self.is_revoking(self.revoker.name):  # noqa: ASYNC110 (a server cannot set our event)
                    await asyncio.sleep(0.002)
        self.count += self.is_revoking(self.revoker.name)
        victim, self.revoker = self.revoker, None
        await asyncio.to_thread(victim.kill)
        victim.launch()
        self._starting = asyncio.create_task(asyncio.to_thread(victim.await_ready))

    async def end(self) -> None:
        """Continue the one, and wait for the other."""
        self._standing.signal(signal.SIGCONT)
        await self._starting


FAULTS: Final[tuple[type[Fault], ...]] = (
    Nothing,
    Stopped,
    StoppedForLong,
    Killed,
    PostgresRestarted,
    PostgresAborted,
    PostgresKilled,
    Terminated,
    Cut,
    HalfClosed,
    Frozen,
    FrozenThere,
    Delayed,
    Blackholed,
    Blocked,
    Clock,
    Joining,
    RevokerKilled,
)


def seeded(seed: int, name: str) -> random.Random:
    """What chance does in one round."""
    return random.Random(f"{seed} {name}")
