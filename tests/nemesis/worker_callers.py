"""Who is asked of a server that is several processes: each of them, by a connection that has come to it."""

import random
from typing import Final

from tests.nemesis.asking import Asker
from tests.nemesis.callers import Callers
from tests.nemesis.cluster import Caller, Cluster, Node
from tests.nemesis.history import Question

TRIES_EACH: Final = 100
"""So many connections for each worker: of four, one is missed by all of them once in 10^50 times."""


class WorkerCaller(Caller):
    """The operator, as a client of the worker that has accepted the connection, which its answers tell.

    Attributes:
        name: the worker that has answered first; empty: none has.
        has_moved: another one has answered since: the connection is a new one.
    """

    def __init__(self, node: Node, key_string: str) -> None:
        super().__init__(node, key_string)
        self.name = ""
        self.has_moved = False

    def answered_by(self, holder: str) -> str:
        """Who has given an answer: the holder that it names."""
        self.name = self.name or holder
        self.has_moved = self.has_moved or holder != self.name
        return holder


class WorkerCallers(Callers):
    """A client of each worker, when they have been met; before that one of whichever it is.

    Parameters:
        count: how many workers there are.
    """

    def __init__(self, cluster: Cluster, chance: random.Random, count: int) -> None:
        super().__init__(cluster, chance)
        self._count = count
        self._met = dict[str, WorkerCaller]()
        self._left = list[WorkerCaller]()

    def everybody(self) -> list[Caller]:
        """A client of each worker."""
        return [*self._met.values()] or super().everybody()

    async def meet(self, asker: Asker, question: Question) -> list[str]:
        """Open connections until each worker has one: the kernel chooses who accepts it.

        Parameters:
            question: that they are asked.

        Returns:
            Who was met only now.
        """
        (node,) = self._cluster.nodes
        for caller in [*self._met.values()]:
            if caller.has_moved:
                self.leave(caller.name)
        before = set(self._met)
        for _ in range(TRIES_EACH * self._count):
            if len(self._met) == self._count:
                return [name for name in self._met if name not in before]
            caller = WorkerCaller(node, self._cluster.operator_key)
            if await asker.verify(caller, question) and caller.name not in self._met:
                self._met[caller.name] = caller
            else:
                await caller.channel.close()
        raise AssertionError(f"only {sorted(self._met)} were met")

    def leave(self, name: str) -> None:
        """Ask a worker no more; what it was asked may still be answered."""
        self._left.append(self._met.pop(name))

    async def close(self) -> None:
        """Take leave of all."""
        await super().close()
        for caller in [*self._met.values(), *self._left]:
            await caller.channel.close()
