"""A round in which nothing goes wrong and nothing else happens: many revocations, and how long they take."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from typing import Final

from tests.nemesis.asking import Asker
from tests.nemesis.callers import Callers
from tests.nemesis.checking import Violation, violations
from tests.nemesis.cluster import Caller, Cluster, Site, now
from tests.nemesis.history import Change, Key, Question
from tests.nemesis.load import create_keys
from tests.nemesis.probing import Probing, prime
from tests.nemesis.result import Result, Size, found_in
from tests.nemesis.server_faults import Nothing

ALONE: Final = 50
"""One of so many keys is revoked while nobody does anything else, so that everybody is asked at once indeed."""

REVOKING_MAX: Final = 24
"""The others are revoked so many at once."""

WAVE: Final = 24
"""So many in a row through the same server, which waits for all of them together; then the next server has its turn."""


class Quiet(Nothing):
    """Nothing else happens: keys that all of four servers know are revoked, some alone and most many at once."""

    name = "quiet"
    sites = (Site("a"), Site("b"), Site("c"), Site("d"))
    holders_min = 4


class QuietRound:
    """One round.

    Parameters:
        cluster: whose servers are asked.
        chance: decides who revokes.
        size: how many revocations there are.
        name: of its workspace; no other round has it.
    """

    def __init__(self, cluster: Cluster, chance: random.Random, size: Size, name: str) -> None:
        self._cluster = cluster
        self._chance = chance
        self._size = size
        self._callers = self._open_callers()
        self._workspace = f"nemesis/{name}"
        self._asker = Asker(time.time() - now())
        self._primed = 0

    def _open_callers(self) -> Callers:
        """Who is asked."""
        return Callers(self._cluster, self._chance)

    async def run(self) -> Result:
        """Run it, and judge what was seen."""
        asker, callers = self._asker, self._callers
        async with AsyncExitStack() as stack:
            stack.push_async_callback(callers.close)
            keys = await create_keys(asker, callers, self._cluster, self._workspace, count=self._size.revocations)
            await self._revoke_all(keys)
            assert await asker.look_for_events(callers.anybody(), [self._workspace])
        found = [*violations(asker.history, clock_seconds=Quiet.clock_seconds)]
        found += [Violation("error", each) for each in asker.unexpected]
        return self._result(found)

    def _result(self, found: list[Violation]) -> Result:
        """What happened."""
        servers = [caller.name for caller in self._callers.everybody()]
        result = found_in(self._asker, self._asker.history.changes, servers, found)
        result.primed = self._primed
        result.during = result.begun_during = result.revocations
        result.met = 1
        return result

    async def _revoke_all(self, keys: list[Key]) -> None:
        """Revoke keys, when everybody knows them."""
        self._primed = await prime(self._asker, self._callers.everybody(), keys)
        count = max(1, len(keys) // ALONE)
        for key in keys[:count]:
            await self._revoke_alone(key)
        await self._revoke_together(keys[count:])

    async def _revoke_alone(self, key: Key) -> None:
        """Revoke a key, and ask everybody the moment that it is done."""
        await self._revoke(self._callers.anybody(), key)
        question = Question(key.secret_id)
        await asyncio.gather(*(self._asker.verify(caller, question) for caller in self._callers.everybody()))

    async def _revoke_together(self, keys: list[Key]) -> None:
        """Revoke keys, many at once, and ask everybody about each the moment that it is done."""
        free = asyncio.Semaphore(REVOKING_MAX)

        async def revoke(number: int, key: Key, probing: Probing) -> None:
            async with free:
                change = await self._revoke(self._revoker(number), key)
                await probing.revocation(change, key.secret_id)

        async with asyncio.TaskGroup() as group:
            probing = Probing(self._asker, self._callers, self._chance, group)
            async with asyncio.TaskGroup() as revoking:
                for number, key in enumerate(keys):
                    revoking.create_task(revoke(number, key, probing))
            probing.revoked = [key.secret_id for key in keys]
            await probing.ask_for_the_last_time()

    def _revoker(self, number: int) -> Caller:
        """Who is asked for one of many revocations."""
        everybody = self._callers.everybody()
        return everybody[number // WAVE % len(everybody)]

    async def _revoke(self, caller: Caller, key: Key) -> Change:
        """Revoke a key, again where nobody answered: without a receipt nothing is promised."""

        async def revoke(caller: Caller) -> Change | None:
            change = await self._asker.change(caller, "Revoke", key.workspace, key.id, secret_id="")
            return change if change.receipt else None

        return await revoke(caller) or await self._callers.persist(revoke)
