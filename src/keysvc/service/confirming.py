"""Confirms changes: makes one, waits until it is true everywhere, and hands out the receipt."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import Final, TypeVar

from keysvc.core.receipt import Path, Receipt
from keysvc.core.revision import Revision
from keysvc.lease.barrier import Barrier
from keysvc.lease.terms import Clock
from keysvc.service.callers import Call
from keysvc.service.ports import Changes, Transaction
from keysvc.service.waiting import Waiting

PERMISSIVE_SECONDS: Final = 0.25
"""How long a change that only adds waits for everybody: it harms nobody who does not know of it yet."""

ANSWER_SECONDS: Final = 0.1
"""So long before its caller's deadline a wait ends, so that the receipt still arrives."""

WAIT_SECONDS_MAX: Final = 3600.0
"""However long leases are, no call waits for longer."""

_UNCHANGED: Final = 0


class Wait(Enum):
    """What a caller waits for."""

    BARRIER = auto()
    """Until the change is true everywhere."""
    COMMIT = auto()
    """Until it is durable."""


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """What callers say of every change that they ask for.

    Parameters:
        reason: for the audit event.
    """

    reason: str = ""
    wait: Wait = Wait.BARRIER


NOTHING_SAID: Final = ChangeRequest()
"""Without a reason, and waiting for the barrier."""

T = TypeVar("T")


class Confirming:
    """Makes changes and confirms them.

    Parameters:
        changes: makes them.
        waiting: waits for those who answer from memory.
        clock: of the leases.
    """

    def __init__(self, changes: Changes, waiting: Waiting, clock: Clock) -> None:
        self._changes = changes
        self._waiting = waiting
        self._clock = clock
        self._tasks: set[asyncio.Task[object]] = set()

    async def make(
        self,
        call: Call,
        asked: ChangeRequest,
        work: Callable[[Transaction], Awaitable[T]],
        recall: Callable[[Transaction], Awaitable[T]],
        revision_of: Callable[[T], Revision],
    ) -> tuple[T, Receipt]:
        """Make one change and wait for it, for as long as the caller wants to and has time.

        The cancellation of the call does not stop what has begun: neither the change nor its barrier. A change that was
        made before waits like the first time, so it is safe to ask twice.

        Parameters:
            work, recall: see ``Changes.run``.
            revision_of: the revision to wait for where there was nothing to change: that of the earlier change.

        Raises:
            Unavailable: it is unknown whether the change was made.
            Whatever ``work`` raises: then nothing was changed.
        """
        stamp = call.stamp(asked.reason)

        async def begin() -> tuple[T, datetime, Barrier, asyncio.Future[Path]]:
            began = self._clock()
            changed, commit = await self._changes.commit(stamp, work, recall)
            if commit.revision.seq == _UNCHANGED:
                commit = replace(commit, revision=revision_of(changed))
            # Ahead of the database's clock, by no more than the change took.
            at = commit.at + timedelta(seconds=self._clock() - began)
            return changed, at, *self._waiting.open(commit)

        task = asyncio.create_task(begin())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        changed, at, barrier, certain = await asyncio.shield(task)
        left = call.time_left()
        limit = WAIT_SECONDS_MAX if left is None else left - ANSWER_SECONDS
        if asked.wait is Wait.COMMIT:
            limit = 0.0
        elif not barrier.commit.is_restrictive:
            limit = min(limit, PERMISSIVE_SECONDS)
        await asyncio.wait({certain}, timeout=max(0.0, limit))
        return changed, self._receipt(barrier, certain, at)

    def _receipt(self, barrier: Barrier, certain: "asyncio.Future[Path]", at: datetime) -> Receipt:
        """What is known of a barrier now.

        Parameters:
            at: the database's clock when it was opened.
        """
        hosts = tuple(sorted({member.host for member in barrier.unacknowledged}))
        waited = self._clock() - barrier.since
        if not certain.done():
            # Not before now: where everybody has just acknowledged, the leases say nothing of when.
            effective_by = at + timedelta(seconds=max(barrier.ends_at - barrier.since, waited))
            return Receipt(barrier.commit.revision, None, waited, effective_by, hosts)
        path = certain.result()
        return Receipt(barrier.commit.revision, path, waited, unacknowledged=hosts if path is Path.TIMER else ())
