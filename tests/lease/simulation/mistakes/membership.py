"""Mistakes of how members come, renew, and go, of who removes dead ones, and of who reads the database for Verify."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from keysvc.core.errors import Unavailable
from keysvc.core.verdict import Snapshot, Verdict
from keysvc.lease.collector import Collector
from keysvc.lease.holder import Outcome
from keysvc.lease.news import Census, Member, News
from keysvc.lease.terms import Terms
from keysvc.service.renewing import LeaseTooLongError, Renewing
from keysvc.service.waiting import Waiting
from keysvc.store.lookups import Lookups
from tests.lease.simulation.mistakes.mistake import (
    ASK_FIRST,
    CUT,
    DEAF,
    LATER,
    OF_TWO_LENGTHS,
    RESTART,
    REVOKE,
    SWEEP,
    VERIFY,
    Mistake,
    delay,
    delay_answer,
)
from tests.lease.simulation.parts import Parts
from tests.lease.simulation.process import LEASE
from tests.lease.simulation.schedule import some
from tests.lease.simulation.steps import (
    Crash,
    Cut,
    Deafen,
    Delay,
    DelayAnswer,
    Leave,
    Restart,
    Revoke,
    Start,
    Sweep,
    Verify,
)
from tests.lease.twin import TwinRegistry


class ExtendsFirst(Renewing):
    """Extends the lease, and applies what the renewal has brought a little later."""

    async def _round(self) -> bool:
        membership, holder = self._membership, self._holder

        class Extending:
            """Extends the lease as soon as there is an answer."""

            fetch = membership.fetch

            async def renew(self, *args: Any) -> News | None:
                sent = holder._clock()
                news = await membership.renew(*args)
                if news is not None:
                    holder._deadline = sent + holder.terms.lease_seconds
                    await asyncio.sleep(0)
                return news

        self._membership = Extending()
        try:
            return await super()._round()
        finally:
            self._membership = membership


class AcknowledgesUnapplied(Renewing):
    """Acknowledges what it was woken for, and not what it has applied."""

    _heard = 0

    def wake(self, seq: int) -> None:
        """Hear of a change."""
        self._heard = max(self._heard, seq)
        super().wake(seq)

    async def _round(self) -> bool:
        holder = self._holder
        member_id, applied = holder.member_id, holder.applied
        applied = replace(applied, seq=max(applied.seq, self._heard))
        sent = self._clock()
        outcome = holder.renewed(sent, await self._membership.renew(member_id, applied, applied.seq, {}))
        return outcome is not Outcome.EXTENDED


class LeaseBeforeRow(Renewing):
    """Takes its first lease before it has a row."""

    async def _join(self) -> None:
        holder, member_id = self._holder, self._new_id()
        sent = self._clock()
        news = await self._membership.fetch(0)
        holder.joined(member_id, news.log)
        holder.renewed(sent, news)
        lease_ms = holder.terms.lease_ms
        if await self._membership.join(member_id, host=self._host, lease_ms=lease_ms, instead_of=self._rows) is None:
            raise LeaseTooLongError
        self._rows = [member_id]


class DeletesRowFirst(Renewing):
    """Deletes its row, and then stops to answer."""

    async def stop(self) -> None:
        """Leave."""
        self._running.cancel()
        with suppress(Unavailable):
            await self._membership.leave(self._rows)
        self._holder.lose()


@dataclass(frozen=True, slots=True)
class CollectsEarly(Terms):
    """Takes a member for dead whose lease goes on."""

    def collect_seconds(self, lease_ms: int) -> float:
        """Half a lease."""
        return lease_ms / 2000


@dataclass(frozen=True, slots=True)
class OneAgeForAll(Terms):
    """Waits for other members as long as it would for itself."""

    def collect_seconds(self, lease_ms: int) -> float:
        """By its own lease."""
        return Terms.collect_seconds(self, self.lease_ms)


class CollectsUnchecked(TwinRegistry):
    """Deletes a row whose beat has moved since."""

    async def collect(self, member: Member) -> None:
        """Delete it."""
        await self._carry("collect", lambda: self._twin.rows.pop(member.id, None))


class CollectsOnAndOn(Collector):
    """Counts on with another connection."""

    def counted(self, census: Census, sent: float, received: float) -> list[Member]:
        """Count."""
        return super().counted(replace(census, session=0), sent, received)


class WithCollectorThatGoesOn(Waiting):
    """Has such a collector."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._collector = CollectsOnAndOn(args[2])


class JoinsReads(Lookups):
    """Uses a look-up that has been sent already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flying: dict[str, asyncio.Future[Snapshot]] = {}

    async def find(self, secret_id: str) -> Snapshot:
        """Find a secret."""
        flying = self._flying.get(secret_id)
        if flying is None or flying.done():
            flying = self._flying[secret_id] = asyncio.ensure_future(super().find(secret_id))
        return await asyncio.shield(flying)


class FinalAtOnce(Lookups):
    """Says that a revocation is final before that is so."""

    async def find(self, secret_id: str) -> Snapshot:
        """Find a secret."""
        snapshot = await super().find(secret_id)
        record = snapshot.record
        if record is None or record.refusal != Verdict.REVOKING:
            return snapshot
        return replace(snapshot, record=record._replace(refusal=Verdict.REVOKED.value))


MEMBERSHIP: Final = (
    Mistake(
        "extended before applied",
        Parts(renewing=ExtendsFirst),
        "(S)",
        (Deafen(0.0, 1, 4.0), Cut(0.0, 1, LEASE, 0.9), Revoke(2.2, 0, 0)),
        (REVOKE, CUT, DEAF),
    ),
    Mistake(
        "acknowledged unapplied",
        Parts(renewing=AcknowledgesUnapplied),
        "(R)",
        (DelayAnswer(0.0, 1, "renew", 0.15), Revoke(0.3, 0, 0)),
        (REVOKE, delay_answer("renew")),
    ),
    Mistake(
        "lease before row",
        Parts(renewing=LeaseBeforeRow),
        "(S)",
        (Delay(0.0, 1, "join", 0.15), Restart(0.01, 1), Verify(0.01, 1), Revoke(0.1, 0, 0)),
        (RESTART, VERIFY, REVOKE, delay("join")),
    ),
    Mistake(
        "row deleted first",
        Parts(renewing=DeletesRowFirst),
        "(S)",
        (DelayAnswer(0.0, 1, "leave", 0.15), Leave(0.01, 1), Revoke(0.1, 0, 0)),
        (REVOKE, delay_answer("leave"), some(Leave, who=1)),
    ),
    Mistake(
        "collected early",
        Parts(terms=CollectsEarly),
        "(S)",
        (Cut(0.0, 1, LEASE, 0.9), Sweep(0.31, 0), Sweep(0.01, 0), Revoke(0.1, 0, 0)),
        (REVOKE, CUT, SWEEP),
        is_slow=True,
    ),
    Mistake(
        "one age for all",
        Parts(terms=OneAgeForAll),
        "(S)",
        (Cut(0.0, 1, LEASE, 2.5), Sweep(2.2, 0), Sweep(0.1, 0), Revoke(0.1, 0, 0)),
        (REVOKE, CUT, SWEEP),
        setting=OF_TWO_LENGTHS,
    ),
    Mistake(
        "collected unchecked",
        Parts(registry=CollectsUnchecked),
        "(S)",
        (
            Cut(0.0, 1, LEASE, 2.4),
            Sweep(2.2, 0),
            Delay(0.0, 0, "collect", 0.3),
            Sweep(0.25, 0),
            Verify(0.0, 1),
            Cut(0.1, 1, LEASE, 0.9),
            Revoke(0.3, 0, 0),
        ),
        (REVOKE, CUT, SWEEP, delay("collect", who=0, seconds=0.3), some(Cut, who=1, line=LEASE, seconds=2.4)),
        is_rare=True,
    ),
    Mistake(
        "join not durable",
        Parts(asynchronous=frozenset({"join", "renew"})),
        "(S)",
        (Crash(0.0), Cut(0.0, 1, LEASE, 0.9), Revoke(0.1, 0, 0)),
        (RESTART, VERIFY, REVOKE, some(Crash), CUT),
        is_slow=True,
    ),
    Mistake(
        "renewal not durable",
        Parts(asynchronous=frozenset({"renew"}), waiting=WithCollectorThatGoesOn),
        "(S)",
        (
            Cut(0.0, 1, LEASE, 2.0),
            Sweep(2.3, 0),
            Crash(0.0),
            Cut(0.0, 1, LEASE, 0.9),
            Verify(0.0, 1),
            Sweep(0.1, 0),
            Revoke(0.3, 0, 0),
        ),
        (REVOKE, some(Cut, who=1, line=LEASE, seconds=(0.9, 2.0)), some(Crash), SWEEP),
        is_rare=True,
    ),
    Mistake(
        "read joined",
        Parts(lookups=JoinsReads),
        "(S)",
        (
            Cut(0.0, 1, LEASE, 0.9),
            DelayAnswer(0.0, 1, "find", 0.3),
            Start(0.01, 1),
            Verify(0.01, 1),
            Revoke(0.1, 0, 0),
            Verify(0.3, 1),
        ),
        (VERIFY, REVOKE, RESTART, CUT, delay_answer("find")),
        setting=LATER,
        is_rare=True,
    ),
    Mistake(
        "final at once",
        Parts(lookups=FinalAtOnce),
        "(A)",
        (Cut(0.0, 1, LEASE, 0.9), Revoke(0.01, 0, 0), Verify(0.01, 0)),
        (REVOKE, CUT, ASK_FIRST),
    ),
)
