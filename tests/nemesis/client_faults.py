"""Clients that answer for themselves go wrong, or their servers under them."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from typing import ClassVar, Final

from tests.nemesis.answering import SESSION_VARIABLE
from tests.nemesis.cluster import LEASE_SECONDS, WAIT_SECONDS, Node, Site
from tests.nemesis.fault import USUAL, Fault, Repeated
from tests.nemesis.link import Link

ANSWERING: Final = (sys.executable, "-m", "tests.nemesis.answering")

CLIENTS: Final = "kl"
"""Two, each of which has its lease from one of three servers."""


class Clients(Fault):
    """Two processes answer for themselves, under leases that they have from servers.

    Attributes:
        clients: these.
        links: the ways from all of them to each server, by its letter.
    """

    holders_min = len(USUAL) + len(CLIENTS)
    program: ClassVar[tuple[str, ...]] = ANSWERING
    session_seconds: ClassVar[float] = 300.0

    async def prepare(self) -> None:
        """Start them."""
        self.links = {node.site.name: self.cluster.wire_to(node) for node in self.cluster.nodes}
        addresses = ",".join(":".join(map(str, link.address)) for link in self.links.values())
        variables = {
            "KEYSVC_ADDRESS": f"ipv4:{addresses}",
            "KEYSVC_API_KEY": self.cluster.operator_key,
            SESSION_VARIABLE: str(self.session_seconds),
        }
        sites = [Site(name, program=self.program, variables=variables, is_client=True) for name in CLIENTS]
        self.clients = self.cluster.launch(*sites)
        for node in self.clients:
            await asyncio.to_thread(node.await_ready)

    async def clean(self) -> None:
        """End them."""
        for node in self.cluster.nodes[len(USUAL) :]:
            await asyncio.to_thread(self.cluster.remove, node)

    def client(self) -> Node:
        """One of them."""
        return self.chance.choice(self.clients)


class Leased(Clients):
    """Nothing else happens to two clients that answer for themselves."""

    name = "clients"

    async def begin(self) -> None:
        """Let them be."""
        self.count += 1

    async def end(self) -> None:
        """Let them be."""


class ClientStopped(Clients):
    """A client that answers for itself stands still for longer than its lease, with its memory, and goes on."""

    name = "client stopped"
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Stop it."""
        self._stopped = self.client()
        self._stopped.signal(signal.SIGSTOP)
        self.count += 1

    async def end(self) -> None:
        """Continue it."""
        self._stopped.signal(signal.SIGCONT)


class ClientKilled(Clients):
    """A client that answers for itself dies, and is started again."""

    name = "client killed"

    async def begin(self) -> None:
        """Kill it."""
        self._killed = self.client()
        await asyncio.to_thread(self._killed.kill)
        self.count += 1

    async def end(self) -> None:
        """Start it."""
        self._killed.launch()
        await asyncio.to_thread(self._killed.await_ready)


class ClientsCutOff(Clients):
    """Nothing comes through between clients that answer for themselves and all servers, then everything does."""

    name = "clients cut off"
    seconds = WAIT_SECONDS + 1.5 * LEASE_SECONDS

    async def begin(self) -> None:
        """Freeze all ways."""
        for link in self.links.values():
            link.freeze()
        self.count += 1

    async def end(self) -> None:
        """Thaw them."""
        for link in self.links.values():
            link.thaw()


class ServerKilledUnderClients(Clients):
    """A server dies that may have granted leases to clients, and is started again where they look for it."""

    name = "server killed under clients"
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
            self.links[node.site.name].upstream = node.address


class ClientsMoving(Repeated, Clients):
    """Clients go from server to server all the time, some of which are slow, or reset their connections."""

    name = "clients moving"
    session_seconds = 0.4
    seconds = 3 * LEASE_SECONDS
    pause_seconds = 0.2

    async def once(self) -> None:
        """Slow one way down, or cut it."""
        link: Link = self.chance.choice([*self.links.values()])
        if self.chance.random() < 0.3:
            await asyncio.to_thread(link.cut)
        else:
            there, back = (self.chance.choice((0.0, 0.02, 0.1, 0.3)) * LEASE_SECONDS for _ in range(2))
            link.delay(there, back)

    async def end(self) -> None:
        """Let everything through."""
        await super().end()
        for link in self.links.values():
            link.delay()


FAULTS: Final[tuple[type[Clients], ...]] = (
    Leased,
    ClientStopped,
    ClientKilled,
    ClientsCutOff,
    ServerKilledUnderClients,
    ClientsMoving,
)

MISTAKES: Final[Mapping[str, type[Clients]]] = {
    "acknowledges_over_clients": ClientsCutOff,
    "client_keeps_changes": Leased,
    "client_outlives_its_lease": ClientsCutOff,
}
"""Mutants, of servers or of clients, which break (S) in rounds of a fault."""
