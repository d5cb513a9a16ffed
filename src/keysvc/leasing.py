"""Leasing: what a server needs to answer from memory, opened and closed in the right order."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from secrets import token_bytes
from typing import Any, Final
from uuid import UUID, uuid4

from keysvc.lease.barrier import Promotions
from keysvc.lease.holder import Holder
from keysvc.lease.memory import BYTES_MAX, Memory
from keysvc.lease.sessions import Sessions
from keysvc.lease.terms import Clock, Terms, boottime
from keysvc.service.granting import Granting
from keysvc.service.renewing import LeaseTooLongError, Renewing
from keysvc.service.waiting import COUNT_LIMIT_SECONDS, Waiting
from keysvc.storage import OpenDatabase, StartError, Storage
from keysvc.store.leases import Listener, Membership, Registry
from keysvc.store.line import Line

REPORT_SECONDS: Final = 1.0
"""How often a member tells about itself."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes that serve together, in one of its lives.

    Its member ids begin with a number that it was given by chance, so that whoever has seen it end can delete its rows
    without having heard of them. The name of the host and the number of the process would not do: two containers may
    share both, and the row of one that lives would go.

    Parameters:
        number: from 1, the same in all lives.
        token: 8 random bytes, others in each life.
    """

    number: int
    token: bytes = field(default_factory=partial(token_bytes, 8), repr=False)

    def new_member_id(self) -> UUID:
        """A member id that nobody else has."""
        return UUID(bytes=self.token + token_bytes(8), version=4)

    @property
    def member_ids(self) -> tuple[UUID, UUID]:
        """The first and the last of all ids that this worker can make."""
        return UUID(bytes=self.token + bytes(8), version=4), UUID(bytes=self.token + b"\xff" * 8, version=4)


@dataclass(frozen=True, slots=True)
class Parts:
    """What leasing is made of. Tests hand over others, which they must then show to be wrong."""

    clock: Clock = boottime
    memory: Callable[..., Memory] = Memory
    holder: Callable[..., Holder] = Holder
    sessions: Callable[..., Sessions] = Sessions
    membership: Callable[..., Membership] = Membership
    registry: Callable[..., Registry] = Registry
    renewing: Callable[..., Renewing] = Renewing
    waiting: Callable[..., Waiting] = Waiting


REAL: Final = Parts()
"""As in ``keysvc.lease``."""


@dataclass(slots=True)
class Leasing:
    """What answers from memory, and what waits for those who do.

    Parameters:
        holder: of this process.
        granting: leases to clients.
        host: by which operators know it.
        waiting: for the barriers of its changes.
        clock: of the leases.
        tell: what the process says about itself to operators, besides its barriers.
    """

    holder: Holder
    granting: Granting
    host: str
    waiting: Waiting
    clock: Clock
    tell: Callable[[], dict[str, Any]] | None = None


@asynccontextmanager
async def open_waiting(storage: OpenDatabase, terms: Terms, parts: Parts = REAL) -> AsyncIterator[Waiting]:
    """What waits for barriers, for a process that does not answer from memory itself."""
    line = Line(storage.url, "keysvc barrier", COUNT_LIMIT_SECONDS)
    waiting = parts.waiting(parts.registry(line, storage.timeline), Promotions(), terms, parts.clock)
    try:
        yield waiting
    finally:
        await waiting.stop()
        await line.close()


@asynccontextmanager
async def open_leasing(
    storage: Storage,
    terms: Terms,
    parts: Parts = REAL,
    *,
    bytes_max: int = BYTES_MAX,
    worker: Worker | None = None,
) -> AsyncIterator[Leasing]:
    """Answer from memory from now on.

    Parameters:
        worker: which one we are, if there are several.

    Raises:
        StartError: the database does not allow such long leases.
    """
    clock = parts.clock
    holder = parts.holder(parts.memory(bytes_max=bytes_max), terms, clock)
    sessions = parts.sessions(holder, clock)
    host = f"{socket.gethostname()}/{os.getpid()}"
    # Lines of their own: whatever else is asked, a renewal waits for nothing.
    renewals = Line(storage.url, "keysvc lease", terms.renewal_limit_seconds)
    async with open_waiting(storage, terms, parts) as waiting:
        told_at = -REPORT_SECONDS

        def report() -> dict[str, Any] | None:
            nonlocal told_at
            if leasing.tell is None or clock() < told_at + REPORT_SECONDS:
                return None
            told_at = clock()
            told = {
                "remembered": len(holder.memory),
                "sessions": len(sessions),
                "barriers": waiting.report(),
                **leasing.tell(),
            }
            return told if worker is None else {"worker": worker.number, **told}

        renewing = parts.renewing(
            holder,
            sessions,
            parts.membership(renewals, storage.timeline),
            host=host,
            new_id=worker.new_member_id if worker else uuid4,
            report=report,
            clock=clock,
        )
        granting = Granting(holder, sessions, renewing.acknowledge, clock)
        renewing.moved, renewing.announced = granting.wake, granting.announced.set
        leasing = Leasing(holder, granting, host, waiting, clock)
        listener = Listener(storage.url, renewing.wake, terms.renewal_limit_seconds)
        waiting.wake = renewing.wake
        try:
            await renewing.start()
            listener.start()
            yield leasing
        except LeaseTooLongError as error:
            raise StartError(
                f"{error}: shorten --lease-seconds and --stale-seconds, or run keysvc lease-limit"
            ) from None
        finally:
            await asyncio.gather(listener.stop(), renewing.stop())
            await renewals.close()
