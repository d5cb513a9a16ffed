"""Some servers, their database, the network between them, and what is promised to those who call them."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

from keysvc.core.verdict import Presentation
from keysvc.lease.holder import Standing
from tests.lease.simulation.changes import Transaction
from tests.lease.simulation.content import BEGIN, Content
from tests.lease.simulation.network import LATENCY, Network
from tests.lease.simulation.parts import REAL, Parts
from tests.lease.simulation.process import Process
from tests.lease.simulation.promises import Promises, WrongError
from tests.lease.simulation.virtual import Timeline
from tests.lease.twin import Twin

TRACE_MAX = 200

SETTLING_SECONDS = 12
"""Longer than anything stands still, and then any barrier, or until a row is collected."""


@dataclass(frozen=True)
class Machine:
    """What a server is like.

    Parameters:
        rate: of its clock, in seconds in a second of the database. No two differ by more than ``clock_rate``.
    """

    lease_seconds: float = 0.6
    stale_seconds: float = 0.0
    rate: float = 1.0

    @property
    def lease_ms(self) -> int:
        """What its row says."""
        return round((self.lease_seconds + self.stale_seconds) * 1000)


FAST, SLOW, EXACT = Machine(rate=1.09), Machine(rate=0.915), Machine()


@dataclass(frozen=True)
class Setting:
    """What there is at the beginning.

    Parameters:
        homes: the workspace of each key.
        hidden: how many of the keys are not imported yet.
        absent: servers that are started later, by their place in ``machines``.
        is_sweeping: servers finish barriers and collect members by themselves, once a second.
        is_primed: all others have joined and remember all keys before anything else happens.
    """

    machines: tuple[Machine, ...] = (FAST, SLOW)
    homes: tuple[str, ...] = ("acme/one", "acme/one", "acme/two", "acme/two")
    hidden: int = 0
    absent: tuple[int, ...] = ()
    is_sweeping: bool = False
    is_primed: bool = True


class World:
    """All of it.

    Parameters:
        parts: what processes are made of.
    """

    def __init__(self, setting: Setting, parts: Parts = REAL) -> None:
        self.setting, self.parts = setting, parts
        self.timeline = Timeline()
        self.twin = Twin(self._database_time)
        self.twin.hear = self._wake
        self.twin.lease_ms_max = max(machine.lease_ms for machine in setting.machines)
        self.content = Content(self.twin, setting.homes, setting.hidden)
        self.network = Network(self.timeline, self.tell)
        self.content.unblock = self.network.unblock
        self.promises = Promises(self.content, self.twin, self.wrong)
        self.presentations = {place.name: Presentation(place.key_string) for place in self.content.places}
        self.seen: Counter[Any] = Counter()
        """How often what was answered, and how often barriers ended how."""
        self.disturbances = 0
        """How often a process stood still, or the database was another one: then nobody can say how long waits are."""
        self.denied: set[UUID] = set()
        """Changes whose callers were told that nothing was changed, by their audit events."""
        self.changing = 0
        """How many changes are under way."""
        self._is_deaf: dict[str, float] = {}
        self.trace: list[tuple[float, str]] = []
        """What happened when."""
        self._wrong: WrongError | None = None
        self._looked_at = 0
        self._ids = (UUID(int=number) for number in count(1))
        self.processes = [self._process(slot) for slot in range(len(setting.machines))]
        self._all = list(self.processes)
        for slot in setting.absent:
            self.processes[slot].die()

    def _process(self, slot: int) -> Process:
        return Process(self, chr(ord("a") + slot), self.setting.machines[slot], lambda: next(self._ids))

    def _database_time(self) -> datetime:
        return BEGIN + timedelta(seconds=self.timeline.now)

    def _wake(self, seq: int) -> None:
        for process in self.processes:
            if self.timeline.now >= self._is_deaf.get(process.name, 0.0):
                self.timeline.after(LATENCY, lambda process=process: process.hear(seq))

    # What is told ---------------------------------------------------------------------------------------------------

    def tell(self, what: str) -> None:
        """Something happened."""
        self.trace.append((self.timeline.now, what))
        if what.endswith("collect is executed"):
            self.seen["collected"] += 1

    def wrong(self, what: str) -> WrongError:
        """Something is wrong; the simulation ends with it."""
        if self._wrong is None:
            trace = "\n".join(f"{time:8.3f}  {told}" for time, told in self.trace[-TRACE_MAX:])
            self._wrong = WrongError(f"{what}\n{trace}\n{self.timeline.now:8.3f}  {what}")
        return self._wrong

    def check(self) -> None:
        """Raise what is wrong. Whatever was promised just now, everybody must keep at once."""
        if self._looked_at != self.promises.version:
            self._looked_at = self.promises.version
            for process in self.processes:
                process.look()
        if self._wrong is not None:
            raise self._wrong

    # What happens ---------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.timeline.run_until(self.timeline.now + seconds)
        for process in self.processes:
            process.look()
        if self.denied & self.content.events.keys():
            self.wrong("(E): a change was made whose caller was told that nothing was changed")
        self.check()

    def verify_everywhere(self) -> None:
        """Ask every server about every key."""
        for process in self.processes:
            if not process.is_over:
                for place in self.content.places:
                    process.verify(place)

    def settle(self) -> None:
        """Let everything become well again, for as long as that may take."""
        self.network.cuts.clear()
        self.network.holds.clear()
        for _ in range(SETTLING_SECONDS):
            self.run(1.0)
            if (unwell := self._what_is_unwell()) is None:
                break
        else:
            self.wrong(f"(L): {unwell}")
        self.verify_everywhere()
        self.run(0.1)
        for process in self._all:
            if process.loop.errors:
                self.wrong(f"(L): {process.name}: {process.loop.errors}")
        self.check()

    def _what_is_unwell(self) -> str | None:
        alive = [process for process in self.processes if not process.is_over]
        for process in alive:
            if process.holder.standing() is not Standing.LEASE:
                return f"{process.name} has no lease, although nothing speaks against it"
            if process.waiting._open:
                return f"{process.name} still waits for a change"
        if self.setting.is_sweeping and alive:
            if open_changes := [seq for seq in self.twin.log if self.content.is_open(seq)]:
                return f"nobody has finished what is to be waited for after {open_changes}"
            if self.twin.rows.keys() != {process.holder.member_id for process in alive}:
                return "there are rows of members that have died"
        return None

    def start(self, slot: int) -> None:
        """Start a server again that is not there any more."""
        if self.processes[slot].is_over:
            self.processes[slot] = self._process(slot)
            self.tell(f"{self.processes[slot].name} starts")
            self._all.append(self.processes[slot])

    def kill(self, process: Process) -> None:
        """Kill a server."""
        self.tell(f"{process.name} dies")
        self.end(process)

    def end(self, process: Process) -> None:
        """Let a server be no more, and its connections neither."""
        process.die()
        writer = self.content.writer
        if writer is not None and writer.loop is process.loop:
            self.rolled_back(writer)

    def stop(self, process: Process, seconds: float, *, with_clock: bool) -> None:
        """Let a server stand still."""
        if process.loop.is_standing:
            return
        self.disturbances += 1
        self.tell(f"{process.name}{chr(39)}s machine is paused" if with_clock else f"{process.name} stands still")
        process.stand_still(with_clock=with_clock)

        def go_on() -> None:
            self.tell(f"{process.name} goes on")
            self.disturbances += 1
            process.go_on()

        self.timeline.after(seconds, go_on)

    def deafen(self, process: Process, seconds: float) -> None:
        """Let wake-ups of a server get lost."""
        self._is_deaf[process.name] = self.timeline.now + seconds

    def rolled_back(self, transaction: Transaction) -> None:
        """The connection of a transaction is lost. If its commit is on its way, that may still come."""
        seconds = 1.0 if transaction.is_ending else LATENCY
        self.timeline.after(seconds, lambda: self.content.release(transaction))

    def crash(self) -> None:
        """Let the database crash and come back."""
        self.tell("the database crashes and comes back")
        self.disturbances += 1
        self.network.reset()
        self.content.release(self.content.writer)
        self.twin.crash()

    def promote(self, lost: list[Process]) -> None:
        """Let a standby take over that lacks the rows of some members."""
        names = [process.name for process in lost]
        self.tell(f"a standby is promoted that lacks the rows of {' and '.join(names) or 'nobody'}")
        self.disturbances += 1
        self.network.reset()
        self.content.release(self.content.writer)
        self.twin.promote([row.member_id for row in self.twin.rows.values() if row.host in names])

    def go_back(self, changes: int) -> None:
        """Let the database lose its last changes, and nothing show it but their number."""
        seq = max(0, self.twin.seq - changes)
        self.tell(f"the database goes back to revision {seq}")
        self.disturbances += 1
        self.network.reset()
        self.content.release(self.content.writer)
        self.content.go_back(seq)
        self.promises.forget_after(seq)

    @property
    def is_astray(self) -> bool:
        """Whether a server knows of changes that the database has lost, and has not noticed."""
        logs = (process.holder._log for process in self.processes if not process.is_over)
        return any(log is not None and log.epoch == self.twin.epoch and log.seq > self.twin.seq for log in logs)

    def close(self) -> None:
        """Take everything down."""
        for process in self._all:
            process.loop.clear()
