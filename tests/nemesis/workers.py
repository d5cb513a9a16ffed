"""Rounds with one server that is several processes: they share an address, and each remembers on its own."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from math import inf
from typing import Final

import psutil
import psycopg

from tests.nemesis.checking import Violation
from tests.nemesis.cluster import LEASE_SECONDS, Caller, Cluster, Site, now
from tests.nemesis.coverage import probes
from tests.nemesis.fault import BOUND_SECONDS, LATE_SECONDS, Fault
from tests.nemesis.history import Change, Key, Question
from tests.nemesis.link import RENEWALS
from tests.nemesis.probing import Probing, prime
from tests.nemesis.quiet import QuietRound
from tests.nemesis.result import Result, Size
from tests.nemesis.server_faults import Nothing
from tests.nemesis.worker_callers import WorkerCallers
from tests.process.running import KEYSVC, PATIENCE, until

COUNT: Final = 4


def sites(program: tuple[str, ...] = KEYSVC, *, is_linked: bool = False) -> tuple[Site, ...]:
    """One server, which is several processes.

    Parameters:
        program: how keysvc is called.
        is_linked: all of them reach PostgreSQL through one link.
    """
    return (Site("w", program=program, is_linked=is_linked, variables={"KEYSVC_WORKERS": str(COUNT)}),)


STILL_SECONDS: Final = 0.6 * LEASE_SECONDS
"""So long a worker stands still. Its lease, of which not more than a sixth was over, lasts longer."""

GONE_SECONDS_MAX: Final = PATIENCE * 1.0
"""So long after its end a worker is no member any more. Where nobody has seen it end, it is one for 3.5 s."""


class Workers(Nothing):
    """Nothing else happens to one server, four processes on one port: keys that all of them know are revoked."""

    name = "workers"
    sites = sites()
    holders_min = COUNT
    workers = COUNT


class WorkerKilled(Fault):
    """One of four processes on one port dies while keys are revoked, and its supervisor starts another one.

    Attributes:
        pid: of the one that died.
    """

    name = "worker killed"
    sites = sites()
    holders_min = COUNT
    workers = COUNT
    pid: int = 0

    async def begin(self) -> None:
        """Kill one."""
        (node,) = self.cluster.nodes
        doomed, other = self.chance.sample(psutil.Process(node.pid).children(), 2)
        self.trouble(other)
        doomed.kill()
        self.pid = doomed.pid
        self.count += 1

    def trouble(self, other: psutil.Process) -> None:
        """Let something happen to another one first."""

    async def end(self) -> None:
        """Wait for the other one."""

        def is_replaced() -> bool:
            """Whether one was started since it ended."""
            events = [(line["event"], line.get("pid")) for line in self.cluster.nodes[0].log]
            ended = ("worker ended", self.pid)
            return ended in events and "worker serves again" in [name for name, _ in events[events.index(ended) :]]

        await asyncio.to_thread(until, is_replaced, BOUND_SECONDS)


class WorkerStopped(WorkerKilled):
    """One of four processes on one port dies, and another one stands still, with a lease: it must be waited for.

    Attributes:
        resumed: when the other one went on.
    """

    resumed: float = inf
    name = "worker killed beside a stopped one"
    sites = sites(is_linked=True)

    def trouble(self, other: psutil.Process) -> None:
        """Stop it, and let it go on before its lease has ended; the database is the last that it hears of."""
        (node,) = self.cluster.nodes
        assert node.link
        other.suspend()
        node.link.delay(back=LATE_SECONDS, application=RENEWALS)

        def resume() -> None:
            self.resumed = now()
            other.resume()

        loop = asyncio.get_running_loop()
        loop.call_later(STILL_SECONDS, resume)
        loop.call_later(STILL_SECONDS + LATE_SECONDS, node.link.delay)


class WorkersRound(QuietRound):
    """One round: each worker is asked by its own connection, and its answers tell that it was its own."""

    def __init__(self, cluster: Cluster, chance: random.Random, size: Size, name: str) -> None:
        super().__init__(cluster, chance, size, name)
        self._members = set[str]()
        self._known = Counter[str]()

    def _open_callers(self) -> WorkerCallers:
        """Who is asked."""
        self._workers = WorkerCallers(self._cluster, self._chance, COUNT)
        return self._workers

    async def _revoke_all(self, keys: list[Key]) -> None:
        """Revoke keys, when every worker knows them."""
        await self._let_know(keys)
        await super()._revoke_all(keys)

    async def _let_know(self, keys: list[Key]) -> None:
        """Meet workers, and let those who were not met before know keys."""
        met = await self._workers.meet(self._asker, Question(keys[0].secret_id))
        self._members |= await asyncio.to_thread(_members, self._cluster.url)
        for caller in self._workers.everybody():
            if caller.name in met:
                self._known[caller.name] += await prime(self._asker, [caller], keys)

    def _result(self, found: list[Violation]) -> Result:
        """What happened, and which worker knew and answered what."""
        result = super()._result(found)
        result.workers = Counter(self._members)
        result.known = self._known
        result.probes = probes(self._asker.history, self._asker.history.changes)
        return result


class WorkerKilledRound(WorkersRound):
    """One round: a third of the keys is revoked before, a third while a worker dies, a third when another is there."""

    fault_type: type[WorkerKilled] = WorkerKilled

    def __init__(self, cluster: Cluster, chance: random.Random, size: Size, name: str) -> None:
        super().__init__(cluster, chance, size, name)
        self._fault = self.fault_type(cluster, chance, lambda _: False)
        self._fatal: Key | None = None
        self._began = self._ended = inf

    async def _revoke_all(self, keys: list[Key]) -> None:
        """Revoke keys, and kill a worker when half of the second third have begun."""
        await self._let_know(keys)
        self._primed = await prime(self._asker, self._callers.everybody(), keys)
        before, meanwhile, afterwards = (keys[start::3] for start in range(3))
        await self._revoke_together(before)
        self._fatal = meanwhile[len(meanwhile) // 2]
        await self._revoke_together(meanwhile)
        await self._fault.end()
        self._ended = now()
        await self._let_know(afterwards)
        await self._revoke_together(afterwards)
        async with asyncio.TaskGroup() as group:
            probing = Probing(self._asker, self._callers, self._chance, group)
            probing.revoked = [key.secret_id for key in keys]
            await probing.ask_for_the_last_time()
        self._gone_seconds = await self._going

    def _revoker(self, number: int) -> Caller:
        """Anybody: with those who have trouble some revocations wait, and with the others they do not."""
        return self._callers.anybody()

    async def _revoke(self, caller: Caller, key: Key) -> Change:
        """Revoke a key; a worker dies before, when its turn has come."""
        if key is self._fatal:
            self._began = now()
            await self._fault.begin()
            (name,) = (each.name for each in self._callers.everybody() if each.name.endswith(f"/{self._fault.pid}"))
            self._workers.leave(name)
            self._going = asyncio.create_task(asyncio.to_thread(_gone_seconds, self._cluster.url, name, self._began))
        return await super()._revoke(caller, key)

    def _result(self, found: list[Violation]) -> Result:
        """What happened, and how soon nobody waited for the dead worker any more."""
        if self._gone_seconds > GONE_SECONDS_MAX:
            found.append(Violation("member", f"a worker was one for {self._gone_seconds:.3f} s after it was killed"))
        result = super()._result(found)
        changes = self._asker.history.changes
        away = [each for each in changes if each.receipt and each.invoke < self._ended and each.returned > self._began]
        result.faults = self._fault.count
        result.during = len({each.key_id for each in away})
        result.begun_during = len({each.key_id for each in away if each.invoke > self._began})
        result.met = int(bool(result.begun_during))
        result.gone_seconds = [self._gone_seconds]
        result.away_paths = Counter(each.receipt.path or "PENDING" for each in away if each.receipt)
        return result


class WorkerStoppedRound(WorkerKilledRound):
    """The same while another worker stands still."""

    fault_type = WorkerStopped

    def _result(self, found: list[Violation]) -> Result:
        """What happened; nothing if no revocation was under way when the other one went on."""
        result = super()._result(found)
        assert isinstance(self._fault, WorkerStopped)
        resumed = self._fault.resumed
        changes = [each for each in self._asker.history.changes if each.receipt]
        result.met = int(any(each.invoke < resumed < each.returned for each in changes))
        return result


ROUNDS: Final[Mapping[type[Fault], type[QuietRound]]] = {
    Workers: WorkersRound,
    WorkerKilled: WorkerKilledRound,
    WorkerStopped: WorkerStoppedRound,
}

MISTAKES: Final[Mapping[str, Mapping[type[Fault], str]]] = {
    "acknowledges_unapplied": {Workers: "S", WorkerKilled: "S"},
    "leaves_rows": {WorkerKilled: "member"},
    "removes_others": {WorkerStopped: "S"},
}
"""Mutants, with a mistake in all workers or in their supervisor, and the rule that they break in which rounds."""


def _members(url: str) -> set[str]:
    """All that have leases."""
    with psycopg.connect(url, autocommit=True) as connection:
        return {host for (host,) in connection.execute("SELECT host FROM lease_member")}


def _gone_seconds(url: str, holder: str, since: float) -> float:
    """Wait until somebody is no member any more; how long after a time that was."""
    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT FROM lease_member WHERE host = %s"
        until(lambda: connection.execute(query, (holder,)).fetchone() is None)
    return now() - since
