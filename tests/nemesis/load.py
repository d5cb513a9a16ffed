"""One round: keys that all servers know are revoked while something goes wrong, and everybody is asked all the time."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any, Final

from keysvc.v1 import receipt_pb2
from tests.nemesis.asking import Asker
from tests.nemesis.checking import Violation, story, violations
from tests.nemesis.cluster import LEASE_SECONDS, WAIT_SECONDS, Caller, Cluster, now
from tests.nemesis.fault import BOUND_SECONDS, Fault
from tests.nemesis.history import REFUSING, Change, Key, Question
from tests.nemesis.result import Result, Size

SCOPES: Final = ("pdf.read", "pdf.write")
ADDRESSES: Final = ("192.0.2.7", "198.51.100.7")

TICK_SECONDS: Final = 0.08
"""So often every server is asked about all keys, whether it has answered before or not."""

UNDER_WAY_MAX: Final = 15
"""Questions to one server; one that stands still must find many when it goes on."""

GROUPS: Final = 5
"""Of keys that are asked about together."""

LEAD_SECONDS: Final = 0.3
"""So long before the fault begins the first key is revoked."""

TAIL_SECONDS: Final = 0.3
"""So long after the fault's end the last one is."""

PRIMED_SECONDS_MAX: Final = 20.0
WELL_SECONDS_MAX: Final = 30.0
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
        self._workspaces = (f"nemesis/{name}-revoked", f"nemesis/{name}-changed")
        self._revoking = Counter[str]()
        self._fault = fault_type(cluster, chance, lambda name: bool(self._revoking[name]))
        self._asker = Asker(time.time() - now())
        self._callers = dict[str, Caller]()
        self._under_way = Counter[str]()
        self._secrets = list[str]()
        self._unexpected = list[Violation]()
        self._stopping = asyncio.Event()
        self._broken = asyncio.Event()
        self._began = self._ended = 0.0

    async def run(self) -> Result:
        """Run it, and judge what was seen."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._disconnect)
            try:
                await self._fault.prepare()
                await self._run()
            finally:
                await self._fault.clean()
            self._unexpected += await self._settle()
        found = [*violations(self._asker.history, clock_seconds=self._fault.clock_seconds), *self._unexpected]
        found += [Violation("error", each) for each in self._asker.unexpected]
        return self._result(found)

    async def _run(self) -> None:
        """All that happens while the fault does, and shortly before and after."""
        keys = await self._create()
        async with asyncio.TaskGroup() as group:
            self._group = group
            watching = group.create_task(self._watch())
            await self._prime(keys)
            others = [group.create_task(self._change_keys()) for _ in range(self._size.keys)]
            others += [group.create_task(self._change_workspace()), group.create_task(self._list())]
            revoking = [group.create_task(self._revoke_later(key, each)) for each, key in enumerate(keys)]
            await asyncio.sleep(LEAD_SECONDS)
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
            await asyncio.wait(revoking)
            self._stopping.set()
            await asyncio.wait(others)
            await self._until_well()
            watching.cancel()
        # What was asked last is asked of servers that have nothing else to do.
        for caller in self._everybody():
            await self._asker.verify_all(caller, self._questions())

    async def _create(self) -> list[Key]:
        """Make workspaces and the keys to be revoked."""
        for name in self._workspaces:
            await self._persist(lambda caller, name=name: self._asker.create_workspace(caller, name))
        return [await self._create_key(self._workspaces[0]) for _ in range(self._size.revocations)]

    async def _create_key(self, workspace: str) -> Key:
        """Make a key; from now on it is asked about. It has only the scope that a workspace always allows."""
        key: Key = await self._persist(lambda caller: self._asker.create(caller, workspace, SCOPES[:1]))
        self._secrets.append(key.secret_id)
        return key

    async def _prime(self, keys: list[Key]) -> None:
        """Let every server know every key: it says VALID, and from memory."""

        async def prime(caller: Caller, key: Key) -> None:
            async with asyncio.timeout(PRIMED_SECONDS_MAX):
                while True:
                    answer = await self._asker.verify(caller, Question(key.secret_id))
                    if answer and (answer.verdict, answer.basis) == ("VALID", "MEMORY"):
                        return
                    await asyncio.sleep(0.02)

        async with asyncio.TaskGroup() as group:
            for caller in self._everybody():
                for key in keys:
                    group.create_task(prime(caller, key))
        self._primed = len(keys) * len(self._everybody())

    async def _watch(self) -> None:
        """Ask every server about every key, all the time."""
        async with asyncio.TaskGroup() as group:
            while True:
                for caller in self._everybody():
                    if self._under_way[caller.name] < UNDER_WAY_MAX:
                        group.create_task(self._ask_all(caller))
                await asyncio.sleep(TICK_SECONDS)

    async def _ask_all(self, caller: Caller) -> None:
        """Ask a server about every key: of few at once, since one that it must look up holds up those beside it."""
        questions = self._questions()
        count = max(4, len(questions) // GROUPS)
        groups = [questions[begin : begin + count] for begin in range(0, len(questions), count)]
        self._under_way[caller.name] += 1
        try:
            await asyncio.gather(*(self._asker.verify_all(caller, some) for some in groups))
        finally:
            self._under_way[caller.name] -= 1

    async def _list(self) -> None:
        """Ask all the time what List says."""
        while not self._stopping.is_set():
            await self._asker.list_keys(self._anybody(), self._workspaces[0])
            await asyncio.sleep(0.2)

    async def _revoke_later(self, key: Key, number: int) -> None:
        """Revoke a key when its turn comes: before the fault, when it has just begun, while it lasts, or afterwards."""
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
        repeats = 0 if self._chance.random() < 0.3 else 20
        caller = self._revoker()
        change = await self._revoke(caller, key, wait=wait, seconds=seconds)
        for _ in range(repeats):
            if change.receipt:
                break
            await asyncio.sleep(self._chance.uniform(0.0, 0.3))
            change = await self._revoke(self._anybody(), key)
            is_complete = change.receipt is None or bool(change.receipt.path)
            self._expect(is_complete, f"{change.label} was repeated, with time to wait, and is not complete")
        self._expect(not repeats or change.receipt is not None, f"{change.label} was repeated, and never answered")

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
        await self._probe(change, [key.secret_id], 0.03, 0.15)
        return change

    async def _probe(self, change: Change, secrets: list[str], *again_seconds: float) -> None:
        """Ask everybody about secrets when a change was promised to be true: at once, and again after some pauses."""
        if change.promised is None or change.receipt is None:
            return
        since, revision = change.promised
        if (wait := since - now()) > 0:
            await asyncio.sleep(wait)
        for pause in (0.0, *again_seconds):
            if pause:
                await asyncio.sleep(pause)
            for caller in self._everybody():
                level = self._chance.choice(("leased", "leased", "leased", "at_least", "strong"))
                at_least = revision if level == "at_least" else None
                for secret_id in secrets:
                    question = Question(secret_id)
                    # Nobody waits: whoever stands still answers when it goes on.
                    self._group.create_task(self._asker.verify(caller, question, level=level, at_least=at_least))

    async def _change_keys(self) -> None:
        """Change a key in all ways that there are, and then another one."""
        while not self._stopping.is_set():
            key = await self._create_key(self._workspaces[1])
            living = [key.secret_id]
            for _ in range(12):
                if self._stopping.is_set() or not living:
                    break
                method, wanted = self._chance.choice([*self._key_changes(living)])
                change = await self._asker.change(self._anybody(), method, key.workspace, key.id, **wanted)
                if method in {"Rotate", "CancelRotation"} and not change.refusal:
                    if change.receipt is None:
                        break
                    known = [each for each, owner in self._asker.history.owners.items() if owner == key.id]
                    living = known[-1:] if method == "Rotate" and not wanted["overlap"] else known[-2:]
                    self._secrets += [each for each in living if each not in self._secrets]
                await self._probe(change, living)
                await asyncio.sleep(self._chance.uniform(0.0, 0.1))
            self._secrets = [each for each in self._secrets if each not in living]

    def _key_changes(self, living: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Changes of a key, and what is wanted of them."""
        for _ in range(3):
            yield "Suspend", {}
            yield "Resume", {}
        for scopes in (SCOPES, SCOPES, SCOPES[:1], SCOPES[1:]):
            yield "Update", {"scopes": scopes}
        for addresses in ((), ADDRESSES[:1], ADDRESSES):
            yield "Update", {"ip_allowlist": addresses}
        yield "Update", {"expire_time": now() + self._chance.uniform(0.5, 2.0)}
        yield "Update", {"expire_time": None}
        yield "Rotate", {"overlap": 0}
        yield "Rotate", {"overlap": 3600}
        yield "CancelRotation", {}
        if len(living) > 1:
            yield "Revoke", {"secret_id": living[0]}

    async def _change_workspace(self) -> None:
        """Suspend and resume a workspace, and let it allow less and more."""
        name = self._workspaces[1]
        while not self._stopping.is_set():
            for method, wanted in (
                ("UpdateWorkspace", {"allowed_scopes": SCOPES[:1]}),
                ("UpdateWorkspace", {"allowed_scopes": ()}),
                ("SuspendWorkspace", {}),
                ("ResumeWorkspace", {}),
            ):
                change = await self._asker.change(self._anybody(), method, name, **wanted)
                await self._probe(change, [each for each in self._secrets if self._workspace_of(each) == name][-3:])
                await asyncio.sleep(self._chance.uniform(0.0, 0.5))

    def _workspace_of(self, secret_id: str) -> str:
        history = self._asker.history
        return history.keys[history.owners[secret_id]].workspace

    def _questions(self) -> list[Question]:
        """One question about each secret."""
        choose = self._chance.choice
        return [
            Question(each, choose(((), SCOPES[:1], SCOPES[1:])), choose(("", *ADDRESSES))) for each in self._secrets
        ]

    def _everybody(self) -> list[Caller]:
        """A client of each server."""
        for node in [*self._cluster.nodes]:
            if node.life and node.name not in self._callers:
                self._callers[node.name] = Caller(node, self._cluster.operator_key)
        return [self._callers[node.name] for node in self._cluster.nodes if node.life]

    def _anybody(self) -> Caller:
        """A client of any server, seldom of one that has trouble."""
        affected = {node.name for node in self._fault.affected if node.life}
        callers = self._everybody()
        well = [caller for caller in callers if caller.name not in affected]
        return self._chance.choice(well if self._chance.random() < 0.85 else callers)

    def _revoker(self) -> Caller:
        """A client of the server that shall revoke."""
        revoker = self._fault.revoker
        if revoker is None or not self._began:
            return self._anybody()
        self._everybody()
        return self._callers[revoker.name]

    async def _persist(self, call: Any) -> Any:
        """Make a call until it is answered."""
        async with asyncio.timeout(WELL_SECONDS_MAX):
            while True:
                if answer := await call(self._anybody()):
                    return answer
                await asyncio.sleep(0.1)

    async def _until_well(self) -> None:
        """Wait until every server answers."""
        async with asyncio.timeout(WELL_SECONDS_MAX):
            for caller in self._everybody():
                await self._until_answers(caller)

    async def _until_answers(self, caller: Caller) -> None:
        while True:
            if await self._asker.verify(caller, Question(self._secrets[0])):
                return
            await asyncio.sleep(0.1)

    async def _settle(self) -> list[Violation]:
        """Wait until all revocations are final, which they must become, then read the audit log."""
        open_states = dict[str, str]()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINAL_SECONDS_MAX):
                while True:
                    states = await self._persist(lambda caller: self._asker.list_keys(caller, self._workspaces[0]))
                    open_states = {each: state for each, state in states.items() if state in REFUSING - {"REVOKED"}}
                    if not open_states:
                        break
                    await asyncio.sleep(0.1)
        await self._persist(lambda caller: self._asker.look_for_events(caller, self._workspaces))
        return [Violation("final", f"{each} is {state} for ever") for each, state in open_states.items()]

    async def _disconnect(self) -> None:
        for caller in self._callers.values():
            await caller.channel.close()

    def _result(self, found: list[Violation]) -> Result:
        """What happened."""
        history = self._asker.history
        revokes = [change for change in history.changes if change.method == "Revoke" and not change.wanted["secret_id"]]
        receipts = [change.receipt for change in history.changes if change.receipt]
        during = [each for each in revokes if each.invoke < self._ended and each.returned > self._began]
        return Result(
            rounds=1,
            faults=self._fault.count,
            revocations=len({each.key_id for each in revokes}),
            during=len({each.key_id for each in during}),
            begun_during=len({each.key_id for each in during if each.invoke > self._began}),
            changes=len(history.changes) - len(revokes),
            answers=len(history.answers),
            from_memory=sum(answer.basis == "MEMORY" for answer in history.answers),
            primed=self._primed,
            paths=Counter(receipt.path or "PENDING" for receipt in receipts),
            outcomes=Counter(
                "acknowledged" if each.receipt else "refused" if each.refusal else "unknown" for each in history.changes
            ),
            unanswered=self._asker.unanswered,
            unacknowledged=sum(bool(receipt.unacknowledged) for receipt in receipts),
            revoke_seconds=[each.returned - each.invoke for each in revokes if each.receipt and each.receipt.path],
            violations=found,
            story=next((story(history, each.secret_id) for each in found if each.secret_id), []),
        )
