"""Steps: what can be done to a simulation, or in it."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import timedelta

from keysvc.core.revision import Revision
from tests.lease.simulation.content import Place
from tests.lease.simulation.network import Hold
from tests.lease.simulation.process import Process
from tests.lease.simulation.world import World


@dataclass(frozen=True)
class Step(ABC):
    """One thing.

    Parameters:
        then: how long to wait afterwards, in seconds.
    """

    then: float

    def take(self, world: World) -> None:
        """Do it, and wait."""
        self.do(world)
        world.run(self.then)

    @abstractmethod
    def do(self, world: World) -> None:
        """Do it."""


@dataclass(frozen=True)
class OfProcess(Step):
    """Something that a server does, or is done to it; nothing, if it is not there."""

    who: int

    def do(self, world: World) -> None:
        """Do it."""
        process = world.processes[self.who % len(world.processes)]
        if not process.is_over:
            self.act(world, process)

    @abstractmethod
    def act(self, world: World, process: Process) -> None:
        """Do it."""


class OfNetwork(OfProcess):
    """Something that happens to what a server sends, also if that starts later only."""

    def do(self, world: World) -> None:
        """Do it."""
        self.act(world, world.processes[self.who % len(world.processes)])


@dataclass(frozen=True)
class OfKey(OfProcess):
    """Something that a server is asked about a key."""

    what: int

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        places = world.content.places
        self.ask(process, places[self.what % len(places)])

    @abstractmethod
    def ask(self, process: Process, place: Place) -> None:
        """Do it."""


class Verify(OfProcess):
    """Somebody asks about all keys."""

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        for place in world.content.places:
            process.verify(place)


class VerifyAtLeast(OfProcess):
    """Somebody asks about all keys, as they are after what is in the log now."""

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        for place in world.content.places:
            process.verify(place, Revision(world.twin.epoch, world.twin.seq))


class Revoke(OfKey):
    """Somebody revokes."""

    def ask(self, process: Process, place: Place) -> None:
        """Do it."""
        process.calls.revoke(place)


class Suspend(OfKey):
    """Somebody suspends a key."""

    def ask(self, process: Process, place: Place) -> None:
        """Do it."""
        process.calls.suspend(place)


class Resume(OfKey):
    """Somebody resumes a key."""

    def ask(self, process: Process, place: Place) -> None:
        """Do it."""
        process.calls.resume(place)


class Rename(OfKey):
    """Somebody gives a key another owner."""

    def ask(self, process: Process, place: Place) -> None:
        """Do it."""
        process.calls.rename(place)


class Retire(OfKey):
    """Somebody retires the pepper that a key is under."""

    def ask(self, process: Process, place: Place) -> None:
        """Do it."""
        process.calls.retire(place)


class BringIn(OfKey):
    """Somebody imports a key."""

    def ask(self, process: Process, place: Place) -> None:
        """Do it."""
        process.calls.bring_in(place)


class SuspendHome(OfKey):
    """Somebody suspends the workspace of a key."""

    def ask(self, process: Process, place: Place) -> None:
        """Do it."""
        process.calls.suspend_home(place.home)


class ResumeHome(OfKey):
    """Somebody resumes the workspace of a key."""

    def ask(self, process: Process, place: Place) -> None:
        """Do it."""
        process.calls.resume_home(place.home)


@dataclass(frozen=True)
class Bump(OfProcess):
    """Somebody lets everybody forget everything."""

    new_epoch: bool

    def act(self, _world: World, process: Process) -> None:
        """Do it."""
        process.calls.bump(new_epoch=self.new_epoch)


@dataclass(frozen=True)
class Delay(OfNetwork):
    """The next statement of a kind takes its time to the database."""

    statement: str
    seconds: float

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.network.holds[process.name, self.statement].append(Hold(there=self.seconds))


@dataclass(frozen=True)
class DelayAnswer(OfNetwork):
    """The answer to the next statement of a kind takes its time."""

    statement: str
    seconds: float

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.network.holds[process.name, self.statement].append(Hold(back=self.seconds))


@dataclass(frozen=True)
class LoseCommit(OfNetwork):
    """The next commit loses its connection, and comes later, or never."""

    seconds: float

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.network.holds[process.name, "commit"].append(Hold(self.seconds, math.inf, loses=True))


@dataclass(frozen=True)
class Cut(OfNetwork):
    """Nothing more gets through a connection to the database for a while; what is there already is answered."""

    line: str
    seconds: float

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.tell(f"{process.name}'s {self.line} connection is cut for {self.seconds:g} s")
        world.network.cuts[process.name, self.line] = world.timeline.now + self.seconds


@dataclass(frozen=True)
class Stop(OfProcess):
    """A process stands still for a while."""

    seconds: float

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.stop(process, self.seconds, with_clock=False)


@dataclass(frozen=True)
class Pause(OfProcess):
    """A virtual machine is paused for a while, its clock too."""

    seconds: float

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.stop(process, self.seconds, with_clock=True)


@dataclass(frozen=True)
class Deafen(OfNetwork):
    """Wake-ups of a server are lost for a while."""

    seconds: float

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.deafen(process, self.seconds)


class Wake(OfProcess):
    """A wake-up comes that nobody has sent."""

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        process.hear(world.twin.seq + 10)


class Kill(OfProcess):
    """A server is killed."""

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.kill(process)


class Leave(OfProcess):
    """A server is stopped in good order."""

    def act(self, world: World, process: Process) -> None:
        """Do it."""
        world.tell(f"{process.name} leaves")
        process.leave()


class Restart(OfProcess):
    """A server is stopped in good order, if it is there, and another one is started in its place."""

    def do(self, world: World) -> None:
        """Do it."""
        super().do(world)
        world.run(0.01)
        world.start(self.who % len(world.processes))

    def act(self, _world: World, process: Process) -> None:
        """Stop it."""
        process.leave()


class Sweep(OfProcess):
    """A server finishes barriers, and collects members that died."""

    def act(self, _world: World, process: Process) -> None:
        """Do it."""
        process.sweep()


@dataclass(frozen=True)
class Start(Step):
    """A server starts, where one has ended."""

    who: int

    def do(self, world: World) -> None:
        """Do it."""
        world.start(self.who % len(world.processes))


class Crash(Step):
    """The database crashes and comes back."""

    def do(self, world: World) -> None:
        """Do it."""
        world.crash()


@dataclass(frozen=True)
class Promote(Step):
    """A standby takes over that lacks the rows of some servers, as bits."""

    lost: int

    def do(self, world: World) -> None:
        """Do it."""
        world.promote([process for slot, process in enumerate(world.processes) if self.lost >> slot & 1])


class Trim(Step):
    """All of the log is removed that is final."""

    def do(self, world: World) -> None:
        """Do it."""
        world.twin.trim(timedelta())


@dataclass(frozen=True)
class GoBack(Step):
    """The database loses its last changes, against all assumptions; nobody makes another one before that is noticed."""

    changes: int

    def do(self, world: World) -> None:
        """Do it."""
        if not world.changing:
            world.go_back(self.changes)
