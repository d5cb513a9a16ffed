"""What the tables of leases say about a deployment, for people."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from keysvc.core.pepper import PepperState
from keysvc.core.revision import Revision
from keysvc.store.database import Database
from keysvc.store.schema import key, key_change, lease_member, pepper, revocation_clock, secret


@dataclass(frozen=True, slots=True)
class HolderStatus:
    """A server that may answer from memory.

    Parameters:
        applied: it knows all changes up to this revision.
        renewals: since it joined.
        report: what it has told about itself, and when.
    """

    member_id: UUID
    host: str
    applied: int
    renewals: int
    lease_ms: int
    start_time: datetime
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OpenBarrier:
    """A change that somebody may not know yet.

    Parameters:
        subject_ids: the keys or workspaces that it is about.
        age: of the change.
        kept_open_by: hosts that have not acknowledged it.
    """

    seq: int
    kind: str
    subject_ids: tuple[UUID, ...]
    age: timedelta
    kept_open_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """A deployment at a moment.

    Parameters:
        revision: of the last change.
        lease_ms_max: the longest lease that is allowed.
    """

    at: datetime
    revision: Revision
    log_start: int
    lease_ms_max: int
    holders: tuple[HolderStatus, ...]
    open_barriers: tuple[OpenBarrier, ...]


async def read_status(database: Database) -> Status:
    """Holders by host, and open barriers by age."""

    async def work(connection: AsyncConnection, _attempt: int) -> Status:
        clock = (await connection.execute(select(revocation_clock, func.clock_timestamp().label("at")))).one()
        members = await connection.execute(select(lease_member).order_by(lease_member.c.host))
        holders = tuple(
            HolderStatus(row.member_id, row.host, row.applied_seq, row.beat, row.lease_ms, row.started_at, row.report)
            for row in members
        )
        changes = await connection.execute(select(key_change).where(~key_change.c.final).order_by(key_change.c.seq))
        return Status(
            clock.at,
            Revision(clock.epoch, clock.seq),
            clock.log_start,
            clock.lease_ms_max,
            holders,
            tuple(
                OpenBarrier(
                    row.seq,
                    row.kind,
                    tuple(row.subject_ids),
                    clock.at - row.at,
                    tuple(holder.host for holder in holders if holder.applied < row.seq),
                )
                for row in changes
            ),
        )

    return await database.run(work, commit=False)


async def read_peppers(database: Database) -> list[PepperState]:
    """All peppers that the database knows, oldest first. Counts their secrets, which takes its time."""
    living = (
        select(func.count())
        .select_from(secret.join(key))
        .where(secret.c.pepper == pepper.c.fingerprint, secret.c.revoke_time.is_(None), key.c.revoke_time.is_(None))
        .correlate(pepper)
        .scalar_subquery()
    )
    query = select(pepper, living.label("living")).order_by(pepper.c.create_time)

    async def work(connection: AsyncConnection, _attempt: int) -> list[PepperState]:
        rows = await connection.execute(query)
        return [PepperState(row.fingerprint, row.signing, row.create_time, row.retire_time, row.living) for row in rows]

    return await database.run(work, commit=False)
