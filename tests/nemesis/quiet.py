"""A round in which nothing goes wrong and nothing else happens: many revocations, and how long they take."""

import asyncio
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Final

from tests.nemesis.asking import Asker
from tests.nemesis.checking import Violation, violations
from tests.nemesis.cluster import Caller, Cluster, Site, now
from tests.nemesis.history import Key, Question
from tests.nemesis.result import Result, Size
from tests.nemesis.server_faults import Nothing

PRIMED_SECONDS_MAX: Final = 20.0


class Quiet(Nothing):
    """Nothing else happens: one key after the other is revoked, and all of four servers know it."""

    name = "quiet"
    sites = (Site("a"), Site("b"), Site("c"), Site("d"))


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
        self._callers = list[Caller]()
        self._chance = chance
        self._size = size
        self._workspace = f"nemesis/{name}"
        self._asker = Asker(time.time() - now())

    async def run(self) -> Result:
        """Run it, and judge what was seen."""
        asker = self._asker
        async with AsyncExitStack() as stack:
            for node in self._cluster.nodes:
                caller = Caller(node, self._cluster.operator_key)
                stack.push_async_callback(caller.channel.close)
                self._callers.append(caller)
            anybody = self._callers[0]
            assert await asker.create_workspace(anybody, self._workspace)
            for _ in range(self._size.revocations):
                await self._revoke()
            assert await asker.look_for_events(anybody, [self._workspace])
        history = asker.history
        found = [*violations(history, clock_seconds=Quiet.clock_seconds)]
        found += [Violation("error", each) for each in asker.unexpected]
        receipts = [change.receipt for change in history.changes if change.receipt]
        count = len(history.changes)
        return Result(
            rounds=1,
            revocations=count,
            during=count,
            begun_during=count,
            answers=len(history.answers),
            from_memory=sum(answer.basis == "MEMORY" for answer in history.answers),
            primed=count * len(self._callers),
            paths=Counter(receipt.path or "PENDING" for receipt in receipts),
            outcomes=Counter("acknowledged" if change.receipt else "unknown" for change in history.changes),
            unanswered=asker.unanswered,
            unacknowledged=sum(bool(receipt.unacknowledged) for receipt in receipts),
            revoke_seconds=[change.returned - change.invoke for change in history.changes if change.receipt],
            violations=found,
        )

    async def _revoke(self) -> None:
        """Revoke a key that every server knows, and ask everybody the moment that it is done."""
        key = await self._asker.create(self._callers[0], self._workspace, ["pdf.read"])
        assert key is not None
        await asyncio.gather(*(self._prime(caller, key) for caller in self._callers))
        revoker = self._chance.choice(self._callers)
        await self._asker.change(revoker, "Revoke", key.workspace, key.id, secret_id="")
        await asyncio.gather(*(self._asker.verify(caller, Question(key.secret_id)) for caller in self._callers))

    async def _prime(self, caller: Caller, key: Key) -> None:
        """Let a server know the key: it says VALID, and from memory."""
        async with asyncio.timeout(PRIMED_SECONDS_MAX):
            while True:
                answer = await self._asker.verify(caller, Question(key.secret_id))
                if answer and (answer.verdict, answer.basis) == ("VALID", "MEMORY"):
                    return
