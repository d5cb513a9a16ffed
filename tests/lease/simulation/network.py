"""The network between processes and their database: every statement, and every answer, takes its time, or is lost."""

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from keysvc.core.errors import Unavailable
from tests.lease.simulation.virtual import Loop, Timeline
from tests.lease.twin import BlockedError

T = TypeVar("T")

LATENCY = 0.001
"""Of each way, where nothing else is said."""

QUIET = frozenset({"renew", "count", "find_open", "wake", "find", "read", "lock", "close"})
"""Statements that a trace does not tell of, unless something happens to them."""


class LostError(Exception):
    """The connection is lost: nobody knows what became of the statement."""


IN_TRANSACTIONS = frozenset({"lock", "read", "close"})
"""Statements that end with their connection: whoever is not there any more takes no lock."""


class Hold(NamedTuple):
    """What happens to one statement.

    Parameters:
        there, back: how long it and its answer take; infinite: for ever.
        loses: its connection is lost at once, while it is on its way.
    """

    there: float = LATENCY
    back: float = LATENCY
    loses: bool = False

    def told(self) -> str:
        """For a trace."""
        answer = "its connection is lost at once" if self.loses else f"its answer takes {self.back:g} s"
        return f"it takes {self.there:g} s, {answer}"


@dataclass(eq=False)
class Message:
    """A statement on its way.

    Parameters:
        way: process and connection.
        loop: of the process.
        answered: hears the answer.
    """

    way: tuple[str, str]
    name: str
    act: Callable[[], Any]
    loop: Loop
    answered: "asyncio.Future[Any]"
    hold: Hold
    life: int


@dataclass
class Network:
    """All messages.

    Parameters:
        tell: is told what happened.
    """

    timeline: Timeline
    tell: Callable[[str], None]
    holds: dict[tuple[str, str], deque[Hold]] = field(default_factory=lambda: defaultdict(deque))
    """By process and statement: what happens to its next ones."""
    cuts: dict[tuple[str, str], float] = field(default_factory=dict)
    """By process and connection: until when nothing more gets to the database."""
    life: int = 0
    """Of the database: another one after each crash."""
    _sent: set[Message] = field(default_factory=set)
    _blocked: list[Message] = field(default_factory=list)

    def send(self, loop: Loop, way: tuple[str, str], name: str, act: Callable[[], T]) -> "asyncio.Future[T]":
        """Send a statement; the future hears its answer, or that the connection is lost."""
        answered: asyncio.Future[T] = loop.create_future()
        waiting = self.holds.get((way[0], name))
        hold = waiting.popleft() if waiting else Hold()
        if hold != Hold():
            self.tell(f"{way[0]}'s {name} is sent: {hold.told()}")
        message = Message(way, name, act, loop, answered, hold, self.life)
        self._sent.add(message)
        if not self._is_cut(message):
            if hold.there < math.inf:
                self.timeline.after(hold.there, lambda: self._arrive(message))
            if hold.loses:
                self.timeline.after(LATENCY, lambda: self._answer(message, LostError()))
        return answered

    def reset(self) -> None:
        """All connections are lost: the database has crashed, or another one has taken over."""
        self.life += 1
        self._blocked.clear()
        for message in sorted(self._sent, key=lambda each: each.way):
            if not self._is_cut(message):
                self._answer(message, LostError())
        self._sent.clear()

    def unblock(self) -> None:
        """A lock was released."""
        blocked, self._blocked = self._blocked, []
        for message in blocked:
            self._arrive(message)

    def _is_cut(self, message: Message) -> bool:
        return self.timeline.now < self.cuts.get(message.way, 0.0)

    def _arrive(self, message: Message) -> None:
        is_gone = message.answered.done() or message.loop.is_over
        if message.life != self.life or (is_gone and message.name in IN_TRANSACTIONS):
            return
        try:
            answer = message.act()
        except BlockedError:
            self._blocked.append(message)
            return
        except Exception as error:  # noqa: BLE001 (it is an answer, too)
            answer = error
        if message.name not in QUIET or message.hold != Hold():
            self.tell(f"{message.way[0]}'s {message.name} is executed")
        if message.hold.back < math.inf:
            self.timeline.after(message.hold.back, lambda: self._return(message, answer))

    def _return(self, message: Message, answer: object) -> None:
        if message.life == self.life:
            self._sent.discard(message)
            self._answer(message, answer)

    def _answer(self, message: Message, answer: object) -> None:
        if message.answered.done():
            return
        if isinstance(answer, Exception):
            message.answered.set_exception(answer)
        else:
            message.answered.set_result(answer)


class Wire:
    """One connection of one process: a twin of ``keysvc.store.line.Line``.

    Parameters:
        way: the name of the process, and that of the connection.
        limit_seconds: how long a statement may take.
    """

    def __init__(self, network: Network, loop: Loop, way: tuple[str, str], limit_seconds: float) -> None:
        self._network = network
        self.loop = loop
        self.way = way
        self._limit_seconds = limit_seconds
        self._turn = asyncio.Lock()
        self._life: int | None = None
        self.session = 0

    async def ask(
        self, name: str, act: Callable[[], T], *, limit_seconds: float | None = None, is_repeatable: bool = True
    ) -> T:
        """Execute a statement; again on another connection, if it is lost and that may be."""
        async with self._turn:
            deadline = self.loop.time() + (limit_seconds or self._limit_seconds)
            for _ in range(2 if is_repeatable else 1):
                try:
                    return await self.execute(name, act, deadline)
                except LostError:
                    pass
            raise Unavailable("the database cannot be reached")

    async def execute(self, name: str, act: Callable[[], T], deadline: float) -> T:
        """Execute a statement once.

        Raises:
            LostError: the connection is lost.
            Unavailable: no answer came in time; it may be executed all the same.
        """
        if self._life is None:
            self._life = self._network.life
            self.session += 1
        elif self._life != self._network.life:
            self._life = None
            raise LostError
        answered = self._network.send(self.loop, self.way, name, act)
        timer = self.loop.call_at(deadline, _give_up, answered)
        try:
            answer = await answered
        except (LostError, Unavailable, asyncio.CancelledError):
            self._life = None
            raise
        finally:
            timer.cancel()
        return answer


def _give_up(answered: "asyncio.Future[Any]") -> None:
    if not answered.done():
        answered.set_exception(Unavailable("no answer in time"))
