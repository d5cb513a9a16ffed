"""One round: keys that all servers know are revoked while something goes wrong, and everybody is asked all the time."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from contextlib import AsyncExitStack
from math import inf
from typing import Any, Final

from keysvc.v1 import receipt_pb2
from tests.nemesis.asking import Asker
from tests.nemesis.callers import Callers
from tests.nemesis.changing import Changing
from tests.nemesis.checking import Violation, violations
from tests.nemesis.cluster import LEASE_SECONDS, WAIT_SECONDS, Caller, Cluster, now
from tests.nemesis.copying import copies
from tests.nemesis.fault import BOUND_SECONDS, Fault
from tests.nemesis.history import REFUSING, Change, Key, Question
from tests.nemesis.probing import SCOPES, Probing, prime
from tests.nemesis.result import Result, Size, found_in

LEAD_SECONDS: Final = 0.3
"""So long before the fault begins the first key is revoked."""

TAIL_SECONDS: Final = 0.3
"""So long after the fault's end the last one is."""

ANSWERED_SECONDS_MAX: Final = 20.0
"""When all is well again whoever repeats a revocation is answered after so long."""

FINAL_SECONDS_MAX: Final = WAIT_SECONDS + 15.0
"""When all is well again each revocation is final after so long, whoever has made it."""


class Round:
    """One round.

    Parameters:
        cluster: whose servers are asked.
        fault_type: what goes wrong.
        chance: decides what is left to chance.
        size: how much is done.
        name: of its workspaces; no other round has it.
    """

    def __init__(self, cluster: Cluster, fault_type: type[Fault], chance: random.Random, size: Size, name: str) -> None:
        self._cluster = cluster
        self._chance = chance
        self._size = size
        self._revoked, self._changed = f"nemesis/{name}-revoked", f"nemesis/{name}-changed"
        self._revoking = Counter[str]()
        self._fault = fault_type(cluster, chance, lambda name: bool(self._revoking[name]))
        self._callers = Callers(cluster, chance, lambda: self._fault.affected)
        self._asker = Asker(time.time() - now())
        self._unexpected = list[Violation]()
        self._broken = asyncio.Event()
        self._began = self._ended = 0.0

    async def run(self) -> Result:
        """Run it, and judge what was seen."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._callers.close)
            try:
                async with asyncio.TaskGroup() as group:
                    # A fault that needs a server of its own starts it while keys are created elsewhere.
                    preparing = group.create_task(self._fault.prepare())
                    workspaces = (self._revoked, self._changed)
                    keys = await create_keys(
                        self._asker, self._callers, self._cluster, *workspaces, count=self._size.revocations
                    )
                    await preparing
                    await self._run(keys, group)
            finally:
                await self._fault.clean()
            self._unexpected += await self._settle()
        found = [*violations(self._asker.history, clock_seconds=self._fault.clock_seconds), *self._unexpected]
        found += [Violation("error", each) for each in self._asker.unexpected]
        return self._result(found)

    async def _run(self, keys: list[Key], group: asyncio.TaskGroup) -> None:
        """All that happens while the fault does, and shortly before and after."""
        self._probing = probing = Probing(self._asker, self._callers, self._chance, group)
        self._primed = await prime(self._asker, self._callers.everybody(), keys)
        probing.revoked = [key.secret_id for key in keys]
        changing = Changing(self._asker, self._callers, probing, self._chance, self._changed)
        watching = group.create_task(probing.watch())
        others = [group.create_task(changing.change_keys()) for _ in range(self._size.keys)]
        others += [group.create_task(changing.change_workspace())]
        others += [group.create_task(changing.list_keys(self._revoked))]
        revoking = [group.create_task(self._revoke_later(key, each)) for each, key in enumerate(keys)]
        await asyncio.sleep(LEAD_SECONDS)
        await self._break()
        await asyncio.wait(revoking)
        changing.stop()
        await asyncio.wait(others)
        await self._until_well()
        watching.cancel()
        # What was asked last is asked of servers that have nothing else to do.
        await probing.ask_for_the_last_time()
        self._servers = [caller.name for caller in self._callers.everybody()]

    async def _break(self) -> None:
        """Let it go wrong, for a while."""
        try:
            self._began = now()
            async with asyncio.timeout(BOUND_SECONDS):
                await self._fault.begin()
            self._broken.set()
            await asyncio.sleep(self._began + self._fault.seconds - now())
        finally:
            async with asyncio.timeout(BOUND_SECONDS):
                await self._fault.end()
            self._ended = now()

    async def _revoke_later(self, key: Key, number: int) -> None:
        """Revoke a key when its turn comes: a third of them together, when the fault has just begun.

        The others are revoked one after the other: before it, while it lasts, and afterwards.
        """
        if number % 3:
            span = LEAD_SECONDS + self._fault.seconds + TAIL_SECONDS
            await asyncio.sleep(span * (number + self._chance.random()) / self._size.revocations)
        else:
            await self._broken.wait()
            await asyncio.sleep(self._chance.choice((0.0, 0.0, 0.02, 0.1)))
        kind = self._chance.random()
        wait, seconds = receipt_pb2.WAIT_BARRIER, 10.0
        if kind < 0.1:
            wait = receipt_pb2.WAIT_COMMIT
        elif kind < 0.2:
            seconds = self._chance.uniform(0.05, 1.5) * LEASE_SECONDS
        is_repeated = self._chance.random() >= 0.3
        change = await self._revoke(self._revoker(), key, wait=wait, seconds=seconds)
        while is_repeated and not change.receipt and now() < (self._ended or inf) + ANSWERED_SECONDS_MAX:
            await asyncio.sleep(self._chance.uniform(0.0, 0.3))
            change = await self._revoke(self._callers.anybody(), key)
            is_complete = change.receipt is None or bool(change.receipt.path)
            self._expect(is_complete, f"{change.label} was repeated, with time to wait, and is not complete")
        is_answered = not is_repeated or change.receipt is not None
        self._expect(is_answered, f"{change.label} was repeated until all was well again, and never answered")

    def _expect(self, is_so: bool, text: str) -> None:
        """Take note of what is not as it must be."""
        if not is_so:
            self._unexpected.append(Violation("repeat", text))

    async def _revoke(self, caller: Caller, key: Key, **how: Any) -> Change:
        """Revoke a key, and ask everybody the moment that it is done."""
        self._revoking[caller.name] += 1
        try:
            change = await self._asker.change(caller, "Revoke", key.workspace, key.id, secret_id="", **how)
        finally:
            self._revoking[caller.name] -= 1
        await self._probing.revocation(change, key.secret_id, again=True)
        return change

    def _revoker(self) -> Caller:
        """A client of the server that shall revoke."""
        revoker = self._fault.revoker
        return self._callers.anybody() if revoker is None or not self._began else self._callers.of(revoker)

    async def _until_well(self) -> None:
        """Wait until every server answers."""
        question = Question(self._probing.revoked[0])
        for caller in self._callers.everybody():
            await self._callers.persist(lambda each: self._asker.verify(each, question), caller)

    async def _settle(self) -> list[Violation]:
        """Wait until all revocations are final, which they must become, then read the audit log."""
        open_states = dict[str, str]()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINAL_SECONDS_MAX):
                while True:
                    states = await self._callers.persist(lambda caller: self._asker.list_keys(caller, self._revoked))
                    open_states = {each: state for each, state in states.items() if state in REFUSING - {"REVOKED"}}
                    if not open_states:
                        break
                    await asyncio.sleep(0.1)
        workspaces = (self._revoked, self._changed)
        await self._callers.persist(lambda caller: self._asker.look_for_events(caller, workspaces))
        return [Violation("final", f"{each} is {state} for ever") for each, state in open_states.items()]

    def _result(self, found: list[Violation]) -> Result:
        """What happened."""
        history = self._asker.history
        revokes = [change for change in history.changes if change.method == "Revoke" and not change.wanted["secret_id"]]
        promised = [each for each in revokes if each.receipt]
        during = [each for each in promised if each.invoke < self._ended and each.returned > self._began]
        begun_during = len({each.key_id for each in during if each.invoke > self._began})
        result = found_in(self._asker, revokes, self._servers, found)
        result.faults = self._fault.count
        result.met = int(bool(begun_during))
        result.during = len({each.key_id for each in during})
        result.begun_during = begun_during
        result.primed = self._primed
        return result


async def create_keys(asker: Asker, callers: Callers, cluster: Cluster, *workspaces: str, count: int) -> list[Key]:
    """Make workspaces, and keys in the first one, which have only the scope that a workspace always allows."""
    for name in workspaces:
        await callers.persist(lambda caller, name=name: asker.create_workspace(caller, name))
    original = await callers.persist(lambda caller: asker.create(caller, workspaces[0], SCOPES[:1]))
    made = await asyncio.to_thread(copies, cluster.url, cluster.pepper, original, count - 1)
    for key, key_string in made:
        asker.own(key, key.secret_id, key_string)
    return [original, *(key for key, _ in made)]
