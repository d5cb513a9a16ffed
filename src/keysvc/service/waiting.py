"""Waits for the barriers of all changes that this process has made: one loop for all of them."""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any, Final

import structlog

from keysvc.core.errors import Unavailable
from keysvc.core.receipt import Path
from keysvc.core.revision import Revision
from keysvc.lease.barrier import Barrier, Commit, Promotions
from keysvc.lease.collector import Collector
from keysvc.lease.news import Census
from keysvc.lease.terms import Clock, Terms
from keysvc.service.ports import Registry

PAUSE_SECONDS_MIN: Final = 0.001
PAUSE_SECONDS_MAX: Final = 0.025
WAKE_SECONDS: Final = 0.25
"""How often members are woken again: the first wake-up may have been lost."""

COUNT_LIMIT_SECONDS: Final = 0.5
WAITS_MAX: Final = 500
"""How many waits are kept for those who ask how long they took."""

_log = structlog.get_logger("keysvc.lease")


class Waiting:
    """Waits for barriers.

    Parameters:
        registry: where the members are.
        promotions: shared with whoever else hears of the database's timeline.
        terms: of the leases.
        clock: of the leases.
    """

    def __init__(
        self,
        registry: Registry,
        promotions: Promotions,
        terms: Terms,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._promotions = promotions
        self._terms = terms
        self._clock = clock
        self.wake: Callable[[int], None] = lambda _seq: None
        """Tells the holder of this process, which need not be woken by way of the database."""
        self._open: dict[Barrier, asyncio.Future[Path]] = {}
        self._collector = Collector(terms)
        self._woken_at = -math.inf
        self._signal = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._waits: dict[Path, deque[float]] = {path: deque(maxlen=WAITS_MAX) for path in Path}
        self._counts = dict.fromkeys(Path, 0)

    def open(self, commit: Commit) -> tuple[Barrier, asyncio.Future[Path]]:
        """Begin to wait for a change whose commit has been answered. The wait goes on, whoever still looks at it.

        The future raises ``Unavailable`` if the change turns out to be lost, with the database it was made in.
        """
        barrier = Barrier(commit, self._clock(), self._terms)
        future: asyncio.Future[Path] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._open[barrier] = future
        self._signal.set()
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return barrier, future

    async def sweep(self) -> None:
        """Finish the barriers of processes that died, and remove members that did.

        Raises:
            Unavailable: the database did not answer in time.
        """
        sent = self._clock()
        census = await self._registry.count(COUNT_LIMIT_SECONDS)
        for member in self._collector.counted(census, sent, self._clock()):
            await self._registry.collect(member)
            _log.warning("member collected", host=member.host, member=str(member.id))
        waited_for = {barrier.commit.revision.seq for barrier in self._open}
        log = census.log
        for seq in await self._registry.find_open():
            if seq not in waited_for:
                self.open(Commit(Revision(log.epoch, seq), log.timeline, census.lease_ms_max, log.at))

    def report(self) -> dict[str, Any]:
        """How many barriers ended by each path and how long they took, in milliseconds, of the last ones."""
        return {path.value: {"count": self._counts[path], **_quantiles(self._waits[path])} for path in Path}

    async def stop(self) -> None:
        """Wait no more; what was waited for somebody else's sweep will finish."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        for future in self._open.values():
            future.set_exception(Unavailable("this server is stopping"))
        self._open.clear()

    async def _run(self) -> None:
        """Ask until nobody waits; more and more rarely, but at once when there is somebody new."""
        began = self._clock()
        try:
            while self._open:
                if self._signal.is_set():
                    self._signal.clear()
                    began = self._clock()
                    self._woken_at = -math.inf
                try:
                    await self._ask()
                except Unavailable:
                    pass  # The timers run on.
                except Exception:  # noqa: BLE001 (as before; whoever waits must not wait for ever)
                    _log.exception("members not read")
                await self._close(self._certain())
                if self._open:
                    now = self._clock()
                    pause = max(PAUSE_SECONDS_MIN, min((now - began) / 4, PAUSE_SECONDS_MAX))
                    soonest = min(barrier.ends_at for barrier in self._open) - now
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._signal.wait(), max(0, min(pause, soonest)))
        finally:
            self._running = None

    async def _ask(self) -> None:
        """Wake the members, and read how far they are."""
        if self._clock() - self._woken_at >= WAKE_SECONDS:
            self._woken_at = self._clock()
            seq = max(barrier.commit.revision.seq for barrier in self._open)
            self.wake(seq)
            await self._registry.wake(seq)
        sent = self._clock()
        soonest = min(barrier.ends_at for barrier in self._open) - sent
        census = await self._registry.count(max(PAUSE_SECONDS_MAX, min(COUNT_LIMIT_SECONDS, soonest)))
        received = self._clock()
        self._promotions.note(census.log, received)
        is_complete = self._promotions.is_over(census, received, self._terms)
        for barrier in list(self._open):
            if not barrier.counted(census, sent, is_complete=is_complete):
                await self._follow(barrier, census)

    async def _follow(self, barrier: Barrier, census: Census) -> None:
        """Find out whether the change is also in this log, which is another one than it was committed to."""
        if await self._registry.has_change(barrier.commit.revision, barrier.commit.at):
            barrier.moved(census.log, census.lease_ms_max, self._clock())
        else:
            lost = Unavailable("the database lost the change when another server took over: repeat it")
            self._open.pop(barrier).set_exception(lost)

    def _certain(self) -> dict[Barrier, Path]:
        """The barriers that are done."""
        now = self._clock()
        return {barrier: path for barrier in self._open if (path := barrier.certain(now))}

    async def _close(self, certain: dict[Barrier, Path]) -> None:
        """Mark changes final, then tell who waits."""
        seqs: Collection[int] = [barrier.commit.revision.seq for barrier in certain if barrier.commit.is_restrictive]
        if seqs:
            try:
                await self._registry.mark_final(seqs)
            except Unavailable:
                # That they are certain is true all the same; a sweep marks them later.
                _log.warning("changes not marked as final", changes=len(seqs))
            except Exception:  # noqa: BLE001 (as before; without this loop all others would wait for ever)
                _log.exception("changes not marked as final", changes=len(seqs))
        now = self._clock()
        for barrier, path in certain.items():
            self._counts[path] += 1
            self._waits[path].append(now - barrier.since)
            self._open.pop(barrier).set_result(path)


def _quantiles(seconds: Collection[float]) -> dict[str, float]:
    """Of a few durations, in milliseconds."""
    if not seconds:
        return {}
    ordered = sorted(seconds)
    places = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": len(ordered) - 1}
    return {f"{name}_ms": round(ordered[place] * 1000, 1) for name, place in places.items()}
