"""What a fault is: it begins and ends, and everything about it is bounded in time."""

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Final

from tests.nemesis.cluster import LEASE_SECONDS, Cluster, Node, Site

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
        sites: the servers that are there.
        count: how often something went wrong so far.
        affected: servers that are seldom asked for changes, since they would not answer in time.
        revoker: the server that is asked for all revocations, if it matters who is.
        is_waited_for: somebody does not acknowledge for longer than a lease.
        holders_min: so many must know each key.
        workers: how many processes the server has that share its address; 0: each server has its own.
        clock_seconds: what ends by time may be missed by so much.
    """

    name: ClassVar[str]
    sites: ClassVar[tuple[Site, ...]] = USUAL
    is_waited_for: ClassVar[bool] = False
    holders_min: ClassVar[int] = 3
    workers: ClassVar[int] = 0
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


class Repeated(Fault):
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


def seeded(seed: int, name: str) -> random.Random:
    """What chance does in one round."""
    return random.Random(f"{seed} {name}")
