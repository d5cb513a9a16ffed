"""Metering: writes what a server has counted, in batches, each once whatever happens to its connections.

A server is a source of usage like any caller of RecordUsage. What it has not written when it is killed is lost; a stop
in order writes everything.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from keysvc.core.errors import Overloaded, Unavailable
from keysvc.core.usage import Batch, Counter, Meter, Tally
from keysvc.service.ports import UsageTotals

SERVER_OWNER: Final = "keysvc"
"""Owns the sources that are servers; no caller's name."""

FLUSH_SECONDS: Final = 1.0
"""How often counts are written; about so old they are in answers."""

COUNTERS_MAX: Final = 100
"""Of one batch: a few milliseconds of work for the database."""

BEAT_SECONDS: Final = 5.0
"""How often a server that counts nothing says so."""

_log = structlog.get_logger("keysvc.usage")


class Metering:
    """Writes what a meter counts.

    Parameters:
        meter: counts.
        totals: where to.
        source_id: of this process, and of no other.
        clock: monotonic seconds.
    """

    def __init__(self, meter: Meter, totals: UsageTotals, source_id: str, *, clock: Callable[[], float]) -> None:
        self._meter = meter
        self._totals = totals
        self._source_id = source_id
        self._clock = clock
        self._waiting: deque[Batch] = deque()
        self._seq = 0
        self._beat_at = clock() - BEAT_SECONDS

    async def flush(self) -> None:
        """Write all that was counted before this call.

        Raises:
            Unavailable, Overloaded: the database did not answer in time. Nothing is lost or counted twice: the next
                call goes on where this one stopped.
        """
        # First what was left: its numbers are taken, and whether it was written nobody knows.
        await self._send()
        if self._meter.is_empty and self._clock() < self._beat_at + BEAT_SECONDS:
            return
        # Read before the counts are taken, so that they have everything that was counted until then.
        as_of = await self._totals.read_clock()
        batches = []
        for tallies in self._meter.take(COUNTERS_MAX):
            batches.append(self._batch(tallies))
            await asyncio.sleep(0)  # Verifies go first: there may be very many counters.
        last = batches.pop() if batches else self._batch({})
        self._waiting.extend((*batches, replace(last, as_of=as_of)))
        await self._send()
        self._beat_at = self._clock()

    async def finish(self) -> None:
        """Write what is left, when nothing is counted any more."""
        try:
            await self.flush()
            await self._totals.forget_source(self._source_id, SERVER_OWNER)
        except (Unavailable, Overloaded):
            waiting = sum(tally.verify_count for batch in self._waiting for tally in batch.tallies.values())
            counted = sum(tally.verify_count for part in self._meter.take(COUNTERS_MAX) for tally in part.values())
            _log.error("usage lost: the database is away", verify_count=waiting + counted)

    def _batch(self, tallies: dict[Counter, Tally]) -> Batch:
        """The next batch."""
        self._seq += 1
        return Batch(self._source_id, SERVER_OWNER, self._seq, b"", tallies)

    async def _send(self) -> None:
        """Write what waits, in order; between batches others have the database for as long as one has taken."""
        while self._waiting:
            began = self._clock()
            await self._totals.add(self._waiting[0])
            self._waiting.popleft()
            if self._waiting:
                await asyncio.sleep(self._clock() - began)
