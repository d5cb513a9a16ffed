"""A trial: one server beside two that are as they should be, and a schedule that shows one mistake, if there is one.

Nothing is left to chance here: links delay and hold back what they must, so that what may go wrong has a wide window.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from math import inf
from typing import Any, Final, TypeAlias

import psycopg

from tests.nemesis.asking import Asker
from tests.nemesis.checking import Violation, violations
from tests.nemesis.cluster import Caller, Cluster, Node, Site, now
from tests.nemesis.history import Answer, Change, Key, Question
from tests.nemesis.link import RENEWALS, Link
from tests.process.running import KEYSVC

TERMS: Final = {"KEYSVC_CLOCK_RATE": "1", "KEYSVC_LEASE_MARGIN_SECONDS": "0"}
"""All clocks are the same here, so nobody need wait for longer than a lease; a mistake is not hidden by the margin."""

SITES: Final = (Site("a", variables=TERMS), Site("b", is_linked=True, variables=TERMS))

PRIMED_SECONDS_MAX: Final = 20.0
TICK_SECONDS: Final = 0.02
UNDER_WAY_MAX: Final = 10


class Trial:
    """What a schedule works with.

    Attributes:
        a, b: servers that are as they should be; the second one has a link.
        d: the server on trial, which has a link too.
    """

    def __init__(self, cluster: Cluster, d: Node, name: str) -> None:
        self.cluster = cluster
        self.asker = Asker(time.time() - now())
        self.a, self.b = cluster.nodes[:2]
        self.d = d
        self.workspace = f"trial/{name}"
        self._callers = dict[str, Caller]()
        self._under_way = 0
        self._watching = list[str]()

    def caller(self, node: Node) -> Caller:
        """A client of a server."""
        if node.name not in self._callers:
            self._callers[node.name] = Caller(node, self.cluster.operator_key)
        return self._callers[node.name]

    async def create(self) -> Key:
        """A new key that no server knows; its creation waits for nobody."""
        async with asyncio.timeout(PRIMED_SECONDS_MAX):
            while True:
                if key := await self.asker.create(self.caller(self.a), self.workspace, ()):
                    return key
                await asyncio.sleep(0.05)

    async def prime(self, key: Key, *nodes: Node) -> None:
        """Let servers say that a key is VALID, from memory; from now on all are asked about it all the time."""
        for node in nodes:
            async with asyncio.timeout(PRIMED_SECONDS_MAX):
                while True:
                    answer = await self.verify(node, key)
                    if answer and (answer.verdict, answer.basis) == ("VALID", "MEMORY"):
                        break
                    await asyncio.sleep(0.01)
        self._watching.append(key.secret_id)

    async def known(self, *nodes: Node, count: int = 1) -> list[Key]:
        """New keys that servers know."""
        keys = [await self.create() for _ in range(count)]
        for key in keys:
            await self.prime(key, *(nodes or self.cluster.nodes))
        return keys

    async def verify(self, node: Node, key: Key) -> Answer | None:
        """Ask a server about a key."""
        return await self.asker.verify(self.caller(node), Question(key.secret_id))

    async def revoke(self, node: Node, key: Key, **how: Any) -> Change:
        """Revoke a key."""
        return await self.asker.change(self.caller(node), "Revoke", self.workspace, key.id, secret_id="", **how)

    async def watch(self) -> None:
        """Ask all servers about all keys, all the time."""
        async with asyncio.TaskGroup() as group:
            while True:
                for node in self.cluster.nodes:
                    if node.life and self._watching and self._under_way < UNDER_WAY_MAX * len(self.cluster.nodes):
                        group.create_task(self._ask_all(self.caller(node)))
                await asyncio.sleep(TICK_SECONDS)

    async def _ask_all(self, caller: Caller) -> None:
        self._under_way += 1
        try:
            await self.asker.verify_all(caller, [Question(each) for each in self._watching])
        finally:
            self._under_way -= 1

    async def judge(self) -> list[Violation]:
        """Read the audit log, and judge."""
        async with asyncio.timeout(PRIMED_SECONDS_MAX):
            while True:
                if await self.asker.look_for_events(self.caller(self.a), [self.workspace]):
                    return violations(self.asker.history)
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Take leave of all servers."""
        for caller in self._callers.values():
            await caller.channel.close()


Schedule: TypeAlias = Callable[[Trial], Awaitable[None]]


async def hold(node: Node, *, back: float = inf) -> None:
    """Hold back the renewals of a server, from the moment that it has sent one."""
    await linked(node).until_carried(RENEWALS)
    linked(node).delay(inf, back, application=RENEWALS)


def linked(node: Node) -> Link:
    """The link of a server."""
    assert node.link
    return node.link


def mutant(name: str) -> tuple[str, ...]:
    """How a server with a mistake is called."""
    return (sys.executable, "-m", f"tests.nemesis.mutants.{name}")


async def attempt(cluster: Cluster, schedules: list[Schedule], program: tuple[str, ...] = KEYSVC) -> list[Violation]:
    """Try a server by schedules, one after the other; what was wrong.

    Parameters:
        program: how the server is called that is on trial.
    """
    found = list[Violation]()
    (d,) = cluster.launch(Site("d", is_linked=True, program=program, variables=TERMS))
    try:
        await asyncio.to_thread(d.await_ready)
        for schedule in schedules:
            found += await _follow(cluster, d, schedule)
    finally:
        await asyncio.to_thread(cluster.remove, d)
        # It is dead, whatever its row says.
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(
                "DELETE FROM lease_member WHERE split_part(host, '/', 2) <> ALL(%s)",
                ([str(node.pid) for node in cluster.nodes],),
            )
    return found


async def _follow(cluster: Cluster, d: Node, schedule: Schedule) -> list[Violation]:
    async with AsyncExitStack() as stack:
        trial = Trial(cluster, d, f"{schedule.__name__.replace('_', '-')}-{now() * 1000:.0f}")
        stack.push_async_callback(trial.close)
        await trial.asker.create_workspace(trial.caller(trial.a), trial.workspace)
        watching = asyncio.create_task(trial.watch())
        try:
            await schedule(trial)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            for node in cluster.nodes:
                if node.link:
                    node.link.delay()
        return await trial.judge()
