"""One server of a simulation: all of the lease protocol is the real thing, the rest is what that needs."""

from collections.abc import Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Never, TypeVar
from uuid import UUID

from keysvc.core.errors import FailedPrecondition, Unavailable
from keysvc.core.revision import Revision
from keysvc.core.usage import Meter
from keysvc.core.verdict import Snapshot
from keysvc.lease.holder import Standing
from keysvc.lease.news import News
from keysvc.service.periodic import Periodic
from keysvc.service.verifying import Answer, Basis, Verifying
from keysvc.service.waiting import COUNT_LIMIT_SECONDS
from keysvc.store.lookups import Lookups
from tests.lease.simulation.calls import Calls
from tests.lease.simulation.content import PEPPERS, TAG_KEY, Content, Place
from tests.lease.simulation.network import Wire
from tests.lease.simulation.promises import Begun, WrongError
from tests.lease.simulation.virtual import Loop, MachineClock

if TYPE_CHECKING:
    from tests.lease.simulation.world import Machine, World

T = TypeVar("T")

CHANGE_SECONDS = 1.2
LOOK_UP_SECONDS = 0.75
"""As in ``keysvc.storage.Limits``."""

SWEEP_SECONDS = 1.0
"""As in ``keysvc.app``."""

LEASE, BARRIER, VERIFY, CHANGE = "lease", "barrier", "verify", "change"
"""Connections of a process."""


class NotRemembered:
    """Finds nothing: what is answered all the same is answered from memory."""

    async def find(self, _secret_id: str) -> Snapshot:
        """Raise."""
        raise Unavailable("not remembered")


class NoRehashing:
    """There is one pepper only."""

    def want(self, *_secret: object) -> Never:
        """Never happens."""
        raise AssertionError("a secret is under another pepper")


class Process:
    """One server.

    Parameters:
        name: in traces, and as a host.
        machine: what it is like.
    """

    def __init__(self, world: "World", name: str, machine: "Machine", new_id: Callable[[], UUID]) -> None:
        parts, self._world = world.parts, world
        self.name = name
        self.is_over = False
        self._is_listening = False
        self._is_excused = False
        self._resumed_at = 0.0
        self._last: tuple[float, News] | None = None
        self._must_forget = False
        self._looked_at: tuple[object, ...] = ()
        self.clock = MachineClock(world.timeline, machine.rate)
        self.loop = Loop(world.timeline, self.clock, self._observe)
        self.terms = parts.terms(
            lease_seconds=machine.lease_seconds,
            renew_seconds=machine.lease_seconds / 4,
            stale_seconds=machine.stale_seconds,
        )
        self._lease = self._wire(LEASE, self.terms.renewal_limit_seconds)
        self.holder = parts.holder(parts.memory(), self.terms, self.clock)
        self.sessions = parts.sessions(self.holder, self.clock)
        membership = parts.membership(self._carry_lease, world.twin)
        self.renewing = parts.renewing(
            *(self.holder, self.sessions, membership), host=name, new_id=new_id, report=dict, clock=self.clock
        )
        barrier = self._wire(BARRIER, COUNT_LIMIT_SECONDS)
        registry = parts.registry(barrier.ask, world.twin, lambda: barrier.session)
        self.waiting = parts.waiting(registry, parts.promotions(), self.terms, self.clock)
        self.waiting.wake = self.renewing.wake
        connect = lambda: self._wire(CHANGE, CHANGE_SECONDS)  # noqa: E731 (short)
        changes = parts.changes(world.content, connect, world.rolled_back, CHANGE_SECONDS)
        self.calls = Calls(world, self, changes, parts.confirming(changes, self.waiting, self.clock))
        finder = _finder(parts.lookups, self._wire(VERIFY, LOOK_UP_SECONDS), world.content)
        self._verifying = self._verify_with(finder)
        self._asked = self._verify_with(NotRemembered())
        self._sweeping = Periodic("sweep", self.waiting.sweep, SWEEP_SECONDS) if world.setting.is_sweeping else None
        self.spawn(self._start)

    def _wire(self, purpose: str, limit_seconds: float) -> Wire:
        return Wire(self._world.network, self.loop, (self.name, purpose), limit_seconds)

    def _verify_with(self, secrets: Any) -> Verifying:
        keys = {"tag_key": TAG_KEY, "hash_key": b"h" * 32}
        return Verifying(secrets, self.holder, PEPPERS, **keys, meter=Meter(), rehashing=NoRehashing())

    def spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run something; nothing in it may fail that is not expected to."""

        async def run() -> None:
            with suppress(WrongError):
                try:
                    await work()
                except WrongError:
                    raise
                except Exception as error:  # noqa: BLE001 (the simulation ends with it)
                    self._world.wrong(f"(L): {error!r} in {self.name}")

        self.loop.create_task(run())

    async def _start(self) -> None:
        await self.renewing.start()
        self._is_listening = True
        if self._sweeping is not None:
            self._sweeping.start()

    # What is done to it ---------------------------------------------------------------------------------------------

    def hear(self, seq: int) -> None:
        """A wake-up has come."""
        if self._is_listening and not self.is_over:
            self.loop.call_soon(self.renewing.wake, seq)

    def stand_still(self, *, with_clock: bool) -> None:
        """Be stopped; a virtual machine is, with its clock."""
        self.loop.stand_still()
        if with_clock:
            self.clock.stop()
            self._is_excused = True
            self._resumed_at = inf

    def go_on(self) -> None:
        """Go on."""
        if self._resumed_at == inf:
            self.clock.go_on()
            self._resumed_at = self._world.timeline.now
        self.loop.go_on()

    def die(self) -> None:
        """Be killed."""
        self.is_over = True
        self.loop.kill()

    # What it does ---------------------------------------------------------------------------------------------------

    async def _carry_lease(self, name: str, act: Callable[[], T], **how: Any) -> T:
        """Carry what is asked for the lease, and tell of what is worth telling."""
        sent, sent_at = self._world.timeline.now, self.clock.read()
        if name in self._world.parts.asynchronous:
            statement = act
            act = lambda: self._world.twin.asynchronously(statement)  # noqa: E731 (short)
        answer = await self._lease.ask(name, act, **how)
        if name == "join":
            self._last = None
            self._world.tell(f"{self.name} hears that it has joined")
        elif name == "renew":
            self._renewed(sent, sent_at, answer)
        return answer

    def _renewed(self, sent: float, sent_at: float, news: Any) -> None:
        """A renewal is answered, and its holder hears of it next."""
        if sent >= self._resumed_at:
            self._is_excused = False
        if news is None:
            self._world.tell(f"{self.name} hears that it is no member")
            self._world.seen["no member"] += 1
            self._last = None
            return
        if news.changes is None:
            self._world.seen["trimmed"] += 1
        if news.changes or news.changes is None:
            self._world.tell(f"{self.name} hears its renewal, and of changes up to {news.log.seq}")
        if self._last is not None:
            last_sent_at, last = self._last
            limit = self.terms.clock_rate * (sent_at - last_sent_at) + self.terms.lease_seconds / 3 + 0.06
            self._must_forget = (news.log.at - last.log.at).total_seconds() > limit
        self._last = sent_at, news

    def _observe(self) -> None:
        """Between what is done and what is done next."""
        if self._must_forget:
            self._must_forget = False
            self._world.seen["paused"] += 1
            if self.holder.standing() is not Standing.NOTHING or len(self.holder.memory):
                self._world.wrong(f"(P): {self.name}'s machine was paused, and it still answers from memory")
        self.look()
        self._world.check()

    def look(self) -> None:
        """Ask it everything that it can answer from memory now."""
        memory, promises = self.holder.memory, self._world.promises
        if self.is_over or self.loop.is_standing or not (len(memory) or memory._refusals):
            return
        # As long as all this is the same, so are the answers.
        state = (
            *(self.holder._deadline, self.holder._log, self.holder._is_cut_off, self._is_excused, promises.version),
            *(
                tuple(memory._young.items()),
                tuple(memory._refusals),
                tuple(home.record for home in memory._homes.values()),
            ),
        )
        if state == self._looked_at or self.holder.standing() is Standing.NOTHING:
            return
        self._looked_at = state
        begun = promises.begin()
        for place in self._world.content.places:
            asking = self._asked.verify(self._world.presentations[place.name])
            try:
                asking.send(None)
            except StopIteration as done:
                self._check(place, done.value, begun, is_excused=self._is_excused)
            except Unavailable:
                pass
            else:
                raise AssertionError("an answer from memory waited for something")

    def _check(self, place: Place, answer: Answer, begun: Begun, *, is_excused: bool) -> None:
        self._world.seen[answer.basis, answer.verdict] += 1
        is_excused = is_excused and answer.basis is not Basis.DATABASE
        self._world.promises.answered(self.name, place, answer, begun, is_excused=is_excused)

    def verify(self, place: Place, at_least: Revision | None = None) -> None:
        """Somebody calls Verify.

        Parameters:
            at_least: asks for an answer that includes this.
        """

        async def call() -> None:
            begun, was_excused = self._world.promises.begin(), self._is_excused
            presentation = self._world.presentations[place.name]._replace(at_least=at_least)
            with suppress(Unavailable, FailedPrecondition):
                answer = await self._verifying.verify(presentation)
                if answer.basis is not Basis.MEMORY:
                    told = f"says {answer.verdict.name} of {place.name}, by {answer.basis.name.lower()}"
                    self._world.tell(f"{self.name} {told}")
                if at_least is not None:
                    self._world.promises.includes(self.name, answer, at_least)
                self._check(place, answer, begun, is_excused=was_excused or self._is_excused)

        self.spawn(call)

    def sweep(self) -> None:
        """Finish barriers, and collect who died."""

        async def sweep() -> None:
            with suppress(Unavailable):
                await self.waiting.sweep()

        self.spawn(sweep)

    def leave(self) -> None:
        """Be stopped in good order."""

        async def leave() -> None:
            if self._sweeping is not None:
                await self._sweeping.stop()
            await self.renewing.stop()
            await self.waiting.stop()
            self._world.tell(f"{self.name} has left")
            self._world.end(self)

        self._is_listening = False
        self.spawn(leave)


def _finder(make: Callable[..., Lookups], wire: Wire, content: Content) -> Lookups:
    """The real look-ups, over another connection."""
    finder = make("", lambda about: about.owner.encode(), limit_seconds=LOOK_UP_SECONDS)

    async def read(secret_ids: list[str]) -> dict[str, Snapshot]:
        return await wire.ask("find", lambda: content.find(secret_ids))

    finder._read = read
    return finder
