"""Who is asked in a round: the servers that are there, each by its address."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from tests.nemesis.cluster import Caller, Cluster, Node

T = TypeVar("T")

WELL_SECONDS_MAX: Final = 30.0
"""Whoever is asked again and again is well after so long."""

ASKED_AGAIN_SECONDS: Final = 0.1


class Callers:
    """A client of each life of each server, for as long as a round lasts.

    Parameters:
        cluster: whose servers are asked.
        chance: decides who is asked, where anybody will do.
        affected: servers that have trouble, at the moment.
    """

    def __init__(self, cluster: Cluster, chance: random.Random, affected: Callable[[], list[Node]] = list) -> None:
        self._cluster = cluster
        self._chance = chance
        self._affected = affected
        self._callers = dict[str, Caller]()

    def of(self, node: Node) -> Caller:
        """A client of a server that runs."""
        if node.name not in self._callers:
            self._callers[node.name] = Caller(node, self._cluster.operator_key)
        return self._callers[node.name]

    def everybody(self) -> list[Caller]:
        """A client of each server, and of each client that answers for itself."""
        return [self.of(node) for node in [*self._cluster.nodes] if node.life]

    def _servers(self) -> list[Caller]:
        """A client of each server."""
        return [self.of(node) for node in [*self._cluster.nodes] if node.life and not node.site.is_client]

    def anybody(self) -> Caller:
        """A client of any server, seldom of one that has trouble."""
        affected = {node.name for node in self._affected() if node.life}
        callers = self._servers()
        well = [caller for caller in callers if caller.name not in affected]
        return self._chance.choice(well if self._chance.random() < 0.85 else callers)

    async def persist(self, call: Callable[[Caller], Awaitable[T | None]], caller: Caller | None = None) -> T:
        """Make a call until it is answered.

        Parameters:
            caller: who is asked; None: anybody, somebody else each time.
        """
        async with asyncio.timeout(WELL_SECONDS_MAX):
            while True:
                if answer := await call(caller or self.anybody()):
                    return answer
                await asyncio.sleep(ASKED_AGAIN_SECONDS)

    async def close(self) -> None:
        """Take leave of all servers."""
        for caller in self._callers.values():
            await caller.channel.close()
