"""Time that passes when nothing else happens, and event loops that live in it: every run of them is the same.

asyncio needs nothing of a loop but handles that are ready, and timers. Here every process of a simulation has a loop of
its own, on a clock of its own, and can stand still while the others go on.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

Act = Callable[[], object]

_TICK = 1e-9
"""No clock shows the same time twice, as a real one, read in nanoseconds, does not."""


class Timeline:
    """What is to happen when, in seconds; what is due at the same time happens in the order in which it was planned."""

    def __init__(self) -> None:
        self.now = 0.0
        self._planned: list[tuple[float, int, Act]] = []
        self._numbers = count()

    def at(self, time: float, act: Act) -> None:
        """Plan something."""
        heapq.heappush(self._planned, (max(time, self.now), next(self._numbers), act))

    def after(self, seconds: float, act: Act) -> None:
        """Plan something by when it is from now."""
        self.at(self.now + seconds, act)

    def run_until(self, end: float) -> None:
        """Let everything happen up to a time."""
        while self._planned and self._planned[0][0] <= end:
            self.now, _, act = heapq.heappop(self._planned)
            act()
        self.now = end


class MachineClock:
    """The clock of one machine.

    Parameters:
        rate: its seconds in a second of the timeline.
    """

    def __init__(self, timeline: Timeline, rate: float) -> None:
        self._timeline = timeline
        self._rate = rate
        self._lost = 0.0
        self._stopped_at: float | None = None
        self._shown = 0.0

    def read(self) -> float:
        """What it shows."""
        now = self._timeline.now if self._stopped_at is None else self._stopped_at
        return (now - self._lost) * self._rate

    def __call__(self) -> float:
        """As ``read``, and never what it has shown before."""
        self._shown = max(self.read(), self._shown + _TICK)
        return self._shown

    def when(self, time: float) -> float:
        """When on the timeline it will show a time, if it does not stop."""
        return time / self._rate + self._lost

    def stop(self) -> None:
        """Stand still, as the clocks of a virtual machine do that is paused."""
        self._stopped_at = self._timeline.now

    def go_on(self) -> None:
        """Go on where it stopped."""
        if self._stopped_at is not None:
            self._lost += self._timeline.now - self._stopped_at
            self._stopped_at = None


@contextmanager
def _running(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    asyncio._set_running_loop(loop)
    try:
        yield
    finally:
        asyncio._set_running_loop(None)


class Loop(asyncio.AbstractEventLoop):
    """The event loop of one process.

    Parameters:
        observe: is called before anything runs and after each round, when a message could come in.
    """

    def __init__(self, timeline: Timeline, clock: MachineClock, observe: Act) -> None:
        self._timeline = timeline
        self._clock = clock
        self._observe = observe
        self._ready: deque[asyncio.Handle] = deque()
        self._due: deque[asyncio.TimerHandle] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_planned = False
        self.is_standing = False
        self.is_over = False
        self.errors: list[dict[str, Any]] = []

    def stand_still(self) -> None:
        """Run nothing, as a process that got SIGSTOP."""
        self.is_standing = True

    def go_on(self) -> None:
        """Run what should have run; what has come in before the timers, as a selector has it."""
        self.is_standing = False
        due, self._due = self._due, deque()
        for timer in due:
            self._fire(timer)
        self._plan()

    def kill(self) -> None:
        """Never run anything again."""
        self.is_over = True

    def clear(self) -> None:
        """Take down what is still there, so that nothing is left to the garbage collector."""
        self.is_over = True
        for task in list(self._tasks):
            task.cancel()
        while self._ready:
            with _running(self):
                self._ready.popleft()._run()

    def _plan(self) -> None:
        if not (self._is_planned or self.is_standing or self.is_over):
            self._is_planned = True
            self._timeline.at(self._timeline.now, self._run)

    def _run(self) -> None:
        self._is_planned = False
        if self.is_standing or self.is_over:
            return
        with _running(self):
            self._observe()
            while self._ready:
                for _ in range(len(self._ready)):
                    handle = self._ready.popleft()
                    if not handle.cancelled():
                        handle._run()
                self._observe()

    def _fire(self, timer: asyncio.TimerHandle) -> None:
        if timer.cancelled() or self.is_over:
            return
        if self.is_standing:
            self._due.append(timer)
        elif self._clock.read() < timer.when() - _TICK:
            self._timeline.at(self._clock.when(timer.when()), lambda: self._fire(timer))  # the clock had stopped
        else:
            self._ready.append(timer)
            self._plan()

    # What asyncio asks for ------------------------------------------------------------------------------------------

    def time(self) -> float:
        """The machine's clock."""
        return self._clock.read()

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        """Run something next."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        self._plan()
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Run something at a time of the machine's clock."""
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._timeline.at(self._clock.when(when), lambda: self._fire(timer))
        return timer

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> asyncio.TimerHandle:
        """Run something after a while."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def create_future(self) -> "asyncio.Future[Any]":
        """A future."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> "asyncio.Task[Any]":
        """A task."""
        task = asyncio.Task(coro, loop=self, **options)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody caught."""
        self.errors.append(context)

    def get_debug(self) -> bool:
        """Never: it would read real clocks."""
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is left out when its time comes."""
